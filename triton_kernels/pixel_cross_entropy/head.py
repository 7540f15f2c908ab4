"""Triton kernels of the pixel cross-entropy of the features that a 1x1 head reads.

a[q, r] = b[r] + sum_{k < seen(c)} w[r, k] x[q, k]     r = c levels + l, q a pixel of the batch
d_x[q, k] = sum_{r: k < seen(c)} g[q, r] w[r, k],  d_w[r, k] = sum_q g[q, r] x[q, k], g = d_a

Forward, no logit leaves its program. Backward, g of a chunk of pixels (a few MB, in the type of
sums) is written and read by the two products that need it; chunks follow one another. Pixels q of
all images in one row, image n = q // pixels; x has any strides over (n, k, p), w is dense. F and T
are the `Facts` and `Tile` of plan.py. Dead blocks are not loaded: what a mask hides cannot leak.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp
from genkern.triton_kernels.pixel_cross_entropy.kernels import (
    add_levels,
    put_columns,
    start_columns,
)

RUNTIME = ["total", "pixels", "begin", "end", "levels", "K", "tiles", "x_n", "x_k", "x_p"]


@triton.jit
def seen(c, K, F: tl.constexpr):
    """Features that the logits of colour c are made of."""
    return tl.cdiv(K * (c + 1), F.COLOURS) if F.MASKED else K


@triton.jit
def dot(b_a, b_b, b_acc, F: tl.constexpr):
    return tl.dot(b_a, b_b, b_acc, input_precision=F.PRECISION, out_dtype=F.ACC)


@triton.jit
def dot_slopes(b_g, b_b, b_acc, F: tl.constexpr):
    """b_acc + b_g b_b with b_g in the type of sums: two operands of half precision hold it, a
    rounded value and the rest, and nothing but the rest's own rounding is lost."""
    b_high = b_g.to(F.DOT)
    if F.SPLIT:
        b_low = (b_g - b_high.to(F.ACC)).to(F.DOT)
        b_acc = dot(b_low, b_b, b_acc, F)
    return dot(b_high, b_b, b_acc, F)


@triton.jit
def pixel_offsets(o_q, pixels, x_n, x_p):
    n = o_q // pixels
    return n * x_n + (o_q - n * pixels) * x_p


@triton.jit
def logits(p_x, p_w, p_b, o_x, m_q, o_l, m_l, c, levels, K, x_k, F: tl.constexpr, T: tl.constexpr):
    """a (BP, BL) of levels o_l of colour c."""
    BP: tl.constexpr = T.pixels
    BL: tl.constexpr = T.levels
    b_acc = tl.zeros((BP, BL), F.ACC)
    o_r = c * levels + o_l
    k = K * 0
    end = seen(c, K, F)
    while k < end:
        o_k = k + tl.arange(0, T.features)
        m_k = o_k < end
        b_x = tl.load(p_x + o_x[:, None] + (o_k * x_k)[None, :], m_q[:, None] & m_k[None, :], 0.0)
        b_w = tl.load(p_w + (o_r * K)[None, :] + o_k[:, None], m_k[:, None] & m_l[None, :], 0.0)
        b_acc = dot(b_x.to(F.DOT), b_w.to(F.DOT), b_acc, F)
        k += T.features
    if p_b is not None:
        b_acc += tl.load(p_b + o_r, m_l, 0.0).to(F.ACC)[None, :]
    return b_acc


@triton.jit
def target_offsets(o_q, c, pixels, F: tl.constexpr):
    """In dense (N, C, pixels)."""
    n = o_q // pixels
    return (n * F.COLOURS + c) * pixels + o_q - n * pixels


