"""The Triton backend on a CUDA device: `make gpu-test` runs this file; elsewhere it is skipped."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import genkern
from genkern import random
from genkern.reference import gan_loss as gan_loss_reference
from genkern.reference import gaussian as gaussian_reference
from genkern.reference import masked_conv2d as masked_conv2d_reference
from genkern.reference import row_lstm as row_lstm_reference
from tests.core.helpers import double, run
from tests.core.tolerance import assert_close

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FAMILIES = ("gaussian", "gan_loss", "masked_conv2d", "row_lstm")
PROPERTY = "match_the_float64_reference"
F64 = torch.float64


@pytest.fixture(autouse=True)
def on_cuda():
    """New tensors are on the GPU, and anything but Triton raises."""
    with torch.device("cuda"), genkern.use_backend("triton"):
        yield
    torch.cuda.empty_cache()


def properties() -> list[tuple[str, str]]:
    """The property tests of the CPU suite: (module, test)."""
    found = []
    for family in FAMILIES:
        module = importlib.import_module(f"tests.{family}.values")
        tests = [n for n, f in vars(module).items() if PROPERTY in n and hasattr(f, "hypothesis")]
        found += [(f"tests.{family}.values", name) for name in tests]
    return found


@pytest.mark.parametrize("module, name", properties())
def test_property_of_the_cpu_suite(module, name):
    getattr(importlib.import_module(module), name)()


def enough_memory(gigabytes: float) -> None:
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gigabytes:
        pytest.skip(f"2^31 elements take {gigabytes} GiB of device memory; {free:.0f} GiB are free")


# ---- sizes -----------------------------------------------------------------------------------


def both(function, definition, inputs, upstream, terms=1, scale=1.0):
    """Values and gradients in float64 against the reference."""
    got, want = run(function, inputs, upstream), run(definition, inputs, upstream)
    for g, w in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert_close(g, w, terms=terms, scale=scale * max(1.0, w.abs().max().item()))


@pytest.mark.parametrize("N", [65_535, 65_536, 65_537])
def test_batches_around_the_limit_of_the_other_grid_axes(N):
    x = [torch.randn(N, 3, dtype=F64) for _ in range(3)]
    both(
        lambda *t: genkern.gaussian_kl_rsample(t[0], t[1], eps=t[2]),
        lambda *t: (gaussian_reference.rsample(*t), gaussian_reference.kl(t[0], t[1])),
        x, [x[0], x[1][:, 0]], terms=3, scale=8.0,
    )  # fmt: skip
    both(genkern.gan_d_loss, gan_loss_reference.d_loss, x[:2], [torch.ones((), dtype=F64)])
    image, weight = torch.randn(N, 1, 3, 3, dtype=F64), torch.randn(2, 1, 3, 3, dtype=F64)
    both(
        lambda i, w: genkern.masked_conv2d(i, w, mask_type="A"),
        lambda i, w: masked_conv2d_reference.forward(i, w, None, "A"),
        [image, weight], [torch.randn(N, 2, 3, 3, dtype=F64)], terms=9 * N, scale=8.0,
    )  # fmt: skip
    gates, weight = torch.randn(N, 4, 2, 3, dtype=F64), torch.randn(4, 1, 3, dtype=F64)
    both(
        lambda g, w: genkern.row_lstm(g, w)[0],
        lambda g, w: row_lstm_reference.forward(g, w)[0],
        [gates, weight], [torch.randn(N, 1, 2, 3, dtype=F64)], terms=6 * N, scale=8.0,
    )  # fmt: skip


class Large(NamedTuple):
    """A call with more than 2^31 elements, of which only the last image is not zero."""

    function: Callable
    definition: Callable
    batched: list[tuple[int, ...]]
    shared: list[tuple[int, ...]]  # weights
    bounds: list[tuple[int, float]]  # terms and scale of each output, then of each gradient
    gigabytes: float


def large_convolution(N: int, C: int, side: int) -> Large:
    return Large(
        lambda x, w: (genkern.masked_conv2d(x, w),),
        lambda x, w: (masked_conv2d_reference.forward(x, w),),
        [(N, C, side, side)], [(C, C, 3, 3)],
        [(5 * C, 8.0), (5 * C, 8.0), (side * side, 8.0)], 32,
    )  # fmt: skip


D = 4096
LARGE = {
    "gaussian": Large(
        lambda mu, logvar: genkern.gaussian_kl_rsample(mu, logvar, eps=mu.detach()),
        lambda mu, logvar: (
            gaussian_reference.rsample(mu, logvar, mu.detach()),
            gaussian_reference.kl(mu, logvar),
        ),
        [(2**19 + 3, D)] * 2, [], [(1, 64.0), (D, 4.0 * D), (1, 64.0), (1, 64.0)], 48,
    ),
    "masked_conv2d": large_convolution(2**15 + 1, 16, 64),
    "masked_conv2d with as many pixels": large_convolution(2**19 + 1, 1, 64),
    "row_lstm": Large(
        lambda gates, w: genkern.row_lstm(gates, w / 8)[:1],
        lambda gates, w: row_lstm_reference.forward(gates, w / 8)[:1],
        [(2**16 + 1, 64, 2, 256)], [(64, 16, 3)],
        [(48, 64.0), (4 * 48, 64.0), (4 * 48 * 512, 64.0)], 48,
    ),
}  # fmt: skip


def check_last(large: Large) -> None:
    inputs = [torch.zeros(shape, dtype=torch.bfloat16) for shape in large.batched]
    for x in inputs:
        x[-1] = torch.randn(x.shape[1:]).bfloat16()
    inputs += [torch.randn(shape).bfloat16() for shape in large.shared]
    leaves = [x.requires_grad_() for x in inputs]
    outputs = large.function(*leaves)
    grads = torch.autograd.grad(sum(y[-1].float().sum() for y in outputs), leaves)
    count = len(large.batched)
    last = double([*(x[-1:] for x in inputs[:count]), *inputs[count:]])
    upstream = [torch.ones_like(y[-1:], dtype=F64) for y in outputs]
    want, want_grads = run(large.definition, last, upstream)
    batched = [y.detach() for y in outputs] + list(grads[:count])
    assert not any(y[:-1].any() for y in batched)
    got = [y[-1:] for y in batched] + list(grads[count:])
    for g, w, (terms, scale) in zip(got, (*want, *want_grads), large.bounds, strict=True):
        assert_close(g, w, terms=terms, scale=scale)


@pytest.mark.parametrize("name", LARGE)
def test_beyond_2_to_the_31_elements(name):
    enough_memory(LARGE[name].gigabytes)
    check_last(LARGE[name])


def test_gan_loss_beyond_2_to_the_31_elements(n=2**31 + 4099):
    enough_memory(32)
    logits = torch.zeros(n, dtype=torch.bfloat16)
    logits[-1] = 3.0
    logits.requires_grad_()
    loss = genkern.gan_g_loss(logits, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    last = -logits[-2:].detach().double()
    want, want_grad = gan_loss_reference.softplus(last), -torch.sigmoid(last)
    for found, wanted in ((loss.detach(), want), (grad, want_grad)):
        assert_close(found[-2:], wanted, scale=wanted.abs())
        assert (found[:-1] == found[0]).all()
    total = genkern.gan_d_loss(logits[-5:], logits, kind="wgan", reduction="sum")
    assert total.item() == 0.0


# ---- noise, graphs, streams ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5), (7, 1000), (1, 100_001)])
def test_noise_is_the_stream_of_the_cpu(shape, dtype):
    zeros, seed = torch.zeros(shape, dtype=dtype), torch.tensor([123456789012345678])
    forward = torch.ops.genkern.gaussian_forward.default
    z, _ = forward(zeros, zeros, None, None, None, seed, None, 0.0, False)
    want = random.philox_normal(seed.cpu(), shape, F64)
    assert_close(z.cpu(), want, scale=0.125)


def captured(function):
    """A CUDA graph of one call, after the warm-up that compiles the kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


