"""Calls with gradients, levels of the machine, processes."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import torch

from genkern import library
from tests.core.samples import declared


def run(
    function: Callable, inputs: Sequence[torch.Tensor | None], upstream: Sequence
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor | None, ...]]:
    """Outputs of ``function(*inputs)`` and the gradients of all inputs for ``upstream``.

    An upstream of None leaves that output out of the loss. The inputs keep their strides. A
    gradient of what nothing depends on is None.
    """
    leaves = [x if x is None else x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
    pairs = [(y, d) for y, d in zip(outputs, upstream, strict=True) if d is not None]
    pairs = [(y, d) for y, d in pairs if y.requires_grad]
    wanted = [x for x in leaves if x is not None]
    grads: tuple = (None,) * len(leaves)
    if pairs:
        results, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(results, wanted, given, allow_unused=True))
        grads = tuple(None if x is None else next(found) for x in leaves)
    return tuple(y.detach() for y in outputs), grads


def double(tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    return [x if x is None else x.detach().double() for x in tensors]


@contextlib.contextmanager
def gradients(stem: str) -> Iterator[list[bool]]:
    """Which of the gradients the backward op of a family computes within the block."""
    found: list[bool] = []
    family = declared(stem)
    backward = family.backward

    def watched(*arguments):
        found.extend(arguments[-family.differentiable :])
        return backward(*arguments)

    with mock.patch.object(family, "backward", watched):
        yield found


def machine_levels() -> list[str]:
    best = {"AVX2": 1, "AVX512": 2}.get(torch.backends.cpu.get_cpu_capability(), 0)
    return list(library.LEVELS[: best + 1])


def bf16_pairs() -> bool:
    """Whether the compiled ops multiply bfloat16 in pairs, as AVX512-BF16 does."""
    return library.compiled is not None and library.compiled.bf16_pairs


def probe(code: str, *, environment: dict[str, str] | None = None) -> str:
    """What ``code`` prints in a process of its own, which costs seconds: once for all families."""
    result = subprocess.run(
        [sys.executable, "-c", f"import torch, genkern\n{code}"],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def check_colours_are_causal(layer: torch.nn.Module, features: int) -> None:
    """Bitwise: a changed pixel and colour leaves all outputs before it in raster order alone, and
    changes some at its own place. For a layer with mask "B" and three contiguous colours."""
    input = torch.randn(1, features, 4, 5)
    before = layer(input)[0]

    def moments(channels: int) -> torch.Tensor:
        ends = [(channels * (colour + 1) + 2) // 3 for colour in range(3)]
        colours = [sum(channel >= end for end in ends) for channel in range(channels)]
        return torch.arange(20).view(1, 4, 5) * 3 + torch.tensor(colours).view(channels, 1, 1)

    position, source = moments(before.shape[0]), moments(features)
    for y, x in ((0, 0), (1, 2), (2, 4)):
        for colour in range(3):
            changed, moment = input.clone(), (y * 5 + x) * 3 + colour
            changed[0, source[:, y, x] == moment, y, x] += 1.0
            same = layer(changed)[0] == before
            assert same[position < moment].all()
            assert not same[position == moment].all()
