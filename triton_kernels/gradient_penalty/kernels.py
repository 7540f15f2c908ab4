"""Triton kernels of the gradient penalties. Gradients g (N, D), contiguous.

    p_n = w (r_n - t)^2, one-sided w max(r_n - t, 0)^2, or w r_n^2 / 2,    r_n = ||g_n||

With c = P'(r) / r and e = r c'(r), both 0 at r = 0: d_g = u c g; of second order, for a gradient h
of d_g, d_u = c <g, h> and d_g = u (c h + e <g / r, h> g / r). Sums are in float64: no square
overflows there, and none vanishes. Formulas and names: csrc/gradient_penalty/gradient_penalty.h.
"""

import triton
import triton.language as tl

_RUNTIME = ["N", "D", "splits", "tiles", "target", "weight", "share"]


@triton.jit
def _excess(r, target, ONE_SIDED: tl.constexpr):
    """r - t, 0 where a one-sided penalty is."""
    excess = r - target
    if ONE_SIDED:
        excess = tl.where(r <= target, 0.0, excess)
    return excess


@triton.jit
def _slope(r, target, weight, OF_SQUARE: tl.constexpr, ONE_SIDED: tl.constexpr):
    """c"""
    if OF_SQUARE:
        return weight + 0.0 * r
    else:
        is_zero = r == 0.0
        found = 2.0 * weight * _excess(r, target, ONE_SIDED) / tl.where(is_zero, 1.0, r)
        # The quotient of infinities is 1 in the limit.
        found = tl.where(r == float("inf"), 2.0 * weight, found)
        return tl.where(is_zero, 0.0, found)


@triton.jit
def _bend(r, target, weight, OF_SQUARE: tl.constexpr, ONE_SIDED: tl.constexpr):
    """e"""
    if OF_SQUARE:
        return 0.0 * r
    else:
        is_zero = r == 0.0
        if ONE_SIDED:
            is_zero = is_zero | (r <= target)
        return tl.where(is_zero, 0.0, 2.0 * weight * target / tl.where(is_zero, 1.0, r))


@triton.jit
def _wide(x):
    """Half precision by way of float32."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32).to(tl.float64)


@triton.jit(do_not_specialize=_RUNTIME)
def gradient_penalty_sums_kernel(
    p_a, p_b, p_sums, D: tl.int64, splits: tl.int64, tiles: tl.int64, B: tl.constexpr,
):  # fmt: skip
    """p_sums (N, splits), float64: of each row sum a b over a part of `tiles` tiles."""
    i = tl.program_id(0).to(tl.int64)
    row = i // splits
    start = i % splits * tiles * B
    end = tl.minimum(D, start + tiles * B)
    b_sum = tl.zeros((B,), tl.float64)
    while start < end:
        o = start + tl.arange(0, B)
        a = tl.load(p_a + row * D + o, o < end, 0.0)
        b = tl.load(p_b + row * D + o, o < end, 0.0)
        b_sum += _wide(a) * _wide(b)
        start += B
    tl.store(p_sums + i, tl.sum(b_sum, 0))


@triton.jit
def _row_sums(p_sums, o, mask, splits):
    """The parts of each row, in order."""
    found = tl.load(p_sums + o * splits, mask, 0.0)
    part = tl.full((), 1, tl.int64)
    while part < splits:
        found += tl.load(p_sums + o * splits + part, mask, 0.0)
        part += 1
    return found


@triton.jit(do_not_specialize=_RUNTIME)
def gradient_penalty_items_kernel(
    p_sums, p_norms, p_target, p_out, p_products,
    N: tl.int64, splits: tl.int64, target: tl.float64, weight: tl.float64, share: tl.float64,
    SECOND: tl.constexpr, REDUCES: tl.constexpr, OF_SQUARE: tl.constexpr, ONE_SIDED: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    """One program. The penalty of each item, or of all, from the squares in p_sums; it writes
    p_norms. SECOND: d_u from the products <g, h> in p_sums; it reads p_norms and writes p_products.
    """
    if p_target is not None:
        target = tl.load(p_target)
    total = tl.zeros((B,), tl.float64)
    start = tl.full((), 0, tl.int64)
    while start < N:
        o = start + tl.arange(0, B)
        found = _row_sums(p_sums, o, o < N, splits)
        if SECOND:
            r = tl.load(p_norms + o, o < N, 0.0)
            tl.store(p_products + o, found, o < N)
            value = _slope(r, target, weight, OF_SQUARE, ONE_SIDED) * found
        else:
            r = tl.sqrt(found)
            tl.store(p_norms + o, r, o < N)
            if OF_SQUARE:
                value = 0.5 * weight * found
            else:
                excess = _excess(r, target, ONE_SIDED)
                value = weight * excess * excess
        if REDUCES:
            total += tl.where(o < N, value, 0.0)
        elif p_out is not None:
            tl.store(p_out + o, value.to(p_out.dtype.element_ty), o < N)
        start += B
    if REDUCES:
        if p_out is not None:
            tl.store(p_out, (tl.sum(total, 0) * share).to(p_out.dtype.element_ty))


@triton.jit(do_not_specialize=_RUNTIME)
def gradient_penalty_apply_kernel(
    p_g, p_h, p_up, p_norms, p_products, p_target, p_y,
    D: tl.int64, splits: tl.int64, tiles: tl.int64, target: tl.float64, weight: tl.float64,
    share: tl.float64,
    REDUCES: tl.constexpr, OF_SQUARE: tl.constexpr, ONE_SIDED: tl.constexpr, DTYPE: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    """y = u c g; with h given y = u (c h + e <g / r, h> g / r)."""
    i = tl.program_id(0).to(tl.int64)
    row = i // splits
    if p_target is not None:
        target = tl.load(p_target)
    if REDUCES:
        up = _wide(tl.load(p_up)) * share
    else:
        up = _wide(tl.load(p_up + row))
    r = tl.load(p_norms + row)
    c = tl.full((1,), up * _slope(r, target, weight, OF_SQUARE, ONE_SIDED), DTYPE)
    inverse = tl.where(r == 0.0, 0.0, 1.0 / tl.where(r == 0.0, 1.0, r))
    e = inverse
    if p_h is not None:
        e = up * _bend(r, target, weight, OF_SQUARE, ONE_SIDED)
        e = e * (tl.load(p_products + row) * inverse)
    b_e, b_inverse = tl.full((1,), e, DTYPE), tl.full((1,), inverse, DTYPE)
    start = i % splits * tiles * B
    end = tl.minimum(D, start + tiles * B)
    while start < end:
        o = start + tl.arange(0, B)
        g = tl.load(p_g + row * D + o, o < end, 0.0).to(DTYPE)
        if p_h is None:
            y = c * g
        else:
            y = c * tl.load(p_h + row * D + o, o < end, 0.0).to(DTYPE) + b_e * (b_inverse * g)
        tl.store(p_y + row * D + o, y.to(p_y.dtype.element_ty), o < end)
        start += B
