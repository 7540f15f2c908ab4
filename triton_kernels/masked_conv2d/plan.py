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
)  # fmt: skip
OP = "masked_conv2d"


class Facts(NamedTuple):
    """What all kernels of a call are compiled for."""

    KH: int
    KW: int
    GROUPS: int  # colours
    EXCLUDE: bool  # the centre is dead for a pixel's own colour
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


def live_taps(weight: torch.Tensor, exclude_centre: bool, groups: int) -> int:
    """Taps that are live for some channels."""
    KH, KW = weight.shape[2:]
    return KH // 2 * KW + KW // 2 + (groups > 1 or not exclude_centre)


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


def facts(
    image: torch.Tensor, weight: torch.Tensor, exclude_centre: bool, groups: int, last: bool
) -> Facts:
    """Of a call whose weight is a dense one."""
    return Facts(
        *weight.shape[2:],
        groups,
        exclude_centre,
        last,
        dense_weight(weight)[1],
        is_wide(image),
        accumulator(image.dtype),
        dot_type(image),
        launch.float32_precision() if image.dtype == torch.float32 else "ieee",
    )


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
