"""What the interpreter tests of the Triton kernels share."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from triton.runtime.interpreter import GridExecutor

# bfloat16 is stored and loaded only: the kernels compute in float32, and so must the interpreter.
TRITON_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass
class Launches:
    kernels: list[str] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.kernels)


@contextlib.contextmanager
def launches() -> Iterator[Launches]:
    """Counts the kernels that the interpreter launches in the block."""
    count = Launches()
    original = GridExecutor.__call__

    def counted(self, *args, **kwargs):
        count.kernels.append(self.fn.__name__)
        count.programs.append(int(torch.tensor(self.grid).prod()))
        return original(self, *args, **kwargs)

    GridExecutor.__call__ = counted
    try:
        yield count
    finally:
        GridExecutor.__call__ = original