def test_replays_of_a_graph_draw_different_noise_and_its_gradient():
    """In half precision the backward kernel draws the noise again, from the seed of the replay."""
    mu, logvar = (torch.zeros(64, 33, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))

    def call():
        z = genkern.gaussian_rsample(mu, logvar)
        return z.detach(), *torch.autograd.grad(z.sum(), logvar)

    graph, (z, d_logvar) = captured(call)
    draws = []
    for _ in range(2):
        graph.replay()
        draws.append(z.clone())
        torch.testing.assert_close(d_logvar, z / 2)
    assert not torch.equal(*draws)
    assert all((z.float().std() - 1).abs() < 0.1 for z in draws)


# Sums of parts that several programs form: the order is that of the parts, whoever ends last.
STEPS = {
    "gaussian, split rows": (
        lambda mu, logvar, eps: genkern.gaussian_kl_rsample(mu, logvar, eps=eps),
        [(2, 100_000)] * 3,
    ),
    "gan_loss": (genkern.gan_d_loss, [(200_000,), (150_000,)]),
    "gan_loss, three launches": (partial(genkern.gan_d_loss, kind="rabce"), [(40_000,)] * 2),
    "masked_conv2d": (
        partial(genkern.masked_conv2d, data_channels=3),
        [(8, 20, 28, 28), (33, 20, 5, 5), (33,)],
    ),
    "row_lstm": (
        lambda gates, weight, h0, c0: genkern.row_lstm(gates, weight / 10, h0, c0)[0],
        [(16, 128, 28, 28), (128, 32, 3), (16, 32, 28), (16, 32, 28)],
    ),
}


