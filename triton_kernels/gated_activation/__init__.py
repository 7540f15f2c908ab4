"""Launchers of the gated activation's Triton kernels: one launch forward, one backward."""

import itertools
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.gated_activation.kernels import (
    gated_activation_backward_kernel,
    gated_activation_forward_kernel,
)

_TILE, _WARPS = 512, 4


def unsupported(op: str, input: torch.Tensor, **others: torch.Tensor | None) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(op, "input", input, others)


def _one_run(image: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """The image with one stride over all its pixels."""
    H, W = image.shape[2:]
    if H <= 1 or W <= 1 or image.stride(2) == W * image.stride(3):
        return image
    format = torch.channels_last if channels_last else torch.contiguous_format
    return image.contiguous(memory_format=format)


def _strides(tensor: torch.Tensor | None) -> tuple[int, int, int]:
    """Over (n, channel, pixel); a condition (N, 2C) has one value for all pixels."""
    if tensor is None or tensor.ndim == 2:
        return (0, 0, 0) if tensor is None else (*tensor.stride(), 0)
    pixel = tensor.stride(3) if tensor.shape[3] > 1 else tensor.stride(2)
    return tensor.stride(0), tensor.stride(1), pixel


def _inputs(op, input, condition, channels_last, upstream=None):
    launch.require(unsupported(op, input, condition=condition, upstream=upstream))
    if condition is not None and condition.ndim == 4:
        condition = _one_run(condition, channels_last)
    return _one_run(input, channels_last), condition


def _grid(op: str, x: torch.Tensor, whole_planes: bool) -> tuple[tuple[int], int]:
    pixels = x.shape[2] * x.shape[3]
    blocks = 1 if whole_planes else triton.cdiv(pixels, _TILE)
    return launch.programs(op, x.shape[0] * (x.shape[1] // 2) * blocks), blocks


def forward(
    input: torch.Tensor, condition: torch.Tensor | None, channels_last: bool
) -> torch.Tensor:
    op = "gated_activation_forward"
    x, c = _inputs(op, input, condition, channels_last)
    y = spec.empty_image(x, x.shape[1] // 2, channels_last)
    if y.numel() == 0:
        return y
    grid, blocks = _grid(op, x, whole_planes=False)
    with launch.on(x):
        gated_activation_forward_kernel[grid](
            x, c, y, x.shape[1] // 2, x.shape[2] * x.shape[3], blocks,
            *_strides(x), *_strides(c), *_strides(y),
            DTYPE=accumulator(x.dtype), B=_TILE, num_warps=_WARPS,
        )  # fmt: skip
    return y


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    condition: torch.Tensor | None,
    channels_last: bool,
    needs_input: bool,
    needs_condition: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    op = "gated_activation_backward"
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    x, c = _inputs(op, input, condition, channels_last, upstream_0)
    up = _one_run(upstream_0, channels_last)
    sums = needs_condition and condition is not None and condition.ndim == 2
    image = spec.empty_image(x, x.shape[1], channels_last)
    d_x = image if needs_input else None
    d_c = x.new_empty(condition.shape) if sums and condition is not None else None
    if needs_condition and not sums:
        d_c = torch.empty_like(image) if needs_input else image
    if up.numel() == 0 and d_c is not None:
        d_c.zero_()
    if up.numel() > 0 and (d_x is not None or d_c is not None):
        grid, blocks = _grid(op, x, whole_planes=sums)
        with launch.on(x):
            gated_activation_backward_kernel[grid](
                up, x, c, d_x, d_c, x.shape[1] // 2, x.shape[2] * x.shape[3], blocks,
                *_strides(x), *_strides(c), *_strides(up), *_strides(image),
                SUM=sums, DTYPE=accumulator(x.dtype), B=_TILE, num_warps=_WARPS,
            )  # fmt: skip
    nothing = x.new_empty(0)
    return nothing if d_x is None else d_x, nothing if d_c is None else d_c


LAUNCHERS = {"gated_activation_forward": forward, "gated_activation_backward": backward}


def _call(dtype: torch.dtype, N: int, C: int, H: int, W: int, condition: str | None):
    x, y = (torch.empty(N, c * C, H, W, dtype=dtype, device="meta") for c in (2, 1))
    c = {None: None, "channels": x.new_empty(N, 2 * C), "pixels": x}[condition]
    yield "gated_activation_forward", (x, c, False)
    yield "gated_activation_backward", (y, x, c, False, True, c is not None)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every condition, on meta tensors."""
    for dtype, condition in itertools.product(spec.FLOATING, (None, "channels", "pixels")):
        yield from _call(dtype, 4, 8, 6, 7, condition)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 2, 2 * n, None)
