"""Launchers of upfirdn2d's Triton kernel: one launch forward, and one of the adjoint backward."""

import itertools
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.upfirdn2d.kernels import upfirdn2d_kernel

_OP = "upfirdn2d"
_TILE, _WARPS = (8, 32), 4


def unsupported(input: torch.Tensor, upstream: torch.Tensor | None = None) -> str | None:
    """Why the kernel cannot take these arguments, or None."""
    return launch.mismatch(_OP, "input", input, {"upstream_0": upstream})


def _filtered(x, filter, up, down, top, left, sizes, gain):
    """The first ``sizes`` rows and columns."""
    y = x.new_empty((*x.shape[:2], *sizes))
    if y.numel() == 0:
        return y
    taps = filter.shape[0], filter.shape[-1]
    blocks = [triton.cdiv(size, side) for size, side in zip(sizes, _TILE, strict=True)]
    before = max(top - taps[0], left - taps[1]) + 1
    with launch.on(x):
        upfirdn2d_kernel[launch.programs(_OP, x.shape[0] * x.shape[1] * blocks[0] * blocks[1])](
            x, filter, y, *x.shape[1:], *sizes, *blocks, up, down, *taps, top, left,
            max(0, triton.cdiv(before, up)), *x.stride(), float(gain),
            SEPARABLE=filter.ndim == 1, DTYPE=accumulator(x.dtype), BH=_TILE[0], BW=_TILE[1],
            num_warps=_WARPS,
        )  # fmt: skip
    return y


def forward(
    input: torch.Tensor,
    filter: torch.Tensor,
    up: int,
    down: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    gain: float,
) -> torch.Tensor:
    launch.require(unsupported(input))
    H = (input.shape[2] * up + top + bottom - filter.shape[0]) // down + 1
    W = (input.shape[3] * up + left + right - filter.shape[-1]) // down + 1
    return _filtered(input, filter.contiguous(), up, down, top, left, (H, W), gain)


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    filter: torch.Tensor,
    up: int,
    down: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    gain: float,
    needs_input: bool,
) -> torch.Tensor:
    launch.require(unsupported(input, upstream_0))
    if not needs_input:
        return input.new_empty(0)
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    reversed = filter.flip(tuple(range(filter.ndim))).contiguous()
    top, left = filter.shape[0] - 1 - top, filter.shape[-1] - 1 - left
    return _filtered(upstream_0, reversed, down, up, top, left, tuple(input.shape[2:]), gain)


LAUNCHERS = {"upfirdn2d_forward": forward, "upfirdn2d_backward": backward}


def _call(dtype: torch.dtype, N: int, C: int, side: int, up: int, filter: tuple[int, ...]):
    x = torch.empty(N, C, side, side, dtype=dtype, device="meta")
    f = x.new_empty(filter, dtype=spec.accumulation(dtype))
    options = (f, up, 1, 2, 1, 2, 1, 1.0)
    yield "upfirdn2d_forward", (x, *options)
    y = forward(x, *options)
    yield "upfirdn2d_backward", (y, x, *options, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with both kinds of filters, on meta tensors."""
    for dtype, filter in itertools.product(spec.FLOATING, ((4,), (3, 4))):
        yield from _call(dtype, 4, 8, 7, 2, filter)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 2, 1 + n % 4, (1 + n % 3,))
