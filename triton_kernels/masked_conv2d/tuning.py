"""What the search for tiles (`python -m benchmarks tune`) has to know of masked_conv2d."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from genkern.triton_kernels.masked_conv2d import LAUNCHERS, tiles
from genkern.triton_kernels.masked_conv2d.plan import B

__all__ = ["adjustable", "calls", "footprint", "tiles"]


def footprint(kernel: str, extents: Sequence[int], size: int) -> tuple[int, int]:
    """Bytes of the operands of one stage in shared memory, and elements of the tile of sums."""
    pixels, written, read = extents
    if kernel.endswith("_weight"):
        return pixels * (written + read) * size, written * read
    return (pixels + written) * read * size, pixels * written


def adjustable(kernel: str) -> int:
    """How many numbers of a tile may change: the weight gradient runs in the launch, and with the
    warps and stages, of the input's."""
    return 3 if kernel.endswith("_weight") else 5


def calls(dtype: torch.dtype, N: int = 32, C: int = 128, side: int = 32) -> dict[str, Callable]:
    """For each kernel of the table a call that reaches it, on torch's default device."""
    forward, backward, _ = LAUNCHERS.values()
    found = {}
    for last in (True, False) if dtype.itemsize == 2 else (True,):
        layout = torch.channels_last if last else torch.contiguous_format
        shapes = (N, C, side, side), (C, C, 3, 3), (N, C, side, side)
        x, weight, d_y = (torch.randn(s).to(dtype).to(memory_format=layout) for s in shapes)
        call = (x, weight / math.sqrt(5 * C), None, B, 1, 1, 1, last)
        name = "masked_conv2d" if last else "masked_conv2d_scattered"
        found[name] = partial(forward, *call)
        found[f"{name}_weight"] = partial(backward, d_y, *call, True, True, False)
    return found
