"""Checks that every op goes through: gradients, compile, threads and instruction-set levels."""

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


def check_compiled(function: Callable, inputs: Sequence[torch.Tensor], *, dynamic: bool) -> None:
    """One graph, no breaks, forward and backward; equal to eager within rounding."""
    torch._dynamo.reset()
    leaves = [x.detach().requires_grad_() for x in inputs]

    def total(*args):
        outputs = function(*args)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return sum((y * torch.cos(y)).sum() for y in outputs)

    backend = "aot_eager" if dynamic else "inductor"
    compiled = torch.compile(total, fullgraph=True, dynamic=dynamic, backend=backend)
    got, want = compiled(*leaves), total(*leaves)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))


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


def python(code: str) -> str:
    """What ``code`` prints in a process of its own."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def probe(
    code: str,
    *,
    level: str | None = None,
    threads: int = 2,
    environment: dict[str, str] | None = None,
) -> str:
    """What ``code`` prints in a fresh process at one instruction-set level and thread count.

    ``digest(*tensors)`` is defined there: a checksum of the exact bits.
    """
    prelude = (
        "import hashlib, torch, genkern\n"
        f"torch.set_num_threads({threads})\n"
        "torch.manual_seed(0)\n"
        "def digest(*tensors):\n"
        "    h = hashlib.sha256()\n"
        "    for t in tensors:\n"
        "        h.update(t.detach().contiguous().view(torch.uint8).numpy().tobytes())\n"
        "    return h.hexdigest()\n"
    )
    environment = {**os.environ, **(environment or {})}
    if level is not None:
        environment["GENKERN_CPU_ISA"] = level
        prelude += f"assert genkern.library.compiled.isa == {level!r}\n"
    result = subprocess.run(
        [sys.executable, "-c", prelude + code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
