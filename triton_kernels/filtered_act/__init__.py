"""Launchers of the filtered activation: two launches for each order, and one more where the second
order has two results.

The image between the filters is stored here for the time of a call, in float32 (float64): a program
that kept it would index its own rows and columns, which Triton cannot.
"""

import itertools
import math
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.filtered_act.kernels import (
    filtered_act_last_kernel,
    filtered_act_tall_kernel,
)

_OP = "filtered_act"
_TILE, _WARPS = (8, 32), 4
# Of a thread, at most: left to itself, the compiler spills in float64 so that more programs fit.
_REGISTERS = 128


def unsupported(input: torch.Tensor, **others: torch.Tensor | None) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(_OP, "input", input, others)


def _grid(x: torch.Tensor, sizes: tuple[int, int]) -> tuple[tuple[int], list[int]]:
    blocks = [triton.cdiv(size, side) for size, side in zip(sizes, _TILE, strict=True)]
    return launch.programs(_OP, x.shape[0] * x.shape[1] * blocks[0] * blocks[1]), blocks


def _shift(factor: int, pads: tuple[int, int], taps: tuple[int, int]) -> int:
    """Of places, so that none is below 0."""
    before = max(pad - k for pad, k in zip(pads, taps, strict=True)) + 1
    return max(0, triton.cdiv(before, factor))


class _Call:
    """One call: both filters, their adjoints, sizes."""

    def __init__(self, input, filters, u, d, left, right, top, bottom, act, alpha, gain, clamp):
        self.x, self.exact = input, spec.accumulation(input.dtype)
        self.filters = [f.contiguous() for f in filters]
        self.reversed = [f.flip(tuple(range(f.ndim))).contiguous() for f in filters]
        self.taps = [(f.shape[0], f.shape[-1]) for f in filters]
        self.u, self.d, self.before = u, d, (top, left)
        sides, (up_taps, down_taps) = (top + bottom, left + right), self.taps
        self.given = tuple(input.shape[2:])
        self.tall = tuple(n * u + p - k + 1
                          for n, p, k in zip(self.given, sides, up_taps, strict=True))  # fmt: skip
        self.out = tuple((n - k) // d + 1
                         for n, k in zip(self.tall, down_taps, strict=True))  # fmt: skip
        self.numbers = float(alpha), float(gain), math.inf if clamp is None else float(clamp)
        self.act = {"ACT": act, "CLAMPS": clamp is not None}

    def between(self, bias, second, upstream):
        """f(z), or the slope or the curvature with U (g + h) and D^T d."""
        planes, (g, h) = self.x.shape[:2], second or (None, None)
        tall = self.x.new_empty((*planes, *self.tall), dtype=self.exact)
        if tall.numel() == 0:
            return tall
        x, b, g, h, d = launch.dense(self.x, bias, g, h, upstream)
        if second is not None and g is None and h is None:
            return tall.zero_()
        grid, blocks = _grid(tall, self.tall)
        down_pads = [k - 1 for k in self.taps[1]]
        with launch.on(x):
            filtered_act_tall_kernel[grid](
                x, b, g, h, d, self.filters[0], self.reversed[1], tall, planes[1], *self.given,
                *self.tall, *self.out, *blocks, self.u, *self.taps[0], *self.before,
                _shift(self.u, self.before, self.taps[0]), self.d, *self.taps[1],
                _shift(self.d, down_pads, self.taps[1]), float(self.u * self.u), *self.numbers,
                ALONG=second is not None, **self.act, UP_SEPARABLE=self.filters[0].ndim == 1,
                DOWN_SEPARABLE=self.filters[1].ndim == 1, DTYPE=accumulator(x.dtype), BH=_TILE[0],
                BW=_TILE[1], num_warps=_WARPS, maxnreg=_REGISTERS,
            )  # fmt: skip
        return tall

    def _last(self, tall, f, up, down, pads, sizes, factor, dtype):
        y = tall.new_empty((*tall.shape[:2], *sizes), dtype=dtype)
        if y.numel() == 0:
            return y
        grid, blocks = _grid(tall, sizes)
        taps = f.shape[0], f.shape[-1]
        with launch.on(tall):
            filtered_act_last_kernel[grid](
                tall, f, y, *self.tall, *sizes, *blocks, up, down, *taps, *pads,
                _shift(up, pads, taps), factor, SEPARABLE=f.ndim == 1,
                DTYPE=accumulator(self.exact), BH=_TILE[0], BW=_TILE[1], num_warps=_WARPS,
            )  # fmt: skip
        return y

    def down(self, tall):
        rest = (0, 0), self.out, 1.0, self.x.dtype
        return self._last(tall, self.filters[1], 1, self.d, *rest)

    def gradients(self, tall, needs):
        """Of input and bias."""
        pads = [k - 1 - p for k, p in zip(self.taps[0], self.before, strict=True)]
        dtype = self.exact if needs[1] else self.x.dtype
        rest = pads, self.given, float(self.u * self.u), dtype
        d_x = self._last(tall, self.reversed[0], 1, self.u, *rest)
        d_bias = d_x.sum((0, 2, 3)) if needs[1] else d_x.new_empty(0)
        d_x = d_x if needs[0] else d_x.new_empty(0)
        return d_x.to(self.x.dtype), d_bias.to(self.x.dtype)


