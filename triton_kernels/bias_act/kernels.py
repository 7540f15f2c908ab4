"""Triton kernels of bias_act: y = clamp(gain act(x + b)), and both orders of its derivatives.

In memory x is (outer, C, inner), rest = outer * inner. A program takes BR of the rest for BC
channels: BC is 1 where a channel's values lie side by side, and more where channels do. Formulas
and names: csrc/bias_act/bias_act.h.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts, log1p_unit

_RUNTIME = ["C", "inner", "rest", "blocks", "alpha", "gain", "clamp"]


@triton.jit
def _normal_tail(a, e):
    """The normal distribution function of -a for a >= 0, given e = exp(-a^2 / 2)."""
    if a.dtype == tl.float64:
        u = 1.0 / (1.0 + 0.25 * a)
        w = u + u - 1.0
        p = 1.92099155686640542e-9 * w - 3.29330822513005794e-9
        p = p * w - 1.53745011308721756e-8
        p = p * w + 3.73169532544881381e-8
        p = p * w + 6.12499366981973254e-8
        p = p * w - 2.53197785303296876e-7
        p = p * w - 1.52770310520023399e-7
        p = p * w + 1.47839794604702178e-6
        p = p * w + 1.77082958061439486e-7
        p = p * w - 8.7854547102318626e-6
        p = p * w - 4.76460431564352207e-7
        p = p * w + 0.0000577735465462254894
        p = p * w + 0.0000333359675202329725
        p = p * w - 0.000407704585817508979
        p = p * w - 0.000869923079858410902
        p = p * w + 0.00188504723933542056
        p = p * w + 0.0150991437220557767
        p = p * w + 0.0466304644900009028
        p = p * w + 0.096784350185568879
        p = p * w + 0.151974160492972106
        p = p * w + 0.188821282603937816
        return p * u * e
    else:
        u = 1.0 / (1.0 + 0.35 * a)
        w = u + u - 1.0
        p = -0.0001162907773 * w + 0.0002177278608
        p = p * w + 0.0006909763345
        p = p * w - 0.001757404303
        p = p * w - 0.005108517589
        p = p * w + 0.01023458733
        p = p * w + 0.07109886534
        p = p * w + 0.1714957586
        p = p * w + 0.253244279
        return p * u * e


@triton.jit
def _bounded(z, limit):
    z = tl.minimum(z, limit, propagate_nan=tl.PropagateNan.ALL)
    return tl.maximum(z, -limit, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _logistic(z):
    """sigmoid(z), its slope and its curvature."""
    e = exp(-tl.abs(z))
    r = 1.0 / (1.0 + e)
    m, _ = expm1_parts(-tl.abs(z), e)
    bend = e * r * r * r * m
    return tl.where(z < 0.0, e * r, r), e * r * r, tl.where(z < 0.0, -bend, bend)


@triton.jit
def _jet(z, alpha, ACT: tl.constexpr):
    """Value, slope and curvature of the activation, by its place in `ops/bias_act.ACTIVATIONS`."""
    positive = z > 0.0
    one = tl.where(positive, 1.0, 1.0).to(z.dtype)
    zero = one - one
    if ACT == 0:
        return z, one, zero
    elif ACT == 1:
        value = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return value, tl.where(positive, one, zero), zero
    elif ACT == 2:
        return tl.where(positive, z, alpha * z), tl.where(positive, one, alpha * one), zero
    elif ACT == 3:
        e = exp(-2.0 * tl.abs(z))
        m, _ = expm1_parts(-2.0 * tl.abs(z), e)
        q = 1.0 / (1.0 + e)
        t = tl.where(z < 0.0, m, -m) / (2.0 + m)
        return t, 4.0 * e * q * q, -8.0 * t * e * q * q
    elif ACT == 4:
        return _logistic(z)
    elif ACT == 5:
        e = exp(-tl.abs(z))
        m, _ = expm1_parts(-tl.abs(z), e)
        return tl.where(positive, z, m), tl.where(positive, one, e), tl.where(z >= 0.0, zero, e)
    elif ACT == 6:  # the interpreter rounds numbers that have names to float32
        e = 1.7580993408473766 * exp(-tl.abs(z))
        m, _ = expm1_parts(-tl.abs(z), exp(-tl.abs(z)))
        value = tl.where(positive, 1.0507009873554805 * z, 1.7580993408473766 * m)
        slope = tl.where(positive, 1.0507009873554805 * one, e)
        return value, slope, tl.where(z >= 0.0, zero, e)
    elif ACT == 7:
        s, slope, _ = _logistic(z)
        above = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return above + log1p_unit(exp(-tl.abs(z))), s, slope
    elif ACT == 8:
        limit = 746.0 if z.dtype == tl.float64 else 104.0  # beyond it inf * 0 must not come up
        x = _bounded(z, limit)
        s, slope, bend = _logistic(x)
        low = tl.maximum(z, -limit, propagate_nan=tl.PropagateNan.ALL)
        return low * s, s + x * slope, 2.0 * slope + x * bend
    else:
        x = _bounded(z, 39.0 if z.dtype == tl.float64 else 15.0)
        a = tl.abs(x)
        e = exp(-0.5 * a * a)
        tail = _normal_tail(a, e)
        density = 0.3989422804014327 * e
        value = tl.where(positive, z - a * tail, -a * tail)
        return value, tl.where(positive, 1.0 - tail, tail) + x * density, density * (2.0 - x * x)


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
    y, _, _ = _jet(_sum(p_x, p_b, o, o_c, mask, C, DTYPE), negative, ACT)
    y = y * factor
    if CLAMPS:
        y = _bounded(y, tl.full((1, 1), clamp, DTYPE))
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
        y, slope, bend = _jet(z, negative, ACT)
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
