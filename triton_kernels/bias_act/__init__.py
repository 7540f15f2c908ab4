"""Launchers of the Triton kernels of bias_act: one launch for each order of derivatives."""

import itertools
import math
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.bias_act.kernels import (
    bias_act_backward_kernel,
    bias_act_forward_kernel,
)
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator

_OP = "bias_act"
_ROWS, _CHANNELS = (512, 1), (16, 32)  # tiles where a channel lies side by side, or the channels
_PROGRAMS = 8  # a processor, at most, where sums are formed
_ACTIVATIONS = 10


def unsupported(input: torch.Tensor, **others: torch.Tensor | None) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(_OP, "input", input, others)


def _dense(tensor: torch.Tensor | None, channels_last: bool) -> torch.Tensor | None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return None if tensor is None else tensor.contiguous(memory_format=layout)


def _axes(x: torch.Tensor, per_channel: bool, dim: int, channels_last: bool) -> tuple[int, int]:
    """C and inner: x is (outer, C, inner) in memory."""
    if not per_channel:
        return 1, max(1, x.numel())
    return x.shape[dim], 1 if channels_last else x.shape[dim + 1 :].numel()


def _options(alpha: float, gain: float, clamp: float | None) -> tuple[float, float, float]:
    return float(alpha), float(gain), math.inf if clamp is None else float(clamp)


def forward(
    input: torch.Tensor,
    bias: torch.Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    dim: int,
    channels_last: bool,
) -> torch.Tensor:
    launch.require(unsupported(input, bias=bias))
    x, b = _dense(input, channels_last), _dense(bias, False)
    assert x is not None
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    C, inner = _axes(x, b is not None, dim, channels_last)
    rest, (rows, channels) = x.numel() // C, _CHANNELS if inner == 1 else _ROWS
    blocks = triton.cdiv(C, channels)
    with launch.on(x):
        bias_act_forward_kernel[launch.programs(_OP, blocks * triton.cdiv(rest, rows))](
            x, b, y, C, inner, rest, blocks, *_options(alpha, gain, clamp),
            ACT=act, CLAMPS=clamp is not None, DTYPE=accumulator(x.dtype), BR=rows, BC=channels,
            num_warps=4,
        )  # fmt: skip
    return y


def _derivative(second, upstream, input, bias, options, needs):
    """Gradients of upstream, input and bias, None where they are not needed."""
    act, alpha, gain, clamp, dim, channels_last = options
    g, h = second or (None, None)
    launch.require(unsupported(input, bias=bias, upstream_0=upstream, second_0=g, second_1=h))
    x, d, g = (_dense(t, channels_last) for t in (input, upstream, g))
    b, h = _dense(bias, False), _dense(h, False)
    d_up, d_x = (torch.empty_like(x) if needed else None for needed in needs[:2])
    C, inner = _axes(x, b is not None or h is not None, dim, channels_last)
    if x.numel() == 0:
        return d_up, d_x, bias.new_zeros(bias.shape) if needs[2] else None
    rest, (rows, channels) = x.numel() // C, _CHANNELS if inner == 1 else _ROWS
    blocks, parts = triton.cdiv(C, channels), triton.cdiv(rest, rows)
    if needs[2]:
        parts = min(parts, max(1, _PROGRAMS * launch.processors(x) // blocks))
    tiles = triton.cdiv(triton.cdiv(rest, rows), parts)
    sums = x.new_empty((parts, C), dtype=spec.accumulation(x.dtype)) if needs[2] else None
    with launch.on(x):
        bias_act_backward_kernel[launch.programs(_OP, blocks * parts)](
            g, h, d, x, b, d_up, d_x, sums, C, inner, rest, blocks, tiles,
            *_options(alpha, gain, clamp), SECOND=second is not None, ACT=act,
            CLAMPS=clamp is not None, DTYPE=accumulator(x.dtype), BR=rows, BC=channels,
            num_warps=4 if x.dtype != torch.float64 else 8,  # which by 4 spills
        )  # fmt: skip
    return d_up, d_x, None if sums is None else sums.sum(0).to(x.dtype)


def _present(found, like):
    return tuple(like.new_empty(0) if t is None else t for t in found)


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    bias: torch.Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    dim: int,
    channels_last: bool,
    needs_input: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    options, needs = (act, alpha, gain, clamp, dim, channels_last), (False, needs_input, needs_bias)
    found = _derivative(None, upstream_0, input, bias, options, needs)
    return _present(found[1:], input)


def backward_backward(
    second_0: torch.Tensor | None,
    second_1: torch.Tensor | None,
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    bias: torch.Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
    dim: int,
    channels_last: bool,
    needs_input: bool,
    needs_bias: bool,
    second_needs_upstream_0: bool,
    second_needs_input: bool,
    second_needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    options = (act, alpha, gain, clamp, dim, channels_last)
    needs = (second_needs_upstream_0, second_needs_input, second_needs_bias)
    return _present(
        _derivative((second_0, second_1), upstream_0, input, bias, options, needs), input
    )


LAUNCHERS = {
    "bias_act_forward": forward,
    "bias_act_backward": backward,
    "bias_act_backward_backward": backward_backward,
}


def _call(dtype: torch.dtype, N: int, C: int, side: int, act: int, biased: bool, last: bool):
    x = torch.empty(N, C, side, side, dtype=dtype, device="meta")
    b = x.new_empty(C) if biased else None
    options = (act, 0.2, 1.0, None if act % 2 else 2.0, 1 if biased else 0, last)
    yield "bias_act_forward", (x, b, *options)
    yield "bias_act_backward", (x, x, b, *options, True, biased)
    needs = (True, biased)
    yield "bias_act_backward_backward", (x, b, x, x, b, *options, *needs, True, *needs)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every activation in float32 and float64, some in half precision, on meta tensors."""
    for dtype, act in itertools.product(spec.FLOATING, range(_ACTIVATIONS)):
        if dtype not in spec.HALF or act in (2, 5, 9):
            yield from _call(dtype, 4, 8, 7, act, act % 3 > 0, act % 2 > 0)


VARIANTS = {"bias_act_backward_kernel": 2}  # of the first order, and of the second


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 2, 2, True, False)