def step(function, inputs) -> list[torch.Tensor]:
    """Outputs, and the gradient of the sum of their squares in every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    grads = torch.autograd.grad(sum(y.square().sum() for y in outputs), leaves)
    return [*(y.detach() for y in outputs), *grads]


@pytest.mark.parametrize("name", STEPS)
def test_replays_of_a_graph_repeat_every_bit(name):
    function, shapes = STEPS[name]
    inputs = [torch.randn(shape) for shape in shapes]
    expected = step(function, inputs)
    graph, results = captured(lambda: step(function, inputs))
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        assert all(map(torch.equal, results, expected))


@pytest.mark.parametrize("name", STEPS)
def test_two_streams_do_not_disturb_each_other(name):
    function, shapes = STEPS[name]
    inputs = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    expected = [step(function, x) for x in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    found = [[] for _ in inputs]
    torch.cuda.synchronize()
    for _ in range(20):
        for x, stream, results in zip(inputs, streams, found, strict=True):
            with torch.cuda.stream(stream):
                results.append(step(function, x))
    torch.cuda.synchronize()
    for want, repeated in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for got in repeated for a, b in zip(got, want, strict=True))


def test_tensors_on_different_devices_are_named():
    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="logvar must be on cuda:0 like mu; got cpu"):
        genkern.gaussian_kl(x, x.cpu())
    with pytest.raises(RuntimeError, match="must be on cuda:0 like real_logits; got cpu"):
        genkern.gan_d_loss(x, x.cpu())
    with pytest.raises(RuntimeError, match="weight must be on cuda:0 like input; got cpu"):
        genkern.masked_conv2d(x[None, None], torch.ones(1, 1, 3, 3).cpu())
    with pytest.raises(RuntimeError, match="weight_hh must be on cuda:0 like input_gates; got cpu"):
        genkern.row_lstm(torch.ones(1, 4, 2, 3), torch.ones(4, 1, 3).cpu())


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool, monkeypatch):
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")  # every tensor has its own bounds
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    command += [sys.executable, str(Path(__file__).with_name("sanitized.py"))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and "finished" in result.stdout, result.stdout + result.stderr
