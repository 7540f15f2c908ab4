"""Triton kernels of bias_act: y = clamp(gain act(x + b)), and both orders of its derivatives.

In memory x is (outer, C, inner), rest = outer * inner. A program takes BR of the rest for BC
channels: BC is 1 where a channel's values lie side by side, and more where channels do. Formulas
and names: csrc/bias_act/bias_act.h.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.activation import bounded, jet

_RUNTIME = ["C", "inner", "rest", "blocks", "alpha", "gain", "clamp"]


@triton.jit
def _places(i_tile, i_block, C, inner, rest, BR: tl.constexpr, BC: tl.constexpr):
    """Offsets (BR, BC), the channels and the mask; divisions of blocks are of 32 bits."""
    start = i_tile * BR
    outer = start // inner
    at = start % inner
    o = tl.arange(0, BR)
    first = tl.minimum(inner - at, BR).to(tl.int32)  # before the next row of x begins
    short = tl.minimum(inner, BR).to(tl.int32)
    behind = tl.maximum(o - first, 0)
    row = tl.where(o < first, 0, 1 + behind // short)
    place = tl.where(o < first, o + at, (behind % short).to(tl.int64))
    o_c = i_block * BC + tl.arange(0, BC)
    o_rest = (outer + row) * (C * inner) + place
    mask = ((start + o) < rest)[:, None] & (o_c < C)[None, :]
    return o_rest[:, None] + (o_c * inner)[None, :], o_c, mask


@triton.jit
def _sum(p_x, p_b, o, o_c, mask, C, DTYPE: tl.constexpr):
    """x + b, either of which may be absent."""
    if p_b is None:
        return tl.load(p_x + o, mask, 0.0).to(DTYPE)
    else:
        b = tl.load(p_b + o_c, o_c < C, 0.0).to(DTYPE)[None, :]
        if p_x is None:
            return b + tl.where(mask, 0.0, 0.0).to(DTYPE)
        else:
            return tl.load(p_x + o, mask, 0.0).to(DTYPE) + b


@triton.jit(do_not_specialize=_RUNTIME)
def bias_act_forward_kernel(
    p_x, p_b, p_y,
    C: tl.int64, inner: tl.int64, rest: tl.int64, blocks: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, CLAMPS: tl.constexpr, DTYPE: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    negative, factor = tl.full((1, 1), alpha, DTYPE), tl.full((1, 1), gain, DTYPE)
    o, o_c, mask = _places(i // blocks, i % blocks, C, inner, rest, BR, BC)
    y, _, _ = jet(_sum(p_x, p_b, o, o_c, mask, C, DTYPE), negative, ACT)
    y = y * factor
    if CLAMPS:
        y = bounded(y, tl.full((1, 1), clamp, DTYPE))
    tl.store(p_y + o, y.to(p_y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=[*_RUNTIME, "tiles"])
def bias_act_backward_kernel(
    p_g, p_h, p_d, p_x, p_b, p_d_up, p_d_x, p_sums,
    C: tl.int64, inner: tl.int64, rest: tl.int64, blocks: tl.int64, tiles: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    SECOND: tl.constexpr, ACT: tl.constexpr, CLAMPS: tl.constexpr, DTYPE: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Of so many tiles; p_sums (programs of a channel, C) gets their sums of d_x over the rest.

    SECOND: with g and h the gradients of d_x and of d_b, d_up = (g + h) s and d_x = (g + h) d r.
    Otherwise d_x = d s.
    """
    i = tl.program_id(0).to(tl.int64)
    negative, factor = tl.full((1, 1), alpha, DTYPE), tl.full((1, 1), gain, DTYPE)
    bound = tl.full((1, 1), clamp, DTYPE)
    i_part = i // blocks
    i_tile = i_part * tiles
    end = tl.minimum(i_tile + tiles, (rest + BR - 1) // BR)
    b_sum = tl.zeros((BR, BC), DTYPE)
    while i_tile < end:
        o, o_c, mask = _places(i_tile, i % blocks, C, inner, rest, BR, BC)
        z = _sum(p_x, p_b, o, o_c, mask, C, DTYPE)
        y, slope, bend = jet(z, negative, ACT)
        d = tl.load(p_d + o, mask, 0.0).to(DTYPE)
        g = d
        if SECOND:
            g = _sum(p_g, p_h, o, o_c, mask, C, DTYPE)
        g = g * factor
        if CLAMPS:
            g = tl.where(tl.abs(y * factor) > bound, 0.0, g)
        d_x = g * slope
        if SECOND:
            if p_d_up is not None:
                tl.store(p_d_up + o, d_x.to(p_d_up.dtype.element_ty), mask)
            d_x = g * d * bend
        if p_d_x is not None:
            tl.store(p_d_x + o, d_x.to(p_d_x.dtype.element_ty), mask)
        b_sum += tl.where(mask, d_x, 0.0)
        i_tile += 1
    if p_sums is not None:
        o_c = (i % blocks) * BC + tl.arange(0, BC)
        tl.store(p_sums + i_part * C + o_c, tl.sum(b_sum, 0), o_c < C)
