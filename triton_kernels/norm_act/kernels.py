"""Triton kernels of norm_act. Formulas and names: csrc/norm_act/norm_act.h.

x is (planes, S) in memory, a plane being a channel of an image. A tile is BP planes and BS of
their elements. What holds for a plane (its mean, factors, sums) lies in rows of `planes` numbers.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.activation import jet


@triton.jit
def _place(blocks):
    """The tile of planes and the block of elements of a program, in 32 bits, as their number is: a
    division of 64 bits is a call, which spills."""
    i, count = tl.program_id(0), blocks.to(tl.int32)
    return (i // count).to(tl.int64), (i % count).to(tl.int64)


@triton.jit
def _tile(i_tile, i_block, planes, S, BP: tl.constexpr, BS: tl.constexpr):
    """The planes, their mask, the offsets of the elements and their mask."""
    o_p = i_tile * BP + tl.arange(0, BP)
    o_s = i_block * BS + tl.arange(0, BS)
    m_p = o_p < planes
    return o_p, m_p, o_p[:, None] * S + o_s[None, :], m_p[:, None] & (o_s < S)[None, :]


@triton.jit
def _of_plane(p, row, planes, o_p, m_p):
    return tl.load(p + row * planes + o_p, m_p, 0.0)[:, None]


@triton.jit
def _at(p_x, p_planes, planes, o_p, m_p, o, m, alpha, ACT: tl.constexpr, DTYPE: tl.constexpr):
    """x - mean, and value, slope and curvature of the activation at z."""
    c = tl.load(p_x + o, m, 0.0).to(DTYPE) - _of_plane(p_planes, 0, planes, o_p, m_p)
    scale = _of_plane(p_planes, 1, planes, o_p, m_p)
    value, slope, bend = jet(scale * c + _of_plane(p_planes, 2, planes, o_p, m_p), alpha, ACT)
    return c, value, slope, bend


@triton.jit(do_not_specialize=["planes", "S"])
def norm_act_moments_kernel(
    p_x, p_moments, planes: tl.int64, S: tl.int64,
    DTYPE: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """p_moments (2, planes): the mean of each plane, and the sum of the squares about it."""
    i = tl.program_id(0).to(tl.int64)
    b_sum = tl.zeros((BP, BS), DTYPE)
    i_block = tl.zeros((), tl.int64)
    while i_block * BS < S:
        _, _, o, m = _tile(i, i_block, planes, S, BP, BS)
        b_sum += tl.load(p_x + o, m, 0.0).to(DTYPE)
        i_block += 1
    o_p = i * BP + tl.arange(0, BP)
    mean = tl.sum(b_sum, 1) / S.to(DTYPE)
    b_sum = tl.zeros((BP, BS), DTYPE)
    b_off = tl.zeros((BP, BS), DTYPE)
    i_block = tl.zeros((), tl.int64)
    while i_block * BS < S:
        _, _, o, m = _tile(i, i_block, planes, S, BP, BS)
        c = tl.where(m, tl.load(p_x + o, m, 0.0).to(DTYPE) - mean[:, None], 0.0)
        b_sum += c * c
        b_off += c
        i_block += 1
    off = tl.sum(b_off, 1)  # what the rounded mean is off
    tl.store(p_moments + o_p, mean + off / S.to(DTYPE), o_p < planes)
    tl.store(p_moments + planes + o_p, tl.sum(b_sum, 1) - off * off / S.to(DTYPE), o_p < planes)


@triton.jit(do_not_specialize=["planes", "S", "blocks", "alpha"])
def norm_act_forward_kernel(
    p_x, p_planes, p_y, planes: tl.int64, S: tl.int64, blocks: tl.int64, alpha: tl.float64,
    ACT: tl.constexpr, DTYPE: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """p_planes (3, planes): mean, scale, shift."""
    i_tile, i_block = _place(blocks)
    negative = tl.full((1, 1), alpha, DTYPE)
    o_p, m_p, o, m = _tile(i_tile, i_block, planes, S, BP, BS)
    _, y, _, _ = _at(p_x, p_planes, planes, o_p, m_p, o, m, negative, ACT, DTYPE)
    tl.store(p_y + o, y.to(p_y.dtype.element_ty), m)


@triton.jit(do_not_specialize=["planes", "S", "alpha"])
def norm_act_sums_kernel(
    p_x, p_d, p_g, p_planes, p_terms, p_sums, planes: tl.int64, S: tl.int64, alpha: tl.float64,
    MODE: tl.constexpr, ACT: tl.constexpr, DTYPE: tl.constexpr, BP: tl.constexpr,
    BS: tl.constexpr,
):  # fmt: skip
    """Sums over planes, in rows of p_sums; c = x - mean.

    MODE 0: q, q c. MODE 1: q, q c, g, g c, q g. MODE 2: e, e c, with the first rows of p_terms.
    """
    i = tl.program_id(0).to(tl.int64)
    negative = tl.full((1, 1), alpha, DTYPE)
    b_0 = tl.zeros((BP, BS), DTYPE)
    b_1 = tl.zeros((BP, BS), DTYPE)
    b_2 = tl.zeros((BP, BS), DTYPE)
    b_3 = tl.zeros((BP, BS), DTYPE)
    b_4 = tl.zeros((BP, BS), DTYPE)
    i_block = tl.zeros((), tl.int64)
    while i_block * BS < S:
        o_p, m_p, o, m = _tile(i, i_block, planes, S, BP, BS)
        c, _, slope, bend = _at(p_x, p_planes, planes, o_p, m_p, o, m, negative, ACT, DTYPE)
        d = tl.load(p_d + o, m, 0.0).to(DTYPE)
        g = d
        if p_g is not None:
            g = tl.load(p_g + o, m, 0.0).to(DTYPE)
        if MODE == 2:
            v = _of_plane(p_terms, 1, planes, o_p, m_p) * c
            v += _of_plane(p_terms, 2, planes, o_p, m_p)
            if p_g is not None:
                v += _of_plane(p_terms, 0, planes, o_p, m_p) * g
            q = d * v * bend
        else:
            q = d * slope
        q = tl.where(m, q, 0.0)
        c = tl.where(m, c, 0.0)
        b_0 += q
        b_1 += q * c
        if MODE == 1 and p_g is not None:
            b_2 += g
            b_3 += g * c
            b_4 += q * g
        i_block += 1
    o_p = i * BP + tl.arange(0, BP)
    tl.store(p_sums + o_p, tl.sum(b_0, 1), o_p < planes)
    tl.store(p_sums + planes + o_p, tl.sum(b_1, 1), o_p < planes)
    if MODE == 1:
        tl.store(p_sums + 2 * planes + o_p, tl.sum(b_2, 1), o_p < planes)
        tl.store(p_sums + 3 * planes + o_p, tl.sum(b_3, 1), o_p < planes)
        tl.store(p_sums + 4 * planes + o_p, tl.sum(b_4, 1), o_p < planes)


@triton.jit(do_not_specialize=["planes", "S", "blocks", "alpha"])
def norm_act_backward_kernel(
    p_x, p_d, p_g, p_planes, p_terms, p_d_up, p_d_x,
    planes: tl.int64, S: tl.int64, blocks: tl.int64, alpha: tl.float64,
    SECOND: tl.constexpr, ACT: tl.constexpr, DTYPE: tl.constexpr, BP: tl.constexpr,
    BS: tl.constexpr,
):  # fmt: skip
    """p_terms holds, by row, the factors of q, c and 1 in d_x; of the second order, those of g, c
    and 1 in v, and of e, q, g, c and 1 in d_x."""
    i_tile, i_block = _place(blocks)
    negative = tl.full((1, 1), alpha, DTYPE)
    o_p, m_p, o, m = _tile(i_tile, i_block, planes, S, BP, BS)
    c, _, slope, bend = _at(p_x, p_planes, planes, o_p, m_p, o, m, negative, ACT, DTYPE)
    d = tl.load(p_d + o, m, 0.0).to(DTYPE)
    if SECOND:
        v = _of_plane(p_terms, 1, planes, o_p, m_p) * c
        v += _of_plane(p_terms, 2, planes, o_p, m_p)
        d_x = _of_plane(p_terms, 4, planes, o_p, m_p) * (d * slope)
        d_x += _of_plane(p_terms, 6, planes, o_p, m_p) * c
        d_x += _of_plane(p_terms, 7, planes, o_p, m_p)
        if p_g is not None:
            g = tl.load(p_g + o, m, 0.0).to(DTYPE)
            v += _of_plane(p_terms, 0, planes, o_p, m_p) * g
            d_x += _of_plane(p_terms, 5, planes, o_p, m_p) * g
        if p_d_up is not None:
            tl.store(p_d_up + o, (v * slope).to(p_d_up.dtype.element_ty), m)
        d_x += _of_plane(p_terms, 3, planes, o_p, m_p) * (d * v * bend)
    else:
        d_x = _of_plane(p_terms, 0, planes, o_p, m_p) * (d * slope)
        d_x += _of_plane(p_terms, 1, planes, o_p, m_p) * c
        d_x += _of_plane(p_terms, 2, planes, o_p, m_p)
    if p_d_x is not None:
        tl.store(p_d_x + o, d_x.to(p_d_x.dtype.element_ty), m)


@triton.jit(do_not_specialize=["N", "C", "blocks"])
def norm_act_rows_kernel(
    p_planes, p_labels, p_rows, N: tl.int64, C: tl.int64, blocks: tl.int64,
    DTYPE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """p_rows (classes, C): the sums over the images of a class, in the order of the batch; without
    labels, over all of them."""
    i = tl.program_id(0).to(tl.int64)
    i_class = i // blocks
    o_c = (i % blocks) * BC + tl.arange(0, BC)
    b_sum = tl.zeros((BC,), DTYPE)
    n = tl.zeros((), tl.int64)
    while n < N:
        mask = o_c < C
        if p_labels is not None:
            mask = mask & (tl.load(p_labels + n) == i_class)
        b_sum += tl.load(p_planes + n * C + o_c, mask, 0.0)
        n += 1
    tl.store(p_rows + i_class * C + o_c, b_sum.to(p_rows.dtype.element_ty), o_c < C)