def forward(
    input: torch.Tensor,
    bias: torch.Tensor | None,
    up_filter: torch.Tensor,
    down_filter: torch.Tensor,
    up: int,
    down: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    launch.require(unsupported(input, bias=bias))
    filters, options = (up_filter, down_filter), (act, alpha, gain, clamp)
    call = _Call(input, filters, up, down, left, right, top, bottom, *options)
    return call.down(call.between(bias, None, None))


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    bias: torch.Tensor | None,
    up_filter: torch.Tensor,
    down_filter: torch.Tensor,
    up: int,
    down: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    needs_input: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    launch.require(unsupported(input, bias=bias, upstream_0=upstream_0))
    filters, options = (up_filter, down_filter), (act, alpha, gain, clamp)
    call = _Call(input, filters, up, down, left, right, top, bottom, *options)
    return call.gradients(call.between(bias, None, upstream_0), (needs_input, needs_bias))


def backward_backward(
    second_0: torch.Tensor | None,
    second_1: torch.Tensor | None,
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    bias: torch.Tensor | None,
    up_filter: torch.Tensor,
    down_filter: torch.Tensor,
    up: int,
    down: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    needs_input: bool,
    needs_bias: bool,
    second_needs_upstream_0: bool,
    second_needs_input: bool,
    second_needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    given = {"upstream_0": upstream_0, "second_0": second_0, "second_1": second_1}
    launch.require(unsupported(input, bias=bias, **given))
    filters, options = (up_filter, down_filter), (act, alpha, gain, clamp)
    call = _Call(input, filters, up, down, left, right, top, bottom, *options)
    second, needs = (second_0, second_1), (second_needs_input, second_needs_bias)
    first, found = input.new_empty(0), (input.new_empty(0), input.new_empty(0))
    if second_needs_upstream_0:
        first = call.down(call.between(bias, second, None))
    if any(needs):
        found = call.gradients(call.between(bias, second, upstream_0), needs)
    return first, *found


MAX_LAUNCHES = {"filtered_act_forward": 2, "filtered_act_backward_backward": 4}
LAUNCHERS = {
    "filtered_act_forward": forward,
    "filtered_act_backward": backward,
    "filtered_act_backward_backward": backward_backward,
}


def _call(dtype: torch.dtype, N: int, C: int, side: int, act: int, taps: int):
    x = torch.empty(N, C, side, side, dtype=dtype, device="meta")
    b, f = x.new_empty(C), x.new_empty(taps, dtype=spec.accumulation(dtype))
    pad = taps - 1
    options = (f, f, 2, 2, pad, pad, pad, pad, act, 0.2, 1.0, 256.0)
    y = forward(x, b, *options)
    yield "filtered_act_forward", (x, b, *options)
    yield "filtered_act_backward", (y, x, b, *options, True, True)
    needs = (True, True, True, True, True)
    yield "filtered_act_backward_backward", (x, b, y, x, b, *options, *needs)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with a flat and a bent activation, on meta tensors."""
    for dtype, act in itertools.product(spec.FLOATING, (2, 8)):
        yield from _call(dtype, 4, 8, 7, act, 12)


# Values, slopes along d and along g, curvatures.
VARIANTS = {"filtered_act_tall_kernel": 4}


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 2, 2, 1 + n % 5)
