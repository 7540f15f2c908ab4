"""Double backward of the likelihoods. Formulas: csrc/likelihoods/second.h."""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp
from genkern.triton_kernels.core.logistic import decay
from genkern.triton_kernels.likelihoods.kernels import (
    BERNOULLI,
    GAUSSIAN,
    LOGISTIC,
    SIZES,
    bernoulli,
    continuous,
    distance,
    kept,
    loaded,
    scaled,
)


@triton.jit
def _density(a):
    """s(a) s(-a)"""
    e = exp(-tl.abs(a))
    return e / ((1.0 + e) * (1.0 + e))


@triton.jit
def _variance(a):
    """1 / a^2 - 1 / (4 sinh^2(a / 2)), by its series below 1."""
    y = tl.abs(a)
    near = tl.where(y < 1.0, y, 0.0)
    y2 = near * near
    # (2n) (2n - 1) B_2n / (2n (2n)!): Bernoulli's numbers, to y^16
    s = 306.0 * 4.770034475709914e-16 * y2 - 240.0 * 2.1185501852016142e-14
    s = s * y2 + 182.0 * 9.55895466477477e-13
    s = s * y2 - 132.0 * 4.403491782239578e-11
    s = s * y2 + 90.0 * 2.08767569878681e-09
    s = s * y2 - 56.0 * 1.033399470899471e-07
    s = s * y2 + 30.0 * 5.5114638447971785e-06
    s = s * y2 - 12.0 * 0.00034722222222222224
    s = s * y2 + 2.0 * 0.041666666666666664
    far = tl.where(y < 1.0, 1.0, y)
    rest, gone = decay(far)
    return tl.where(y < 1.0, s, 1.0 / (far * far) - rest / (gone * gone))


@triton.jit
def _logistic_bends(m, raw, v, levels, l_m, l_s, v_m, v_s):
    """grad L . v, and the Hessian of L times v, of a bin; l_m and l_s are the slopes."""
    value, Z, last = distance(m, v, levels)
    t = exp(-tl.maximum(raw, -7.0, propagate_nan=tl.PropagateNan.ALL))
    tau = t / last
    # Beyond a thousand scales the density is 0, and its products with p are.
    p = tl.maximum(tl.minimum(tau * (Z + 1.0), 1e3), -1e3)
    q = tl.maximum(tl.minimum(tau * (Z - 1.0), 1e3), -1e3)
    P = tl.where(value == last, 0.0, _density(p))
    Q = tl.where(value == -last, 0.0, _density(q))
    width = tl.maximum(2.0 * tau, 1e-30)
    rest, gone = decay(width)
    ratio = width / gone
    of_width = tl.where((value == last) | (value == -last), 0.0, ratio * ratio * rest)
    fixed = raw < -7.0
    v_s = tl.where(fixed, 0.0, v_s)
    mixed = t * (p * P + q * Q) - l_m
    bend = p * p * P + q * q * Q + of_width - l_s
    d_m = t * t * (P + Q) * v_m + mixed * v_s
    return v_m * l_m + v_s * l_s, d_m, tl.where(fixed, 0.0, mixed * v_m + bend * v_s)


@triton.jit
def _direction(p_v, o, m_tile, DTYPE: tl.constexpr):
    if p_v is None:
        v = tl.zeros(m_tile.shape, DTYPE)
    else:
        v = tl.load(p_v + o, mask=m_tile, other=0.0).to(DTYPE)
    return v


