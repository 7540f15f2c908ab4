"""What the launchers of diagonal_lstm decide on the host, from shapes and dtypes alone."""

from typing import Any, NamedTuple

import torch

from genkern.triton_kernels.core import launch, lstm
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.diagonal_lstm.tiles import TILES

# Sizes that change from call to call: they get no compiled variant of their own.
VARYING = ("H", "W", "step", "origin", "sign", "pixels", "pixel_tiles", "splits")


class Tile(NamedTuple):
    """Extent of a tile of a diagonal: hidden units (of each gate), rows, factors of a sum.

    For the weight gradient: its rows, pixels, and its columns.
    """

    units: int
    rows: int
    factors: int
    warps: int
    stages: int


PROGRAMS = 2 * 132  # that form a weight gradient, where there are pixels enough
SHORTEST_PART = 4  # tiles of pixels
PARTIAL_BYTES = 64 << 20


def constants(kernel: str, weight: torch.Tensor) -> dict[str, Any]:
    """Compile-time facts of the walk, `kernel` "diagonal_lstm_forward" or "..._backward"."""
    tile = Tile(*launch.tile(TILES, kernel, weight))
    return {
        "BU": launch.extent(tile.units, weight.shape[1]),
        "BR": tile.rows,
        "BQ": tile.factors,
        "ACC": accumulator(weight.dtype),
        "PRECISION": lstm.precision(weight, weight.dtype),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def places(H: int, W: int, reverse: bool) -> tuple[int, ...]:
    """H, W, and step, origin, sign: pixel r * step + origin + sign * t of an image is that of row
    r on diagonal t; its neighbour to the left (right, if reversed) is `sign` before it."""
    return (H, W, W + 1, W - 1, -1) if reverse else (H, W, W - 1, 0, 1)


def unsupported(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None = None,
    c0: torch.Tensor | None = None,
    upstream_0: torch.Tensor | None = None,
) -> str | None:
    """Why the Triton kernels cannot run a call, or None."""
    others = {"weight_hh": weight_hh, "h0": h0, "c0": c0, "upstream_0": upstream_0}
    reason = launch.mismatch("diagonal_lstm", "input_gates", input_gates, others)
    units = weight_hh.shape[1] + 64
    if reason is not None or 8 * units * units < 2**31:  # rounded up to tiles
        return reason
    return (
        "diagonal_lstm: weight_hh must have fewer than 2^31 elements; "
        f"got weight_hh {tuple(weight_hh.shape)}"
    )
