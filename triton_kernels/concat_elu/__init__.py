"""Launchers of the concatenated ELU's Triton kernels: one launch forward, one backward."""

from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.concat_elu.kernels import (
    concat_elu_backward_kernel,
    concat_elu_forward_kernel,
)
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator

_OP = "concat_elu"
_TILE, _WARPS = 512, 4


def unsupported(input: torch.Tensor, upstream: torch.Tensor | None = None) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(_OP, "input", input, {"upstream_0": upstream})


def _dense(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return tensor.contiguous(memory_format=layout)


def _row(x: torch.Tensor, channels_last: bool) -> int:
    """Elements of x that lie side by side, and of which the negatives follow in the result."""
    return x.shape[1] if channels_last else x.shape[1:].numel()


def forward(input: torch.Tensor, channels_last: bool) -> torch.Tensor:
    launch.require(unsupported(input))
    x = _dense(input, channels_last)
    y = spec.empty_image(x, 2 * x.shape[1], channels_last)
    if x.numel() == 0:
        return y
    with launch.on(x):
        concat_elu_forward_kernel[launch.programs(_OP, triton.cdiv(x.numel(), _TILE))](
            x, y, x.numel(), _row(x, channels_last),
            DTYPE=accumulator(x.dtype), B=_TILE, num_warps=_WARPS,
        )  # fmt: skip
    return y


def backward(
    upstream_0: torch.Tensor | None, input: torch.Tensor, channels_last: bool, needs_input: bool
) -> torch.Tensor:
    launch.require(unsupported(input, upstream_0))
    if not needs_input:
        return input.new_empty(0)
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    x, d_y = _dense(input, channels_last), _dense(upstream_0, channels_last)
    d_x = spec.empty_image(x, x.shape[1], channels_last)
    if x.numel() == 0:
        return d_x
    with launch.on(x):
        concat_elu_backward_kernel[launch.programs(_OP, triton.cdiv(x.numel(), _TILE))](
            d_y, x, d_x, x.numel(), _row(x, channels_last),
            DTYPE=accumulator(x.dtype), B=_TILE, num_warps=_WARPS,
        )  # fmt: skip
    return d_x


LAUNCHERS = {"concat_elu_forward": forward, "concat_elu_backward": backward}


def _call(dtype: torch.dtype, N: int, C: int, H: int, W: int) -> Iterator[tuple[str, tuple]]:
    x, y = (torch.empty(N, c * C, H, W, dtype=dtype, device="meta") for c in (1, 2))
    yield "concat_elu_forward", (x, False)
    yield "concat_elu_backward", (y, x, False, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype, on meta tensors."""
    for dtype in spec.FLOATING:
        yield from _call(dtype, 4, 8, 6, 7)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 2, 2 * n)