@triton.jit
def _bends(
    p_location, p_scale, p_target, p_slopes, o, o_item, m_tile, v_m, v_s, v_x, levels, fixed,
    count, KIND: tl.constexpr, SHARED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """grad L . v, and the Hessian of L times v in location, scale and target, of a tile."""
    m, s, x = loaded(p_location, p_scale, p_target, o, o_item, m_tile, fixed, SHARED, DTYPE)
    d_s = tl.zeros(m.shape, DTYPE)
    d_x = d_s
    if KIND == GAUSSIAN:
        w = exp(-0.5 * s)
        u = scaled(x.to(DTYPE) - m, w)
        p = scaled(v_m - v_x, w)
        half = 0.5 * v_s
        along = half * (1.0 - u * u) - u * p
        d_m = scaled(p + u * v_s, w)
        d_s = u * (p + u * half)
        d_x = -d_m
    elif KIND == LOGISTIC:
        l_m = tl.load(p_slopes + o, mask=m_tile, other=0.0)
        l_s = tl.load(p_slopes + count + o, mask=m_tile, other=0.0)
        along, d_m, d_s = _logistic_bends(m, s, x.to(tl.int64), levels, l_m, l_s, v_m, v_s)
    else:
        if KIND == BERNOULLI:
            _, slope = bernoulli(m, x.to(DTYPE))
            bend = _density(m)
        else:
            _, slope = continuous(m, x.to(DTYPE))
            bend = _variance(m)
        along = scaled(v_m, slope) - scaled(v_x, m)
        d_m = scaled(v_m, bend) - v_x
        d_x = -v_m
    return along, d_m, d_s, d_x


@triton.jit(do_not_specialize=SIZES)
def likelihoods_backward_backward_kernel(
    p_v_location, p_v_scale, p_v_target, p_upstream,
    p_location, p_scale, p_target, p_mask, p_slopes,
    p_d_upstream, p_d_location, p_d_scale, p_d_target, p_partial,
    R: tl.int64, N: tl.int64, D: tl.int64, S: tl.int32, column_tiles: tl.int32,
    levels: tl.int64, fixed: tl.float64,
    KIND: tl.constexpr, SHARED: tl.constexpr, DTYPE: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of upstream[s, r] dL/d(location, scale, target) along v, as the backward kernel.

    d_upstream (S R, column_tiles) holds the sums of each tile. Program (rows, columns).
    """
    i = tl.program_id(0)
    i_tile = i % column_tiles
    i_row = (i // column_tiles).to(tl.int64) * BR + tl.arange(0, BR)
    o_column = i_tile.to(tl.int64) * BC + tl.arange(0, BC).to(tl.int64)
    m_tile = (i_row < R)[:, None] & (o_column < D)[None, :]
    o_item = (i_row % N)[:, None] * D + o_column[None, :]
    m_kept = kept(p_mask, o_item, m_tile)
    b_target = tl.zeros((BR, BC), DTYPE)
    b_shared = tl.zeros((BR, BC), DTYPE)
    v_x = _direction(p_v_target, o_item, m_kept, DTYPE)
    for s in range(S):
        i_sample = i_row + s * R
        g = tl.load(p_upstream + i_sample, mask=i_row < R, other=0.0).to(DTYPE)[:, None]
        o = i_sample[:, None] * D + o_column[None, :]
        v_m = _direction(p_v_location, o, m_kept, DTYPE)
        if SHARED:
            v_s = _direction(p_v_scale, o * 0, m_kept, DTYPE)
        else:
            v_s = _direction(p_v_scale, o, m_kept, DTYPE)
        along, d_m, d_s, d_x = _bends(
            p_location, p_scale, p_target, p_slopes, o, o_item, m_kept, v_m, v_s, v_x, levels,
            fixed, R * D * S, KIND, SHARED, DTYPE,
        )  # fmt: skip
        d_s = tl.where(m_kept, g * d_s, 0.0)
        if p_d_upstream is not None:
            sums = tl.sum(tl.where(m_kept, along, 0.0), 1)
            tl.store(p_d_upstream + i_sample * column_tiles + i_tile, sums, mask=i_row < R)
        if p_d_location is not None:
            tl.store(p_d_location + o, tl.where(m_kept, g * d_m, 0.0), mask=m_tile)
        if p_d_scale is not None:
            tl.store(p_d_scale + o, d_s, mask=m_tile)
        b_target += tl.where(m_kept, g * d_x, 0.0)
        b_shared += d_s
    if p_d_target is not None:
        tl.store(p_d_target + o_item, b_target, mask=m_tile)
    if p_partial is not None:
        tl.store(p_partial + i, tl.sum(tl.sum(b_shared, 1), 0))
