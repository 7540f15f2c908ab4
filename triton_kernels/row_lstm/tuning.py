"""What the search for tiles (`python -m benchmarks tune`) has to know of row_lstm."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from genkern.triton_kernels.row_lstm import LAUNCHERS, tiles

__all__ = ["adjustable", "calls", "footprint", "tiles"]


def footprint(kernel: str, extents: Sequence[int], size: int) -> tuple[int, int]:
    """Bytes of the operands of one stage in shared memory, and elements of the tile of sums."""
    units, columns, factors = extents
    size = max(size, 4)  # states pass in float32
    if kernel == "row_lstm_forward":
        return (4 * units + columns) * factors * size, 4 * units * columns
    if kernel == "row_lstm_backward":
        return (units + columns) * factors * size, units * columns
    return (units + factors) * columns * size, units * factors


def adjustable(kernel: str) -> int:
    """How many numbers of a tile may change: all."""
    return 5


def calls(
    dtype: torch.dtype, N: int = 132, hidden: int = 128, side: int = 32
) -> dict[str, Callable]:
    """For each kernel of the table a call that reaches it, on torch's default device."""
    forward, backward = LAUNCHERS.values()
    gates = torch.randn(N, 4 * hidden, side, side).to(dtype)
    weight = (torch.randn(4 * hidden, hidden, 3) / math.sqrt(3 * hidden)).to(dtype)
    inputs = (gates, weight, None, None)
    h, _, _, *saved = forward(*inputs, True)
    arguments = (torch.randn_like(h), None, None, *inputs, *saved)
    return {
        "row_lstm_forward": partial(forward, *inputs, False),
        "row_lstm_backward": partial(backward, *arguments, True, False, False, False),
        "row_lstm_weight": partial(backward, *arguments, False, True, False, False),
    }
