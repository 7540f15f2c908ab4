"""Triton kernels of the GAN losses. Real logits (n_r,), fake logits (n_f,), contiguous.

A term is a function of one logit with two numbers, scale and target:
    cross-entropy  y = scale (log1p(e^-|x|) + m |x|), m = target for x < 0, else 1 - target
    hinge          y = max(1 + scale x, 0)
    square         y = scale (x - target)^2
    linear         y = scale x
p_smoothing, where it is given, holds the label smoothing: one number, which the host does not read.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, log1p_unit

_RUNTIME = ["n_r", "n_f", "scale_r", "target_r", "scale_f", "target_f", "weight_r", "weight_f"]
_RUNTIME += ["inverse_r", "inverse_f"]


@triton.jit
def _value(x, scale, target, TERM: tl.constexpr):
    if TERM == "cross_entropy":
        # A factor of exactly 0 drops the tail: the limits at +-inf come out as 0, not as NaN.
        m = tl.where(x < 0.0, target, 1.0 - target)
        tail = tl.where(m == 0.0, 0.0, m * tl.abs(x))
        return scale * (log1p_unit(exp(-tl.abs(x))) + tail)
    elif TERM == "hinge":
        return tl.maximum(1.0 + scale * x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif TERM == "square":
        return scale * (x - target) * (x - target)
    else:
        return scale * x


@triton.jit
def _slope(x, scale, target, TERM: tl.constexpr):
    if TERM == "cross_entropy":
        # scale (sigmoid(x) - target), in which neither end of sigmoid loses its small values.
        e = exp(-tl.abs(x))
        low = -scale * target
        high = scale * (1.0 - target)
        return tl.where(x < 0.0, high * e + low, low * e + high) / (1.0 + e)
    elif TERM == "hinge":
        return tl.where(1.0 + scale * x <= 0.0, 0.0, scale)
    elif TERM == "square":
        return 2.0 * scale * (x - target)
    else:
        return tl.zeros_like(x) + scale


@triton.jit
def _tile(start, n, B: tl.constexpr):
    """Offsets of a tile from `start`, and which of them are below `n`."""
    o_x = tl.arange(0, B)
    return o_x, o_x < tl.minimum(n - start, B).to(tl.int32)


@triton.jit
def _sum(
    p_x, p_up, n, shift, scale, target, i, programs,
    TERM: tl.constexpr, SLOPE: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Sum in float64 of the term, or of its slope times p_up, over the tiles i, i + programs, ...

    Terms of 1e-8 and of 1e38 keep their digits there.
    """
    b_sum = tl.zeros((B,), tl.float64)
    shift = tl.full((1,), shift, DTYPE)
    for start in range(i.to(tl.int64) * B, n, programs.to(tl.int64) * B):
        o_x, m_x = _tile(start, n, B)
        b_x = tl.load(p_x + start + o_x, mask=m_x, other=0.0).to(DTYPE) - shift
        if SLOPE:
            b_y = _slope(b_x, scale, target, TERM)
            if p_up is not None:
                b_y *= tl.load(p_up + start + o_x, mask=m_x, other=0.0).to(DTYPE)
        else:
            b_y = _value(b_x, scale, target, TERM)
        b_sum += tl.where(m_x, b_y, 0.0).to(tl.float64)
    return tl.sum(b_sum)


@triton.jit
def _mean(p_x, n, inverse, DTYPE: tl.constexpr, B: tl.constexpr):
    """Mean by one program; `inverse` is 1 / n."""
    one = tl.full((1,), 1.0, DTYPE)
    zero = tl.program_id(1)  # 0 and 1 as run-time numbers
    total = _sum(p_x, None, n, 0.0, one, one, zero, zero + 1, "linear", False, DTYPE, B)
    return total * inverse