@triton.jit(do_not_specialize=RUNTIME)
def pixel_cross_entropy_head_kernel(
    p_x, p_w, p_b, p_t, p_nats, p_maximum, p_scale,
    total: tl.int64, pixels: tl.int64, levels: tl.int64, K: tl.int64,
    x_n: tl.int64, x_k: tl.int64, x_p: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """A program: T.pixels pixels, one colour."""
    i = tl.program_id(0).to(tl.int64)
    c = i % F.COLOURS
    o_q = i // F.COLOURS * T.pixels + tl.arange(0, T.pixels)
    m_q = o_q < total
    o_x = pixel_offsets(o_q, pixels, x_n, x_p)
    o_t = target_offsets(o_q, c, pixels, F)
    t = tl.load(p_t + o_t, m_q, 0).to(tl.int64)
    maximum, sums, picked = start_columns(T.pixels, F.ACC)
    level = levels * 0
    while level < levels:
        o_l = level + tl.arange(0, T.levels)
        m_l = o_l < levels
        b_a = logits(p_x, p_w, p_b, o_x, m_q, o_l, m_l, c, levels, K, x_k, F, T)
        b_a = tl.where(m_l[None, :], b_a, float("-inf"))
        is_target = (t[:, None] == o_l[None, :]) & m_l[None, :]
        maximum, sums, picked = add_levels(b_a, is_target, maximum, sums, picked)
        level += T.levels
    put_columns(p_nats, p_maximum, p_scale, o_t, m_q, t, levels, maximum, sums, picked)


@triton.jit(do_not_specialize=[*RUNTIME, "up_n"])
def pixel_cross_entropy_slopes_kernel(
    p_up, p_x, p_w, p_b, p_t, p_maximum, p_scale, p_g,
    pixels: tl.int64, begin: tl.int64, end: tl.int64, levels: tl.int64, K: tl.int64,
    tiles: tl.int64, up_n: tl.int64, x_n: tl.int64, x_k: tl.int64, x_p: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """g (end - begin, C levels) of the pixels [begin, end); a program: T.pixels x T.levels."""
    i = tl.program_id(0).to(tl.int64)
    c = i // tiles % F.COLOURS
    o_l = i % tiles * T.levels + tl.arange(0, T.levels)
    m_l = o_l < levels
    o_q = begin + i // (tiles * F.COLOURS) * T.pixels + tl.arange(0, T.pixels)
    m_q = o_q < end
    o_x = pixel_offsets(o_q, pixels, x_n, x_p)
    o_t = target_offsets(o_q, c, pixels, F)
    t = tl.load(p_t + o_t, m_q, 0).to(tl.int64)
    up = tl.load(p_up + o_q // pixels * up_n, m_q, 0.0).to(F.ACC)
    maximum = tl.load(p_maximum + o_t, m_q, 0.0)
    factor = up * tl.load(p_scale + o_t, m_q, 0.0)
    b_a = logits(p_x, p_w, p_b, o_x, m_q, o_l, m_l, c, levels, K, x_k, F, T)
    b_g = factor[:, None] * exp(b_a - maximum[:, None])
    b_g = tl.where(t[:, None] == o_l[None, :], b_g - up[:, None], b_g)
    o_g = ((o_q - begin) * F.COLOURS + c) * levels
    tl.store(p_g + o_g[:, None] + o_l[None, :], b_g, m_q[:, None] & m_l[None, :])


@triton.jit(do_not_specialize=RUNTIME)
def pixel_cross_entropy_features_kernel(
    p_g, p_w, p_d,
    pixels: tl.int64, begin: tl.int64, end: tl.int64, levels: tl.int64, K: tl.int64,
    tiles: tl.int64, x_n: tl.int64, x_k: tl.int64, x_p: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """d_x of the pixels [begin, end); a program: T.pixels x T.levels features."""
    i = tl.program_id(0).to(tl.int64)
    o_k = i % tiles * T.levels + tl.arange(0, T.levels)
    o_q = begin + i // tiles * T.pixels + tl.arange(0, T.pixels)
    m_q = o_q < end
    BP: tl.constexpr = T.pixels
    BL: tl.constexpr = T.levels
    b_acc = tl.zeros((BP, BL), F.ACC)
    for c in range(F.COLOURS):
        m_k = o_k < seen(c, K, F)
        level = levels * 0
        while level < levels:
            o_l = level + tl.arange(0, T.features)
            m_l = o_l < levels
            o_g = ((o_q - begin) * F.COLOURS + c) * levels
            b_g = tl.load(p_g + o_g[:, None] + o_l[None, :], m_q[:, None] & m_l[None, :], 0.0)
            o_w = (c * levels + o_l) * K
            b_w = tl.load(p_w + o_w[:, None] + o_k[None, :], m_l[:, None] & m_k[None, :], 0.0)
            b_acc = dot_slopes(b_g, b_w.to(F.DOT), b_acc, F)
            level += T.features
    o_d = pixel_offsets(o_q, pixels, x_n, x_p)
    m_d = m_q[:, None] & (o_k < K)[None, :]
    tl.store(p_d + o_d[:, None] + (o_k * x_k)[None, :], b_acc.to(p_d.dtype.element_ty), m_d)


@triton.jit(do_not_specialize=[*RUNTIME, "splits", "rows"])
def pixel_cross_entropy_weight_kernel(
    p_g, p_x, p_part, p_bias_part,
    pixels: tl.int64, begin: tl.int64, end: tl.int64, rows: tl.int64, K: tl.int64,
    tiles: tl.int64, splits: tl.int64, x_n: tl.int64, x_k: tl.int64, x_p: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """part[s, r, k] += sum_q g[q, r] x[q, k],  bias part[s, r] += sum_q g[q, r],  q in part s

    A program: T.pixels rows x T.levels features of one of `splits` parts of [begin, end).
    """
    i = tl.program_id(0).to(tl.int64)
    o_k = i % tiles * T.levels + tl.arange(0, T.levels)
    s = i // tiles % splits
    o_r = i // (tiles * splits) * T.pixels + tl.arange(0, T.pixels)
    m_r, m_k = o_r < rows, o_k < K
    q = begin + (end - begin) * s // splits
    last = begin + (end - begin) * (s + 1) // splits
    BP: tl.constexpr = T.pixels
    BL: tl.constexpr = T.levels
    b_acc = tl.zeros((BP, BL), F.ACC)
    b_bias = tl.zeros((BP,), F.ACC)
    while q < last:
        o_q = q + tl.arange(0, T.features)
        m_q = o_q < last
        o_g = (o_q - begin) * rows
        b_g = tl.load(p_g + o_g[None, :] + o_r[:, None], m_q[None, :] & m_r[:, None], 0.0)
        b_bias += tl.sum(b_g, 1)
        if p_part is not None:
            o_x = pixel_offsets(o_q, pixels, x_n, x_p)
            m_x = m_q[:, None] & m_k[None, :]
            b_x = tl.load(p_x + o_x[:, None] + (o_k * x_k)[None, :], m_x, 0.0)
            b_acc = dot_slopes(b_g, b_x.to(F.DOT), b_acc, F)
        q += T.features
    if p_part is not None:
        to = p_part + ((s * rows + o_r) * K)[:, None] + o_k[None, :]
        m_part = m_r[:, None] & m_k[None, :]
        tl.store(to, tl.load(to, m_part, 0.0) + b_acc, m_part)
    if p_bias_part is not None:
        to = p_bias_part + s * rows + o_r
        m_bias = m_r & (i % tiles == 0)
        tl.store(to, tl.load(to, m_bias, 0.0) + b_bias, m_bias)


@triton.jit(do_not_specialize=["splits", "rows", "levels", "K", "w_r", "w_k", "programs"])
def pixel_cross_entropy_parts_kernel(
    p_part, p_bias_part, p_dw, p_db, splits: tl.int64, rows: tl.int64, levels: tl.int64,
    K: tl.int64, w_r: tl.int64, w_k: tl.int64, programs: tl.int64,
    F: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """dw[r, k] = sum_s part[s, r, k] where colour r // levels sees k, else 0;  db[r] likewise

    Sums run in order of s. The first `programs` programs form dw, the others db.
    """
    i = tl.program_id(0).to(tl.int64)
    b_sum = tl.zeros((B,), F.ACC)
    if i < programs:
        if p_part is not None:
            o_e = i * B + tl.arange(0, B)
            o_r, o_k = o_e // K, o_e % K
            m_e = o_e < rows * K
            m_live = m_e & (o_k < seen(o_r // levels, K, F))
            for s in range(splits):
                b_sum += tl.load(p_part + s * rows * K + o_e, m_live, 0.0)
            tl.store(p_dw + o_r * w_r + o_k * w_k, b_sum.to(p_dw.dtype.element_ty), m_e)
    else:
        if p_bias_part is not None:
            o_b = (i - programs) * B + tl.arange(0, B)
            for s in range(splits):
                b_sum += tl.load(p_bias_part + s * rows + o_b, o_b < rows, 0.0)
            tl.store(p_db + o_b, b_sum.to(p_db.dtype.element_ty), o_b < rows)
