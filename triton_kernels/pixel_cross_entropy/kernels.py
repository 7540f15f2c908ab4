"""Triton kernels of the pixel cross-entropy of logits that are there, and the sums over images.

nats[n, c, p] = log sum_l exp a[n, c, l, p] - a[n, c, t, p]     van den Oord et al. 2016, sec. 2.2
d_a[n, c, l, p] = up[n] (exp(a - maximum) scale - (l == t)),  scale = 1 / sum_l exp(a - maximum)

a has any strides over (n, c, l, p); targets, nats, maximum and scale are dense (N, C, pixels). A
program takes BP pixels of one plane (n, c) and goes over its levels BL at a time.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, log_normal_range

RUNTIME = ["C", "levels", "pixels", "blocks", "a_n", "a_c", "a_l", "a_p"]


@triton.jit
def start_columns(BP: tl.constexpr, DTYPE: tl.constexpr):
    """Maximum, total and picked logit of no level at all."""
    return (
        tl.full((BP,), float("-inf"), DTYPE),
        tl.zeros((BP,), DTYPE),
        tl.zeros((BP,), DTYPE),
    )


@triton.jit
def finite_maximum(maximum):
    """What is subtracted before exp: levels of -inf alone have the maximum -inf."""
    return tl.where(maximum == float("-inf"), tl.zeros_like(maximum), maximum)


@triton.jit
def add_levels(b_a, is_target, maximum, total, picked):
    """Adds levels (BP, BL), -inf where there is none, to what each pixel has so far."""
    top = tl.maximum(maximum, tl.max(b_a, 1))
    base = finite_maximum(top)
    total = total * exp(maximum - base) + tl.sum(exp(b_a - base[:, None]), 1)
    picked += tl.sum(tl.where(is_target, b_a, 0.0), 1)
    return top, total, picked


@triton.jit
def put_columns(p_nats, p_maximum, p_scale, o_t, mask, t, levels, maximum, total, picked):
    """Writes nats, NaN where the target is no level, and what the backward pass needs."""
    base = finite_maximum(maximum)
    is_good = (total > 0.0) & (t >= 0) & (t < levels)
    # The polynomial takes no 0 and no NaN: all levels are -inf, or one is NaN or inf.
    safe = tl.where(total > 0.0, total, tl.full(total.shape, 1.0, total.dtype))
    nats = log_normal_range(safe) - (picked - base)
    nats = tl.where(is_good, nats, tl.full(nats.shape, float("nan"), nats.dtype))
    tl.store(p_nats + o_t, nats, mask)
    if p_maximum is not None:
        tl.store(p_maximum + o_t, base, mask)
        tl.store(p_scale + o_t, 1.0 / total, mask)


@triton.jit
def _plane(i, C, pixels, blocks, a_n, a_c, a_p, BP: tl.constexpr):
    """Image, offsets of BP pixels in the logits and in dense (N, C, pixels), and their mask."""
    i_plane = i // blocks
    o_p = (i % blocks) * BP + tl.arange(0, BP)
    o_a = (i_plane // C) * a_n + (i_plane % C) * a_c + o_p * a_p
    return i_plane // C, o_a, i_plane * pixels + o_p, o_p < pixels


@triton.jit(do_not_specialize=RUNTIME)
def pixel_cross_entropy_logits_kernel(
    p_a, p_t, p_nats, p_maximum, p_scale,
    C: tl.int64, levels: tl.int64, pixels: tl.int64, blocks: tl.int64,
    a_n: tl.int64, a_c: tl.int64, a_l: tl.int64, a_p: tl.int64,
    DTYPE: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    _, o_a, o_t, mask = _plane(i, C, pixels, blocks, a_n, a_c, a_p, BP)
    t = tl.load(p_t + o_t, mask, 0).to(tl.int64)
    maximum, total, picked = start_columns(BP, DTYPE)
    level = levels * 0
    while level < levels:
        o_l = level + tl.arange(0, BL)
        m_a = mask[:, None] & (o_l < levels)[None, :]
        b_a = tl.load(p_a + o_a[:, None] + (o_l * a_l)[None, :], m_a, float("-inf")).to(DTYPE)
        is_target = (t[:, None] == o_l[None, :]) & m_a
        maximum, total, picked = add_levels(b_a, is_target, maximum, total, picked)
        level += BL
    put_columns(p_nats, p_maximum, p_scale, o_t, mask, t, levels, maximum, total, picked)


@triton.jit(do_not_specialize=[*RUNTIME, "up_n", "d_n", "d_c", "d_l", "d_p"])
def pixel_cross_entropy_logits_backward_kernel(
    p_up, p_a, p_t, p_maximum, p_scale, p_d,
    C: tl.int64, levels: tl.int64, pixels: tl.int64, blocks: tl.int64, up_n: tl.int64,
    a_n: tl.int64, a_c: tl.int64, a_l: tl.int64, a_p: tl.int64,
    d_n: tl.int64, d_c: tl.int64, d_l: tl.int64, d_p: tl.int64,
    DTYPE: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    n, o_a, o_t, mask = _plane(i, C, pixels, blocks, a_n, a_c, a_p, BP)
    _, o_d, _, _ = _plane(i, C, pixels, blocks, d_n, d_c, d_p, BP)
    t = tl.load(p_t + o_t, mask, 0).to(tl.int64)
    up = tl.load(p_up + n * up_n).to(DTYPE)
    maximum = tl.load(p_maximum + o_t, mask, 0.0)
    factor = up * tl.load(p_scale + o_t, mask, 0.0)
    level = levels * 0
    while level < levels:
        o_l = level + tl.arange(0, BL)
        m_a = mask[:, None] & (o_l < levels)[None, :]
        b_a = tl.load(p_a + o_a[:, None] + (o_l * a_l)[None, :], m_a, 0.0).to(DTYPE)
        b_d = factor[:, None] * exp(b_a - maximum[:, None])
        b_d = tl.where(t[:, None] == o_l[None, :], b_d - up, b_d)
        tl.store(p_d + o_d[:, None] + (o_l * d_l)[None, :], b_d.to(p_d.dtype.element_ty), m_a)
        level += BL


@triton.jit(do_not_specialize=["length"])
def pixel_cross_entropy_sum_kernel(
    p_nats, p_y, length: tl.int64, DTYPE: tl.constexpr, B: tl.constexpr
):
    """y[n] = sum of nats[n, :], in an order that the length alone fixes."""
    n = tl.program_id(0).to(tl.int64)
    sums = tl.zeros((B,), DTYPE)
    start = length * 0
    while start < length:
        o = start + tl.arange(0, B)
        sums += tl.load(p_nats + n * length + o, o < length, 0.0)
        start += B
    tl.store(p_y + n, tl.sum(sums, 0).to(p_y.dtype.element_ty))
