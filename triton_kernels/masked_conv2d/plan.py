"""What the launchers of masked_conv2d decide on the host, from shapes, strides and dtypes alone."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.masked_conv2d.tiles import TILES

# Sizes that change from call to call: they get no compiled variant of their own.
VARYING = (
    "pixels", "plane", "H", "W", "programs", "splits", "pixel_tiles", "elements", "part_size",
    "top", "left", "rows", "columns",
)  # fmt: skip
OP = "masked_conv2d"
# The codes of the op's mask_type.
A, B, ROWS, ROWS_ABOVE, LEFT, LEFT_BEFORE = range(6)


class Facts(NamedTuple):
    """What all kernels of a call are compiled for."""

    KH: int
    KW: int
    ROW: int  # of the kernel that stands in the row of the output pixel
    COLUMN: int  # that stands in its column
    WHOLE: int  # taps, the first ones in raster order, that are live for all channels
    EXCLUDE: bool  # the next one, the centre, is dead for a pixel's own colour
    GROUPS: int  # colours
    PARTS: int  # of the output, each with groups of its own; 1 where there are no colours
    LAST: bool  # images are channels_last
    W_LAST: bool  # weights are
    WIDE: bool  # numbers of pixels, rounded up to tiles, need 64 bits
    ACC: tl.dtype
    DOT: tl.dtype  # of the operands of products
    PRECISION: str


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


def live_taps(facts: Facts) -> int:
    """Taps that are live for some channels."""
    return facts.WHOLE + (facts.GROUPS > 1 or not facts.EXCLUDE)


def tile_of(
    image: torch.Tensor,
    last: bool,
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
    if image.element_size() == 2 and (flat or unaligned or not last):
        kernel += "_scattered"
    tile = Tile(*launch.tile(TILES, kernel + ("_weight" if weights else ""), image))
    return tile._replace(
        written=launch.extent(tile.written, written),
        read=launch.extent(tile.read, read * taps if flat else read),
        flat=flat,
    )


def dense_image(image: torch.Tensor, last: bool) -> torch.Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return image.contiguous(memory_format=layout)


def dense_weight(weight: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The weight in one of the two formats of the kernels, and whether that is channels_last."""
    last = spec.is_channels_last(weight) and weight.is_contiguous(memory_format=torch.channels_last)
    return weight if last else weight.contiguous(), last


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


def taps_of(mask_type: int, KH: int, KW: int) -> tuple[int, int, int, bool]:
    """ROW, COLUMN, WHOLE and EXCLUDE of the facts."""
    row, column = KH - 1, KW // 2
    if mask_type in (A, B):
        row = KH // 2
    elif mask_type == ROWS_ABOVE:
        row = KH
    elif mask_type == LEFT:
        column = KW - 1
    elif mask_type == LEFT_BEFORE:
        column = KW
    has_centre = mask_type in (A, B, LEFT)
    whole = row * KW + column if has_centre else KH * KW
    return row, column, whole, mask_type == A or not has_centre


def facts(
    image: torch.Tensor,
    weight: torch.Tensor,
    mask_type: int,
    groups: int,
    parts: int,
    last: bool,
) -> Facts:
    """Of a call whose weight is a dense one."""
    return Facts(
        *weight.shape[2:],
        *taps_of(mask_type, *weight.shape[2:]),
        groups,
        parts if groups > 1 else 1,
        last,
        dense_weight(weight)[1],
        is_wide(image),
        accumulator(image.dtype),
        dot_type(image),
        launch.float32_precision() if image.dtype == torch.float32 else "ieee",
    )


def convolution_programs(tile: Tile, pixels: int, channels: int, sections: int) -> int:
    """Of a result whose channels lie in as many sections: the groups of each of its parts."""
    return (
        triton.cdiv(pixels, tile.pixels)
        * sections
        * triton.cdiv(triton.cdiv(channels, sections), tile.written)
    )


def unsupported(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    upstream: torch.Tensor | None = None,
) -> str | None:
    """Why the Triton kernels cannot run a call, or None."""
    others = {"weight": weight, "bias": bias, "upstream_0": upstream}
    return launch.mismatch(OP, "input", input, others)
