"""What the launchers of masked_conv2d decide on the host, from shapes, strides and dtypes alone."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.masked_conv2d.tiles import TILES

# Sizes and strides that change from call to call: they get no compiled variant of their own.
VARYING = (
    "pixels", "plane", "H", "W", "x_n", "x_c", "x_y", "x_x", "y_n", "y_c", "y_y", "y_x",
    "g_n", "g_c", "g_y", "g_x", "programs", "splits", "pixel_tiles",
    "elements", "part_size",
)  # fmt: skip
OP = "masked_conv2d"


class Tile(NamedTuple):
    """Extent of a tile: pixels, written and read channels (for weights: both are written).

    `flat`: few channels are read, and a step packs several taps instead of padding the channels.
    """

    pixels: int
    written: int
    read: int
    warps: int
    stages: int
    flat: bool = False


def live_taps(weight: torch.Tensor, exclude_centre: bool, groups: int) -> int:
    """Taps that are live for some channels."""
    KH, KW = weight.shape[2:]
    return KH // 2 * KW + KW // 2 + (groups > 1 or not exclude_centre)


def alignment(image: torch.Tensor) -> int:
    """16 or 1 where channels are adjacent: the number that divides all other strides; else 0."""
    n, c, y, x = image.stride()
    if c != 1:
        return 0
    return 16 if n % 16 == y % 16 == x % 16 == 0 else 1


def tile_of(
    images: tuple[torch.Tensor, ...],
    *,
    written: int,
    read: int,
    taps: int,
    weights: bool = False,
    unaligned: bool = False,
) -> Tile:
    """The tile of a convolution, or of a weight gradient, that reads `read` channels at `taps`.

    Scattered: images without adjacent channels, or with few, are gathered element by element.
    """
    flat = read < launch.SMALLEST
    kernel = "masked_conv2d"
    if images[0].element_size() == 2:
        is_scattered = flat or unaligned or not all(alignment(x) for x in images)
        kernel += "_scattered" if is_scattered else ""
    tile = Tile(*launch.tile(TILES, kernel + ("_weight" if weights else ""), images[0]))
    return tile._replace(
        written=launch.extent(tile.written, written),
        read=launch.extent(tile.read, read * taps if flat else read),
        flat=flat,
    )


def image_strides(image: torch.Tensor) -> tuple[int, int, int, int]:
    """In elements, in the units that `alignment` says."""
    n, c, y, x = image.stride()
    unit = max(alignment(image), 1)
    return n // unit, c, y // unit, x // unit


def sizes(image: torch.Tensor) -> tuple[int, int, int, int]:
    """pixels, plane, H, W"""
    N, _, H, W = image.shape
    return N * H * W, H * W, H, W


def is_wide(image: torch.Tensor) -> bool:
    """Whether numbers of pixels, rounded up to tiles, need 64 bits."""
    return sizes(image)[0] > 2**31 - 2**16


def dot_type(image: torch.Tensor) -> tl.dtype:
    """The type of the operands of the matrix products; CPU tensors are those of the interpreter,
    whose products of bfloat16 are wrong."""
    interpreted = image.device.type == "cpu" and image.dtype == torch.bfloat16
    return tl.float32 if interpreted else getattr(tl, spec.dtype_name(image.dtype))


def constants(image: torch.Tensor, weight: torch.Tensor, *options: Any) -> dict[str, Any]:
    """Compile-time facts that all kernels of a call share."""
    exclude_centre, data_channels = options
    return {
        "KH": weight.shape[2],
        "KW": weight.shape[3],
        "GROUPS": data_channels,
        "EXCLUDE": exclude_centre,
        "WIDE": is_wide(image),
        "ACC": accumulator(image.dtype),
        "DOT": dot_type(image),
        "PRECISION": launch.float32_precision() if image.dtype == torch.float32 else "ieee",
    }


def convolution_programs(tile: Tile, image: torch.Tensor, channels: int, groups: int) -> int:
    written = groups * triton.cdiv(triton.cdiv(channels, groups), tile.written)
    return triton.cdiv(sizes(image)[0], tile.pixels) * written


def unsupported(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    upstream: torch.Tensor | None = None,
) -> str | None:
    """Why the Triton kernels cannot run a call, or None."""
    others = {"weight": weight, "bias": bias, "upstream_0": upstream}
    return launch.mismatch(OP, "input", input, others)
