"""Triton kernels of the likelihoods: nats of each item, and gradients.

location and scale (S, N, D), target and mask (N, D), all contiguous. A tile is BR rows by BC
columns. Formulas: csrc/likelihoods/likelihoods.h.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, log1p_unit, log_normal_range
from genkern.triton_kernels.core.logistic import log_bin, log_or_nothing

SIZES = ["R", "N", "D", "S", "splits", "split_columns", "column_tiles", "levels", "fixed"]
BERNOULLI = tl.constexpr(0)
CONTINUOUS = tl.constexpr(1)
GAUSSIAN = tl.constexpr(2)
LOGISTIC = tl.constexpr(3)


@triton.jit
def scaled(d, factor):
    """d times a factor that may be infinite: no distance stays none."""
    return tl.where(d == 0.0, 0.0, d * factor)


@triton.jit
def bernoulli(a, x):
    """m |a| + log(1 + e^-|a|) and its slope in a; m is 1 - x for a > 0, else x."""
    e = exp(-tl.abs(a))
    wrong = tl.where(a > 0.0, 1.0 - x, x)
    tail = tl.where(wrong == 0.0, 0.0, wrong * tl.abs(a))
    slope = tl.where(a > 0.0, (1.0 - x) - x * e, (1.0 - x) * e - x) / (1.0 + e)
    return tail + log1p_unit(e), slope


@triton.jit
def continuous(a, x):
    """m |a| + log((1 - e^-|a|) / |a|), by its series below 1, and its slope in a."""
    y = tl.abs(a)
    near = tl.where(y < 1.0, y, 0.0)
    y2 = near * near
    # B_2n / (2n (2n)!): Bernoulli's numbers, to y^18
    s = 4.770034475709914e-16 * y2 - 2.1185501852016142e-14
    d = 18.0 * 4.770034475709914e-16 * y2 - 16.0 * 2.1185501852016142e-14
    s = s * y2 + 9.55895466477477e-13
    d = d * y2 + 14.0 * 9.55895466477477e-13
    s = s * y2 - 4.403491782239578e-11
    d = d * y2 - 12.0 * 4.403491782239578e-11
    s = s * y2 + 2.08767569878681e-09
    d = d * y2 + 10.0 * 2.08767569878681e-09
    s = s * y2 - 1.033399470899471e-07
    d = d * y2 - 8.0 * 1.033399470899471e-07
    s = s * y2 + 5.5114638447971785e-06
    d = d * y2 + 6.0 * 5.5114638447971785e-06
    s = s * y2 - 0.00034722222222222224
    d = d * y2 - 4.0 * 0.00034722222222222224
    s = (s * y2 + 0.041666666666666664) * y2 - 0.5 * near
    d = (d * y2 + 2.0 * 0.041666666666666664) * near - 0.5
    far = tl.where(y < 1.0, 1.0, y)
    e = exp(-far)
    gone = 1.0 - e
    log = tl.where(far == float("inf"), far, log_normal_range(far / gone))
    value = tl.where(y < 1.0, s, -log)
    slope = tl.where(y < 1.0, d, e / gone - 1.0 / far)
    wrong = tl.where(a > 0.0, 1.0 - x, x)
    tail = tl.where(wrong == 0.0, 0.0, wrong * y)
    nats = tl.where(tail == float("inf"), tail, tail + value)
    return nats, tl.where(a > 0.0, (1.0 - x) + slope, -(x + slope))


@triton.jit
def _gaussian(m, logvar, x):
    """(u^2 + l + log 2 pi) / 2 with u = (x - m) e^{-l / 2}, and its slopes in m and l = logvar."""
    inverse = exp(-0.5 * logvar)
    u = scaled(x - m, inverse)
    return 0.5 * (u * u + (logvar + 1.8378770664093453)), -scaled(u, inverse), 0.5 * (1.0 - u * u)


@triton.jit
def distance(m, v, levels):
    """2 v - (levels - 1), its distance from m in half-bins, and levels - 1."""
    last = tl.full(m.shape, levels - 1, m.dtype)
    value = (2 * v - (levels - 1)).to(m.dtype)
    Z = (value.to(tl.float64) - m.to(tl.float64) * last.to(tl.float64)).to(m.dtype)
    return value, Z, last


@triton.jit
def _logistic(m, s, v, levels):
    """-log P(v) and its slopes in m and s; NaN where v is no level."""
    value, Z, last = distance(m, v, levels)
    linear, quotient, d_m, d_s = log_bin(value, Z, s, last)
    valid = (v >= 0) & (v < levels)
    log_p = linear + log_or_nothing(quotient) + (quotient - quotient)  # NaN stays
    nats = tl.where(valid, -log_p, float("nan"))
    return nats, -d_m, -d_s


@triton.jit
def kept(p_mask, o_item, m_tile):
    """The elements of a tile that count."""
    if p_mask is not None:
        m_tile = m_tile & (tl.load(p_mask + o_item, mask=m_tile, other=0) != 0)
    return m_tile


@triton.jit
def loaded(
    p_location, p_scale, p_target, o, o_item, m_tile, fixed,
    SHARED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """location, scale and target of a tile; the target as it is stored."""
    location = tl.load(p_location + o, mask=m_tile, other=0.0).to(DTYPE)
    if p_scale is None:
        scale = tl.full(location.shape, fixed, DTYPE)
    elif SHARED:
        scale = tl.load(p_scale).to(DTYPE) + tl.zeros(location.shape, DTYPE)
    else:
        scale = tl.load(p_scale + o, mask=m_tile, other=0.0).to(DTYPE)
    return location, scale, tl.load(p_target + o_item, mask=m_tile, other=0)


@triton.jit
def _element(
    p_location, p_scale, p_target, p_mask, o, o_item, m_tile, levels, fixed,
    KIND: tl.constexpr, SHARED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """nats and slopes in location, scale and target of a tile, 0 where masked."""
    m_tile = kept(p_mask, o_item, m_tile)
    location, scale, target = loaded(
        p_location, p_scale, p_target, o, o_item, m_tile, fixed, SHARED, DTYPE
    )
    d_scale = tl.zeros(location.shape, DTYPE)
    d_target = -location
    if KIND == BERNOULLI:
        nats, d_location = bernoulli(location, target.to(DTYPE))
    elif KIND == CONTINUOUS:
        nats, d_location = continuous(location, target.to(DTYPE))
    elif KIND == GAUSSIAN:
        nats, d_location, d_scale = _gaussian(location, scale, target.to(DTYPE))
        d_target = -d_location
    else:
        nats, d_location, d_scale = _logistic(location, scale, target.to(tl.int64), levels)
    zero = tl.zeros(location.shape, DTYPE)
    nats = tl.where(m_tile, nats, zero)
    d_location = tl.where(m_tile, d_location, zero)
    return nats, d_location, tl.where(m_tile, d_scale, zero), tl.where(m_tile, d_target, zero)


@triton.jit(do_not_specialize=SIZES)
def likelihoods_forward_kernel(
    p_location, p_scale, p_target, p_mask, p_nll, p_slopes,
    R: tl.int64, N: tl.int64, D: tl.int64, splits: tl.int32, split_columns: tl.int64,
    levels: tl.int64, fixed: tl.float64,
    KIND: tl.constexpr, SHARED: tl.constexpr, DTYPE: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """nll[r, split] = sum over the split's columns of the nats of row r of R = S N.

    nll (R, splits); slopes (2, R, D), of location and scale, or none. Program (rows, split).
    """
    i = tl.program_id(0)
    i_split = i % splits
    i_row = (i // splits).to(tl.int64) * BR + tl.arange(0, BR)
    b_sum = tl.zeros((BR, BC), DTYPE)
    first = i_split.to(tl.int64) * split_columns
    for c in range(first, tl.minimum(first + split_columns, D), BC):
        o_column = c + tl.arange(0, BC).to(tl.int64)
        m_tile = (i_row < R)[:, None] & (o_column < D)[None, :]
        o = i_row[:, None] * D + o_column[None, :]
        o_item = (i_row % N)[:, None] * D + o_column[None, :]
        nats, d_location, d_scale, _ = _element(
            p_location, p_scale, p_target, p_mask, o, o_item, m_tile, levels, fixed,
            KIND, SHARED, DTYPE,
        )  # fmt: skip
        b_sum += nats
        if p_slopes is not None:
            tl.store(p_slopes + o, d_location, mask=m_tile)
            tl.store(p_slopes + R * D + o, d_scale, mask=m_tile)
    tl.store(p_nll + i_row * splits + i_split, tl.sum(b_sum, 1), mask=i_row < R)


@triton.jit(do_not_specialize=SIZES)
def likelihoods_backward_kernel(
    p_upstream, p_location, p_scale, p_target, p_mask, p_slopes,
    p_d_location, p_d_scale, p_d_target, p_partial,
    R: tl.int64, N: tl.int64, D: tl.int64, S: tl.int32, column_tiles: tl.int32,
    levels: tl.int64, fixed: tl.float64,
    KIND: tl.constexpr, SHARED: tl.constexpr, DTYPE: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients: upstream[s, r] times the slopes of element (s, r, d), s < S, r < R.

    d_target is the sum over s; partial (programs,) that of d_scale over a program, where one scale
    is shared. With slopes (2, S, R, D) they are read. Program (rows, columns).
    """
    i = tl.program_id(0)
    i_row = (i // column_tiles).to(tl.int64) * BR + tl.arange(0, BR)
    o_column = (i % column_tiles).to(tl.int64) * BC + tl.arange(0, BC).to(tl.int64)
    m_tile = (i_row < R)[:, None] & (o_column < D)[None, :]
    o_item = (i_row % N)[:, None] * D + o_column[None, :]
    b_target = tl.zeros((BR, BC), DTYPE)
    b_shared = tl.zeros((BR, BC), DTYPE)
    for s in range(S):
        i_sample = i_row + s * R
        b_g = tl.load(p_upstream + i_sample, mask=i_row < R, other=0.0).to(DTYPE)[:, None]
        o = i_sample[:, None] * D + o_column[None, :]
        if p_slopes is not None:
            d_location = tl.load(p_slopes + o, mask=m_tile, other=0.0)
            d_scale = tl.load(p_slopes + R * D * S + o, mask=m_tile, other=0.0)
            m_kept = kept(p_mask, o_item, m_tile)
            d_location = tl.where(m_kept, b_g * d_location, 0.0)
            d_scale = tl.where(m_kept, b_g * d_scale, 0.0)
        else:
            _, d_location, d_scale, d_target = _element(
                p_location, p_scale, p_target, p_mask, o, o_item, m_tile, levels, fixed,
                KIND, SHARED, DTYPE,
            )  # fmt: skip
            d_location = scaled(d_location, b_g)
            d_scale = scaled(d_scale, b_g)
            b_target += scaled(d_target, b_g)
        if p_d_location is not None:
            tl.store(p_d_location + o, d_location, mask=m_tile)
        if p_d_scale is not None:
            tl.store(p_d_scale + o, d_scale, mask=m_tile)
        b_shared += d_scale
    if p_d_target is not None:
        tl.store(p_d_target + o_item, b_target, mask=m_tile)
    if p_partial is not None:
        tl.store(p_partial + i, tl.sum(tl.sum(b_shared, 1), 0))