@triton.jit
def _shifts(
    p_real, p_fake, p_means, n_r, n_f, inverse_r, inverse_f,
    SHIFT: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """What is subtracted from the real and from the fake logits: the mean of the other ones."""
    if SHIFT == "compute":
        mean_f = _mean(p_fake, n_f, inverse_f, DTYPE, B)
        return mean_f, _mean(p_real, n_r, inverse_r, DTYPE, B)
    elif SHIFT == "load":
        return tl.load(p_means), tl.load(p_means + 1)
    else:
        return 0.0, 0.0


@triton.jit(do_not_specialize=_RUNTIME)
def gan_loss_sum_kernel(
    p_real, p_fake, p_up, p_means, p_smoothing, p_out, p_partial, p_done,
    n_r: tl.int64, n_f: tl.int64, inverse_r: tl.float64, inverse_f: tl.float64,
    scale_r: tl.float64, target_r: tl.float64, scale_f: tl.float64, target_f: tl.float64,
    weight_r: tl.float64, weight_f: tl.float64,
    TERM: tl.constexpr, SLOPE: tl.constexpr, SHIFT: tl.constexpr, PAIR: tl.constexpr,
    DTYPE: tl.constexpr, MAX_PROGRAMS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """out = weight_r sum_i term_r(r_i - [mean f]) + weight_f sum_j term_f(f_j - [mean r])

    Goodfellow et al. 2014, sec. 3; brackets: Jolicoeur-Martineau 2019, sec. 4. r (n_r,), f (n_f,).
    PAIR: the two summands instead, (2,) in float64: fake, real. SLOPE: slopes times p_up instead
    of terms. Every program sums its tiles into p_partial (programs, 2); the one that finishes
    last adds the partial sums up in order.
    """
    if p_smoothing is not None:
        target_r = target_r - tl.load(p_smoothing).to(tl.float64)
    i = tl.program_id(0)
    programs = tl.num_programs(0)
    shift_r, shift_f = _shifts(
        p_real, p_fake, p_means, n_r, n_f, inverse_r, inverse_f, SHIFT, DTYPE, B
    )
    sum_f = _sum(
        p_fake, p_up, n_f, shift_f, tl.full((1,), scale_f, DTYPE), tl.full((1,), target_f, DTYPE),
        i, programs, TERM, SLOPE, DTYPE, B,
    )  # fmt: skip
    sum_r = tl.zeros_like(sum_f)
    if p_real is not None:
        sum_r = _sum(
            p_real, p_up, n_r, shift_r, tl.full((1,), scale_r, DTYPE),
            tl.full((1,), target_r, DTYPE), i, programs, TERM, SLOPE, DTYPE, B,
        )  # fmt: skip
    if MAX_PROGRAMS > 1:
        tl.store(p_partial + 2 * i, sum_f)
        tl.store(p_partial + 2 * i + 1, sum_r)
        tl.debug_barrier()
        last = tl.atomic_add(p_done, 1, sem="acq_rel") == programs - 1
        if last:
            o_part = tl.arange(0, MAX_PROGRAMS)
            m_part = o_part < programs
            p_part = p_partial + 2 * o_part
            sum_f = tl.sum(tl.load(p_part, mask=m_part, other=0.0, volatile=True))
            sum_r = tl.sum(tl.load(p_part + 1, mask=m_part, other=0.0, volatile=True))
            tl.store(p_done, 0)  # for the next launch
    else:
        last = True
    if last:
        if PAIR:
            tl.store(p_out, sum_f * weight_f)
            tl.store(p_out + 1, sum_r * weight_r)
        elif p_real is not None:
            tl.store(p_out, (sum_f * weight_f + sum_r * weight_r).to(DTYPE))
        else:
            tl.store(p_out, (sum_f * weight_f).to(DTYPE))


@triton.jit(do_not_specialize=_RUNTIME)
def gan_loss_terms_kernel(
    p_real, p_fake, p_means, p_smoothing, p_out,
    n_r: tl.int64, n_f: tl.int64, inverse_r: tl.float64, inverse_f: tl.float64,
    scale_r: tl.float64, target_r: tl.float64, scale_f: tl.float64, target_f: tl.float64,
    TERM: tl.constexpr, SHIFT: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """out[i] = term_f(f_i - [mean r]) + term_r(r_i - [mean f]), as above; all (n,)."""
    if p_smoothing is not None:
        target_r = target_r - tl.load(p_smoothing).to(tl.float64)
    shift_r, shift_f = _shifts(
        p_real, p_fake, p_means, n_r, n_f, inverse_r, inverse_f, SHIFT, DTYPE, B
    )
    shift_r, shift_f = tl.full((1,), shift_r, DTYPE), tl.full((1,), shift_f, DTYPE)
    fake = tl.full((1,), scale_f, DTYPE), tl.full((1,), target_f, DTYPE)
    real = tl.full((1,), scale_r, DTYPE), tl.full((1,), target_r, DTYPE)
    i = tl.program_id(0).to(tl.int64)
    for start in range(i * B, n_f, tl.num_programs(0).to(tl.int64) * B):
        o_x, m_x = _tile(start, n_f, B)
        b_x = tl.load(p_fake + start + o_x, mask=m_x, other=0.0).to(DTYPE) - shift_f
        b_y = _value(b_x, fake[0], fake[1], TERM)
        if p_real is not None:
            b_x = tl.load(p_real + start + o_x, mask=m_x, other=0.0).to(DTYPE) - shift_r
            b_y += _value(b_x, real[0], real[1], TERM)
        tl.store(p_out + start + o_x, b_y, mask=m_x)


@triton.jit
def _gradient(
    p_d_x, p_x, p_up, n, shift, scale, target, factor, mean,
    TERM: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """d_x = factor up slope(x - shift) - mean, over this program's tiles."""
    shift = tl.full((1,), shift, DTYPE)
    scale, target = tl.full((1,), scale, DTYPE), tl.full((1,), target, DTYPE)
    mean, factor = tl.full((1,), mean, DTYPE), tl.full((1,), factor, DTYPE)
    i = tl.program_id(0).to(tl.int64)
    for start in range(i * B, n, tl.num_programs(0).to(tl.int64) * B):
        o_x, m_x = _tile(start, n, B)
        b_x = tl.load(p_x + start + o_x, mask=m_x, other=0.0).to(DTYPE) - shift
        b_d_x = factor * _slope(b_x, scale, target, TERM)
        if p_up is not None:
            b_d_x *= tl.load(p_up + start + o_x, mask=m_x, other=0.0).to(DTYPE)
        tl.store(p_d_x + start + o_x, b_d_x - mean, mask=m_x)


@triton.jit(do_not_specialize=_RUNTIME)
def gan_loss_backward_kernel(
    p_d_real, p_d_fake, p_d_loss, p_real, p_fake, p_means, p_slopes, p_smoothing,
    n_r: tl.int64, n_f: tl.int64, inverse_r: tl.float64, inverse_f: tl.float64,
    scale_r: tl.float64, target_r: tl.float64, scale_f: tl.float64, target_f: tl.float64,
    weight_r: tl.float64, weight_f: tl.float64,
    TERM: tl.constexpr, SHIFT: tl.constexpr, ELEMENTWISE: tl.constexpr, DTYPE: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    """d_r_i = up_i term_r'(r_i - [mean f]) - [1/n_r sum_j up_j term_f'(f_j - mean r)], d_f alike

    with up = d_loss (n,), or d_loss weight for a reduced loss; brackets: Jolicoeur-Martineau 2019,
    sec. 4. p_slopes: the two sums of slopes, fake and real, without the weights.
    """
    if p_smoothing is not None:
        target_r = target_r - tl.load(p_smoothing).to(tl.float64)
    p_up = p_d_loss if ELEMENTWISE else None
    factor_r = 1.0
    factor_f = 1.0
    if not ELEMENTWISE:
        upstream = tl.load(p_d_loss).to(tl.float64)
        factor_r = upstream * weight_r
        factor_f = upstream * weight_f
    shift_r, shift_f = _shifts(
        p_real, p_fake, p_means, n_r, n_f, inverse_r, inverse_f, SHIFT, DTYPE, B
    )
    slope_r = 0.0
    slope_f = 0.0
    if SHIFT == "load":
        slope_f = tl.load(p_slopes)
        slope_r = tl.load(p_slopes + 1)
    elif SHIFT == "compute":
        zero = tl.program_id(1)
        slope_f = _sum(
            p_fake, p_up, n_f, shift_f, tl.full((1,), scale_f, DTYPE),
            tl.full((1,), target_f, DTYPE), zero, zero + 1, TERM, True, DTYPE, B,
        )  # fmt: skip
        slope_r = _sum(
            p_real, p_up, n_r, shift_r, tl.full((1,), scale_r, DTYPE),
            tl.full((1,), target_r, DTYPE), zero, zero + 1, TERM, True, DTYPE, B,
        )  # fmt: skip
    if p_d_fake is not None:
        mean = 0.0
        if SHIFT is not None:
            mean = factor_r * slope_r * inverse_f
        _gradient(
            p_d_fake, p_fake, p_up, n_f, shift_f, scale_f, target_f, factor_f, mean,
            TERM, DTYPE, B,
        )  # fmt: skip
    if p_d_real is not None:
        mean = 0.0
        if SHIFT is not None:
            mean = factor_f * slope_f * inverse_r
        _gradient(
            p_d_real, p_real, p_up, n_r, shift_r, scale_r, target_r, factor_r, mean,
            TERM, DTYPE, B,
        )  # fmt: skip
