"""What the launchers of pixel_cross_entropy decide on the host, from shapes and dtypes alone."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator

OP = "pixel_cross_entropy"
CHUNK_BYTES = 32 << 20  # of the gradients of logits that are there at once
SPLITS = 16  # parts of the pixels of a chunk, each with a gradient of the weight
PIXELS = 64  # of a tile of logits that are there


class Facts(NamedTuple):
    """What the kernels of the head are compiled for."""

    COLOURS: int
    MASKED: bool
    SPLIT: bool  # slopes are two operands of half precision
    ACC: tl.dtype
    DOT: tl.dtype  # of the operands of products
    PRECISION: str


class Tile(NamedTuple):
    """Extent of the tile of a product: pixels (of the weight: rows) x levels (or features), and
    what one step of its sum takes."""

    pixels: int
    levels: int
    features: int
    warps: int
    stages: int


def dot_type(x: torch.Tensor) -> tl.dtype:
    """CPU tensors are those of the interpreter, whose products of bfloat16 are wrong."""
    interpreted = x.device.type == "cpu" and x.dtype == torch.bfloat16
    return tl.float32 if interpreted else getattr(tl, spec.dtype_name(x.dtype))


def facts(x: torch.Tensor, colours: int, masked: bool) -> Facts:
    dot = dot_type(x)
    precision = launch.float32_precision() if x.dtype == torch.float32 else "ieee"
    split = dot in (tl.bfloat16, tl.float16)
    return Facts(colours, masked, split, accumulator(x.dtype), dot, precision)


def tile_of(x: torch.Tensor, wide: int) -> Tile:
    """Of ``wide`` levels or features; an estimate, not measured on a GPU."""
    size = x.element_size()
    if size == 8:
        return Tile(32, launch.extent(32, wide), 16, 4, 2)
    return Tile(64, launch.extent(64, wide), 32 if size == 2 else 16, 4, 3)


def strides(image: torch.Tensor) -> tuple[int, int, int]:
    """Over (n, channel, pixel) of an image whose pixels are one run."""
    pixel = image.stride(-1) if image.shape[-1] > 1 else image.stride(-2)
    return image.stride(0), image.stride(1), pixel


def logit_strides(image: torch.Tensor, colours: int) -> tuple[int, int, int, int]:
    """Over (n, colour, level, pixel), of (N, colours * levels, H, W) or (N, colours, levels, H,
    W)."""
    n, channel, pixel = strides(image)
    if image.ndim == 5:
        return n, channel, image.stride(2), pixel
    return n, channel * (image.shape[1] // colours), channel, pixel


def one_run(image: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """The image with one stride over all its pixels."""
    H, W = image.shape[-2:]
    if H <= 1 or W <= 1 or image.stride(-2) == W * image.stride(-1):
        return image
    format = torch.channels_last if channels_last else torch.contiguous_format
    return image.contiguous(memory_format=format)


def levels_of(x: torch.Tensor) -> int:
    """Levels of a tile of logits that are there: a thread holds few numbers and many offsets."""
    return 8 if x.element_size() == 8 else 16


def chunk_pixels(rows: int, itemsize: int) -> int:
    """Whole tiles of pixels."""
    return max(64, CHUNK_BYTES // (rows * itemsize) // 64 * 64)


def blocks_of(pixels: int) -> int:
    return triton.cdiv(pixels, PIXELS)


def unsupported(
    features: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    upstream: torch.Tensor | None = None,
) -> str | None:
    """Why the Triton kernels cannot run a call, or None."""
    others = {"weight": weight, "bias": bias, "upstream_0": upstream}
    reason = launch.mismatch(OP, "features", features, others)
    if reason is None and target is not None and target.device != features.device:
        return f"{OP}: target must be on {features.device} like features; got {target.device}"
    return reason
