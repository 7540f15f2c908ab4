"""What the families' `gpu.py` and the stages share: calls on the GPU, or on its stand-in."""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import genkern
from tests.core.helpers import double, run
from tests.core.tolerance import assert_close

F64 = torch.float64


class Skipped(Exception):
    """An item that cannot run here, and why."""


class Item(NamedTuple):
    """A piece of a stage that stands alone: what it raises is its failure, what it returns its
    details in the report."""

    name: str
    run: Callable[[], dict[str, Any] | None]


class Setting(NamedTuple):
    """What a stage is asked for. The device "cpu" is a stand-in: interpreted kernels."""

    families: list[str]
    device: str
    capability: int
    seconds: float
    out: Path


class Material(NamedTuple):
    """What the stages have of a family. A family without `tests/<family>/gpu.py` has its samples
    and the largest of its benchmarks; more stands there, by the names of the fields."""

    calls: dict[str, Callable[[torch.dtype], None]]  # forward and backward against the reference
    large_calls: dict[str, Callable[[torch.dtype], None]]  # the same, across the kernels' blocks
    headlines: Callable[[], list]  # benchmark cases that fill a GPU
    checks: Sequence[Callable[[], None]]  # of what a GPU alone has
    steps: dict[str, tuple[Callable, list]]  # (function, shapes), for graphs and streams
    large: dict[str, Callable[[], None]]  # beyond 2^31 elements
    timings: dict[str, Callable[[Setting], dict]]  # what no benchmark case can say


def room(family: str) -> str:
    """The folder in tests/: the sampler's kernels are tested with what they are for."""
    return {"sampler": "sampling"}.get(family, family)


def material(family: str) -> Material:
    own = _module(f"tests.{room(family)}.gpu")
    samples = getattr(_module(f"tests.{room(family)}.samples"), "SAMPLES", None)
    calls = dict(getattr(own, "CALLS", {}))
    large_calls = {}
    if samples is not None:
        calls |= {f"{family}, {s.name}": partial(_sampled, s) for s in samples.samples}
        large_calls = {f"{family}, {s.name}, large": partial(_sampled, s) for s in samples.large}
    return Material(
        calls,
        large_calls,
        getattr(own, "headlines", None) or partial(_largest_cases, family),
        getattr(own, "CHECKS", ()),
        getattr(own, "STEPS", {}),
        getattr(own, "LARGE", {}),
        getattr(own, "TIMINGS", {}),
    )


def _module(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _sampled(sample, dtype: torch.dtype) -> None:
    if dtype in sample.dtypes:
        sample.check(*sample.make(dtype))


def _largest_cases(family: str) -> list:
    cases = _module(f"benchmarks.{family}")
    found = [c for c in cases.cases() if not c.overhead] if cases is not None else []
    return sorted(found, key=lambda case: -case.elements[0])[:2]


@contextlib.contextmanager
def on_device(setting: Setting) -> Iterator[None]:
    """New tensors are on the device, and the ops run their Triton kernels or raise."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.device(setting.device))
        if setting.device == "cuda":
            stack.enter_context(genkern.use_backend("triton"))
        else:
            from tests.core.triton_kit import interpreted

            for family in setting.families:
                stack.enter_context(interpreted(family))
        yield


def require_memory(gigabytes: float) -> None:
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gigabytes:
        raise Skipped(f"takes {gigabytes:.0f} GiB of device memory; {free:.0f} GiB are free")


def both(function, definition, inputs, upstream, terms=1, scale=1.0) -> None:
    """Values and gradients in float64 against the reference."""
    got, want = run(function, inputs, upstream), run(definition, inputs, upstream)
    for g, w in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert_close(g, w, terms=terms, scale=scale * max(1.0, w.abs().max().item()))


class Large(NamedTuple):
    """A call with more than 2^31 elements, of which only the last image is not zero."""

    function: Callable
    definition: Callable
    batched: Sequence[tuple[int, ...]]
    shared: Sequence[tuple[int, ...]]  # weights
    bounds: Sequence[tuple[int, float]]  # terms and scale of each output, then of each gradient
    gigabytes: float

    def check(self) -> None:
        require_memory(self.gigabytes)
        inputs = [torch.zeros(shape, dtype=torch.bfloat16) for shape in self.batched]
        for x in inputs:
            x[-1] = torch.randn(x.shape[1:]).bfloat16()
        inputs += [torch.randn(shape).bfloat16() for shape in self.shared]
        leaves = [x.requires_grad_() for x in inputs]
        outputs = self.function(*leaves)
        grads = torch.autograd.grad(sum(y[-1].float().sum() for y in outputs), leaves)
        count = len(self.batched)
        last = double([*(x[-1:] for x in inputs[:count]), *inputs[count:]])
        upstream = [torch.ones_like(y[-1:], dtype=F64) for y in outputs]
        want, want_grads = run(self.definition, last, upstream)
        batched = [y.detach() for y in outputs] + list(grads[:count])
        assert not any(y[:-1].any() for y in batched)
        got = [y[-1:] for y in batched] + list(grads[count:])
        for g, w, (terms, scale) in zip(got, (*want, *want_grads), self.bounds, strict=True):
            assert_close(g, w, terms=terms, scale=scale)


def step(function: Callable, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Outputs, and the gradient of the sum of their squares in every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    grads = torch.autograd.grad(sum(y.square().sum() for y in outputs), leaves)
    return [*(y.detach() for y in outputs), *grads]


def captured(function: Callable) -> tuple[torch.cuda.CUDAGraph, Any]:
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


def check_replays(function: Callable, shapes: Sequence[tuple[int, ...]]) -> None:
    """Every replay of a graph of forward and backward has the bits of the call itself."""
    inputs = [torch.randn(shape) for shape in shapes]
    expected = step(function, inputs)
    graph, results = captured(lambda: step(function, inputs))
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        assert all(map(torch.equal, results, expected))


def check_streams(function: Callable, shapes: Sequence[tuple[int, ...]]) -> None:
    """Two streams that run the same kernels do not disturb each other."""
    inputs = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    expected = [step(function, x) for x in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    found: list[list] = [[] for _ in inputs]
    torch.cuda.synchronize()
    for _ in range(20):
        for x, stream, results in zip(inputs, streams, found, strict=True):
            with torch.cuda.stream(stream):
                results.append(step(function, x))
    torch.cuda.synchronize()
    for want, repeated in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for got in repeated for a, b in zip(got, want, strict=True))


def raises(error: type[Exception], text: str, call: Callable) -> None:
    try:
        call()
    except error as found:
        assert text in str(found), f"{text!r} is not in {str(found)!r}"
    else:
        raise AssertionError(f"no {error.__name__}: {text}")
