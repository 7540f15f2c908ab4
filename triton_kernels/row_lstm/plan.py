"""What the launchers of row_lstm decide on the host, from shapes and dtypes alone."""

from typing import Any, NamedTuple

import torch

from genkern.triton_kernels.core import launch, lstm
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.row_lstm.tiles import TILES

# Sizes that change from call to call: they get no compiled variant of their own.
VARYING = ("H", "W", "plane", "pixels", "pixel_tiles", "splits")


class Tile(NamedTuple):
    """Extent of a tile of a row: hidden units (of each gate), columns, factors of a sum.

    For the weight gradient: its rows, pixels, and its columns. In half precision a product takes
    three passes over the tensor cores; float32 takes none of them, unless TF32 is allowed.
    """

    units: int
    columns: int
    factors: int
    warps: int
    stages: int


PROGRAMS = 2 * 132  # that form a weight gradient, where there are pixels enough
SHORTEST_PART = 4  # tiles of pixels
PARTIAL_BYTES = 64 << 20


def constants(kernel: str, weight: torch.Tensor, W: int) -> dict[str, Any]:
    """Compile-time facts of the walk, `kernel` "row_lstm_forward" or "row_lstm_backward"."""
    _, hidden, K = weight.shape
    tile = Tile(*launch.tile(TILES, kernel, weight))
    return {
        "K": K,
        "BU": launch.extent(tile.units, hidden),
        "BW": launch.extent(tile.columns, W),
        "BQ": tile.factors,
        "ACC": accumulator(weight.dtype),
        "PRECISION": lstm.precision(weight, weight.dtype),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def unsupported(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None = None,
    c0: torch.Tensor | None = None,
    **upstream: torch.Tensor | None,
) -> str | None:
    """Why the Triton kernels cannot run a call, or None."""
    others = {"weight_hh": weight_hh, "h0": h0, "c0": c0, **upstream}
    reason = launch.mismatch("row_lstm", "input_gates", input_gates, others)
    return reason or too_large(weight_hh, input_gates.shape[3])


def too_large(weight_hh: torch.Tensor, W: int) -> str | None:
    """Whether offsets in the weight or in a row, rounded up to tiles, would pass 32 bits."""
    _, hidden, K = weight_hh.shape
    units = hidden + 64
    if max(4 * units * units * K, 4 * units * (W + 64)) < 2**31:
        return None
    return (
        "row_lstm: weight_hh and a row of the state must have fewer than 2^31 and 2^29 elements; "
        f"got weight_hh {tuple(weight_hh.shape)}, rows of {W} pixels"
    )
