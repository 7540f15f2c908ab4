"""What `make gpu` asks of the sampler: images, graphs, seconds."""

import copy
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch

import genkern
from benchmarks import sampling as cases
from genkern import sampling
from genkern.sampling.incremental import Draw, Stepper, wavefront_reason
from tests.gpu.kit import F64, Setting
from tests.sampling.nets import OUTPUTS, make, noise

_COUNT = 2
_EDGE = 1e-5  # float32: how near a chance and its noise may be for the integer to be another one


def _place() -> torch.device:
    """The default device. Stage 1 compiles what is launched on meta tensors, but of a plan numbers
    are read: there it compiles launches on the CPU's."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def _images(kind: str, dtype: torch.dtype) -> None:
    """From the same noise the images of the definition, on the CPU in float64, and their log p."""
    if dtype not in (torch.float32, F64):
        return
    with torch.device("cpu"):
        case = make(kind)
        uniform, definition = noise(case, count=_COUNT), copy.deepcopy(case.model)
    given = {"shape": case.shape, "output": case.output, "return_log_prob": True}
    with _place():
        model, own = case.model.to(_place(), dtype), uniform.to(_place())
        images, log_prob = sampling.sample(model, _COUNT, noise=own, method="incremental", **given)
    with torch.device("cpu"), genkern.use_backend("reference"):
        expected = sampling.sample(definition, _COUNT, noise=uniform, method="naive", **given)
    assert torch.equal(images.cpu(), expected[0]), f"{kind}: other images"
    bound = 1e-10 if dtype == F64 else 1e-4
    torch.testing.assert_close(log_prob.cpu().double(), expected[1], rtol=bound, atol=bound)


def _gated(batch: int, height: int = cases.SIDE) -> tuple[cases.Net, torch.Tensor]:
    """The Gated PixelCNN of the CPU's figures, and noise; on the stand-in a small one."""
    torch.manual_seed(0)
    small = torch.get_default_device().type == "cpu"
    with torch.device("cpu"):
        net = cases.Net(cases.Layer, 4, 1) if small else cases.nets()[1]
        uniform = torch.rand(2, 1, 2, 3) if small else torch.rand(batch, 1, height, cases.SIDE)
    return net.eval().to(_place()), uniform.to(_place())


@torch.no_grad()
def _again(net: cases.Net, uniform: torch.Tensor, images: torch.Tensor) -> None:
    """The chances that one full forward pass gives for the images draw them again."""
    chance = net(images.float()).sigmoid()
    wrong = (uniform < chance).long() != images
    assert not (wrong & ((uniform - chance).abs() > _EDGE)).any(), "other images than naive ones"


def _gated_images(dtype: torch.dtype) -> None:
    """A few rows: what the timing launches is compiled by the stages before it."""
    if dtype == torch.float32:
        net, uniform = _gated(16, 3)
        _again(net, uniform, _drawn(net, uniform, "raster")[0])


CALLS = {f"sampler, {kind}": partial(_images, kind) for kind in OUTPUTS}
CALLS["sampler, gated"] = _gated_images


def _drawn(net: cases.Net, uniform: torch.Tensor, order: str) -> tuple[torch.Tensor, int, int]:
    """Images, steps, and bytes of the caches."""
    with uniform.device:
        stepper = Stepper(net, torch.zeros_like(uniform), order=order)
        images, log_prob = stepper.run(Draw("bernoulli", 2, torch.tensor([0.0, 1.0])), uniform)
    assert not log_prob.isnan().any()
    return images, len(stepper.steps), stepper.cache_bytes


def replays_draw_what_launches_draw() -> None:
    """Bit for bit, with more than one graph, in every run."""
    from genkern.triton_kernels.sampler import runner

    net, uniform = _gated(4)
    with mock.patch.object(runner, "has_graphs", lambda tensor: False):
        expected = _drawn(net, uniform, "raster")[0]
    for _ in range(2):
        assert torch.equal(_drawn(net, uniform, "raster")[0], expected)


def images_in_every_order_are_those_of_one_forward_pass() -> None:
    net, uniform = _gated(4)
    for order in cases.METHODS.values():
        _again(net, uniform, _drawn(net, uniform, order)[0])


CHECKS = [replays_draw_what_launches_draw, images_in_every_order_are_those_of_one_forward_pass]


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """The fastest of some calls, each with its end."""
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return min(found)


def _timing(batch: int, setting: Setting) -> dict:
    """Seconds of a batch with its recording, packing and capturing; beside it one forward pass, of
    which naive generation takes one for each pixel."""
    net, uniform = _gated(batch)
    repeats = 3 if setting.device == "cuda" else 1
    _seconds(lambda: net(uniform), 1)
    forward = _seconds(lambda: net(uniform), repeats)
    found: dict = {"shape": list(uniform.shape), "forward_seconds": forward}
    found["naive_seconds_extrapolated"] = forward * uniform[0].numel()
    for method, order in cases.METHODS.items():
        reason = wavefront_reason(net, uniform) if order == "wavefront" else None
        if reason is not None:  # the small one
            found[method] = reason
            continue
        call = partial(_drawn, net, uniform, order)
        first = _seconds(call, 1)
        own = {"seconds": _seconds(call, repeats), "seconds_of_the_first_call": first}
        images, own["steps"], own["cache_bytes"] = call()
        _again(net, uniform, images)
        found[method] = own
        print(f"{method} {tuple(uniform.shape)}: {own}", flush=True)
    return found


TIMINGS = {f"Gated PixelCNN, batch {batch}": partial(_timing, batch) for batch in (16, 64)}
