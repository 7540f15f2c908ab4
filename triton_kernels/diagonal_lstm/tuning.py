"""What the search for tiles (`python -m benchmarks tune`) has to know of diagonal_lstm."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from genkern.triton_kernels.diagonal_lstm import LAUNCHERS, tiles

__all__ = ["adjustable", "calls", "footprint", "tiles"]


def footprint(kernel: str, extents: Sequence[int], size: int) -> tuple[int, int]:
    """Bytes of the operands of one stage in shared memory, and elements of the tile of sums."""
    units, rows, factors = extents
    size = max(size, 4)  # states pass in float32
    if kernel == "diagonal_lstm_forward":
        return (4 * units + rows) * factors * size, 4 * units * rows
    if kernel == "diagonal_lstm_backward":
        return (units + rows) * factors * size, units * rows
    return (units + factors) * rows * size, units * factors


def adjustable(kernel: str) -> int:
    """How many numbers of a tile may change: all."""
    return 5


def calls(
    dtype: torch.dtype, N: int = 132, hidden: int = 128, side: int = 32
) -> dict[str, Callable]:
    """For each kernel of the table a call that reaches it, on torch's default device."""
    forward, backward = LAUNCHERS.values()
    gates = torch.randn(N, 4 * hidden, side, side).to(dtype)
    weight = (torch.randn(4 * hidden, hidden, 2) / math.sqrt(2 * hidden)).to(dtype)
    inputs = (gates, weight, None, None)
    h, *saved = forward(*inputs, False, True)
    arguments = (torch.randn_like(h), *inputs, *saved, False)
    return {
        "diagonal_lstm_forward": partial(forward, *inputs, False, False),
        "diagonal_lstm_backward": partial(backward, *arguments, True, False, False, False),
        "diagonal_lstm_weight": partial(backward, *arguments, False, True, False, False),
    }
