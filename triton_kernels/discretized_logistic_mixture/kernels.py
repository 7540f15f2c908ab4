"""Triton kernels of the discretized logistic mixture: nats with their gradients, and samples.

A program takes a stretch of the pixels of one image. Parameters (N, planes K, pixels) have any
strides, planes as [logits, then for each colour means, log-scales and, of three colours,
coefficients]. Formulas and their names: csrc/discretized_logistic_mixture.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import (
    exp,
    expm1_parts,
    log_normal_range,
    philox_words,
)

_SIZES = ["K", "pixels", "blocks", "levels", "x_n", "x_c", "x_p"]
# Widths below which log(1 - e^-d) is log d; the product of three over four each is a normal number,
# and above what _log takes for 0.
_NARROW, _NARROW_DOUBLE = tl.constexpr(2.0**-38), tl.constexpr(2.0**-300)
_LOG_NARROW, _LOG_NARROW_DOUBLE = (
    tl.constexpr(-26.33959286127792),
    tl.constexpr(-207.94415416798357),
)
_LEAST, _LEAST_DOUBLE = tl.constexpr(1e-37), tl.constexpr(1e-300)


@triton.jit
def _decay(y):
    """e^-y and 1 - e^-y for y >= 0, neither by a difference."""
    e = exp(-y)
    m, _ = expm1_parts(-y, e)
    return e, -m


@triton.jit
def _log(x):
    """log x for x in [0, 1e30]; of less than the normal range, -inf."""
    LEAST: tl.constexpr = _LEAST_DOUBLE if x.dtype == tl.float64 else _LEAST
    return tl.where(x < LEAST, float("-inf"), log_normal_range(tl.maximum(x, LEAST)))


@triton.jit
def _plane(p_params, o_x, j, k, K, x_c, mask, DTYPE: tl.constexpr):
    return tl.load(p_params + o_x + (j * K + k) * x_c, mask, 0.0).to(DTYPE)


@triton.jit
def _coupling(k):
    """tanh k in float64, and its slope: 1 - 2 F and 4 F (1 - F), F = 1 / (1 + e^2k)."""
    y = tl.minimum(tl.maximum(k, -40.0), 40.0).to(tl.float64)
    f = tl.exp(2.0 * y)
    F = 1.0 / (1.0 + f)
    return 1.0 - 2.0 * F, (4.0 * F * (f * F)).to(k.dtype)


@triton.jit
def _colour(value, Z, raw, last):
    """linear and quotient of log P = linear + log(quotient), and its slopes, of one colour."""
    s = tl.maximum(raw, -7.0, propagate_nan=tl.PropagateNan.ALL)
    t = exp(-s)
    tau = t / last
    first = value == -last
    end = first | (value == last)
    away = tl.abs(Z)
    g = 1.0 - tl.where(end, tl.where(first, -Z, Z), away)
    far = g <= 0.0
    e, _ = _decay(tau * tl.abs(g))
    NARROW: tl.constexpr = _NARROW_DOUBLE if s.dtype == tl.float64 else _NARROW
    LOG_NARROW: tl.constexpr = _LOG_NARROW_DOUBLE if s.dtype == tl.float64 else _LOG_NARROW
    width = tl.maximum(2.0 * tau, NARROW)
    d_rest, d_gone = _decay(width)
    c_rest, c_gone = _decay(2.0 * tau * away)
    other = tl.where(end, 0.0, e * tl.where(far, d_rest, c_rest))
    bottom = (1.0 + e) * (1.0 + other)
    top = tl.where(end, 1.0, d_gone)
    log_width = log_normal_range(2.0 / last + tl.zeros_like(s)) - s
    narrow = tl.minimum(log_width - LOG_NARROW, 0.0)
    linear = tl.where(far, tau * g, 0.0) + tl.where(end, 0.0, narrow)
    pull = tl.where(end, 1.0, c_gone) * tl.where(far, 1.0, e) / bottom
    both = tl.where(far, 1.0 + other * (2.0 + e), e + other * (1.0 + 2.0 * e)) / bottom
    spread = tau * both + width * d_rest / d_gone
    reach = tl.where(end, -g, away)
    reach = tl.maximum(tl.minimum(reach, 1e30), -1e30)  # infinite times no slope at all is none
    d_log_scale = tau * reach * pull - tl.where(end, 0.0, spread)
    d_log_scale = tl.where(raw < -7.0, 0.0, d_log_scale)
    negative = first | ((end == 0) & (Z < 0.0))
    return linear, top / bottom, t * tl.where(negative, -pull, pull), d_log_scale


@triton.jit
def _mean(p_params, o_x, c: tl.constexpr, k, K, x_c, mask, x0, x1, last, COLOURS: tl.constexpr,
          DTYPE: tl.constexpr):  # fmt: skip
    """Z (float64) of colour c of component k, and slopes of the coefficients it has."""
    EACH: tl.constexpr = 3 if COLOURS == 3 else 2
    mean = _plane(p_params, o_x, 1 + EACH * c, k, K, x_c, mask, DTYPE).to(tl.float64)
    shift = mean * last.to(tl.float64)
    slope_0 = tl.zeros_like(x0)
    slope_1 = tl.zeros_like(x0)
    if c == 1:
        value, slope_0 = _coupling(_plane(p_params, o_x, 3, k, K, x_c, mask, DTYPE))
        shift += value * x0.to(tl.float64)
    if c == 2:
        value, slope_0 = _coupling(_plane(p_params, o_x, 6, k, K, x_c, mask, DTYPE))
        shift += value * x0.to(tl.float64)
        value, slope_1 = _coupling(_plane(p_params, o_x, 9, k, K, x_c, mask, DTYPE))
        shift += value * x1.to(tl.float64)
    return shift, slope_0, slope_1


@triton.jit
def _pixel(p_target, o_target, colour_stride, mask, levels, COLOURS: tl.constexpr,
           DTYPE: tl.constexpr):  # fmt: skip
    """2 v - last of the colours, and whether each v is one of the levels."""
    v = tl.load(p_target + o_target, mask, 0).to(tl.int64)
    valid = (v >= 0) & (v < levels)
    x0 = (2 * v - (levels - 1)).to(DTYPE)
    x1 = x0
    x2 = x0
    if COLOURS == 3:
        v = tl.load(p_target + o_target + colour_stride, mask, 0).to(tl.int64)
        valid = valid & (v >= 0) & (v < levels)
        x1 = (2 * v - (levels - 1)).to(DTYPE)
        v = tl.load(p_target + o_target + 2 * colour_stride, mask, 0).to(tl.int64)
        valid = valid & (v >= 0) & (v < levels)
        x2 = (2 * v - (levels - 1)).to(DTYPE)
    return x0, x1, x2, valid


@triton.jit
def _joint(p_params, o_x, k, K, x_c, mask, x0, x1, x2, largest, last, COLOURS: tl.constexpr,
           DTYPE: tl.constexpr):  # fmt: skip
    """log of weight times probability of component k."""
    EACH: tl.constexpr = 3 if COLOURS == 3 else 2
    linear = _plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE) - largest
    quotient = tl.full(linear.shape, 1.0, DTYPE)
    for c in tl.static_range(COLOURS):
        value = x0 if c == 0 else (x1 if c == 1 else x2)
        shift, _, _ = _mean(p_params, o_x, c, k, K, x_c, mask, x0, x1, last, COLOURS, DTYPE)
        raw = _plane(p_params, o_x, 2 + EACH * c, k, K, x_c, mask, DTYPE)
        Z = (value.to(tl.float64) - shift).to(DTYPE)
        more, factor, _, _ = _colour(value, Z, raw, last)
        linear += more
        quotient *= factor
    return linear + _log(quotient) + (quotient - quotient)  # NaN stays


@triton.jit
def _add(highest, total, term):
    """Running maximum and sum of e^(term - maximum)."""
    new = tl.maximum(highest, term)
    safe = tl.where(new == float("-inf"), 0.0, new)
    return new, total * exp(highest - safe) + exp(term - safe)


@triton.jit(do_not_specialize=_SIZES)
def mixture_nll_kernel(
    p_params, p_target, p_partial, p_gradients,
    K: tl.int64, pixels: tl.int64, blocks: tl.int64, levels: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_p: tl.int64,
    COLOURS: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """p_partial (N, blocks), float64: sums of nats. p_gradients, with the strides of the
    parameters, or None: gradients of the nats."""
    EACH: tl.constexpr = 3 if COLOURS == 3 else 2
    i = tl.program_id(0).to(tl.int64)
    i_n = i // blocks
    o_pixel = (i % blocks) * B + tl.arange(0, B)
    mask = o_pixel < pixels
    o_x = i_n * x_n + o_pixel * x_p
    last = (levels - 1).to(DTYPE)
    o_target = i_n * COLOURS * pixels + o_pixel
    x0, x1, x2, valid = _pixel(p_target, o_target, pixels, mask, levels, COLOURS, DTYPE)
    largest = tl.full((B,), float("-inf"), DTYPE)
    for k in range(K):
        largest = tl.maximum(largest, _plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE))
    prior = tl.zeros((B,), DTYPE)
    total = tl.zeros((B,), DTYPE)
    highest = tl.full((B,), float("-inf"), DTYPE)
    for k in range(K):
        prior += exp(_plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE) - largest)
        joint = _joint(p_params, o_x, k, K, x_c, mask, x0, x1, x2, largest, last, COLOURS, DTYPE)
        highest, total = _add(highest, total, joint)
    log_total = tl.where(highest == float("-inf"), highest, highest + _log(total))
    nats = tl.where(valid, _log(prior) - log_total, float("nan"))
    tl.store(p_partial + i, tl.sum(tl.where(mask, nats, 0.0).to(tl.float64), 0))
    if p_gradients is not None:
        for k in range(K):
            weight = exp(_plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE) - largest) / prior
            joint = _joint(
                p_params, o_x, k, K, x_c, mask, x0, x1, x2, largest, last, COLOURS, DTYPE
            )
            share = tl.where(valid, exp(joint - log_total), float("nan"))
            o_k = o_x + k * x_c
            tl.store(p_gradients + o_k, weight - share, mask)
            for c in tl.static_range(COLOURS):
                value = x0 if c == 0 else (x1 if c == 1 else x2)
                shift, slope_0, slope_1 = _mean(
                    p_params, o_x, c, k, K, x_c, mask, x0, x1, last, COLOURS, DTYPE
                )
                raw = _plane(p_params, o_x, 2 + EACH * c, k, K, x_c, mask, DTYPE)
                Z = (value.to(tl.float64) - shift).to(DTYPE)
                _, _, d_mean, d_log_scale = _colour(value, Z, raw, last)
                o_c = o_k + EACH * c * K * x_c
                tl.store(p_gradients + o_c + K * x_c, -share * d_mean, mask)
                tl.store(p_gradients + o_c + 2 * K * x_c, -share * d_log_scale, mask)
                if c == 1:
                    d = -share * d_mean * (x0 / last) * slope_0
                    tl.store(p_gradients + o_k + 3 * K * x_c, d, mask)
                if c == 2:
                    d = -share * d_mean * (x0 / last) * slope_0
                    tl.store(p_gradients + o_k + 6 * K * x_c, d, mask)
                    d = -share * d_mean * (x1 / last) * slope_1
                    tl.store(p_gradients + o_k + 9 * K * x_c, d, mask)


@triton.jit(do_not_specialize=["size", "blocks"])
def mixture_scale_kernel(
    p_gradients, p_upstream, p_d_params, size: tl.int64, blocks: tl.int64,
    DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """d[n] = upstream[n] gradients[n], of images of `size` elements."""
    i = tl.program_id(0).to(tl.int64)
    i_n = i // blocks
    o = (i % blocks) * B + tl.arange(0, B)
    factor = tl.load(p_upstream + i_n).to(DTYPE)
    value = tl.load(p_gradients + i_n * size + o, o < size, 0.0).to(DTYPE)
    tl.store(p_d_params + i_n * size + o, factor * value, o < size)


@triton.jit
def _uniform(p_noise, seed, o, mask, DTYPE: tl.constexpr):
    """Given numbers, or those of the stream: 2^-31 fl(word >> 1) + 2^-32."""
    if p_noise is not None:
        return tl.load(p_noise + o, mask, 0.5).to(DTYPE)
    else:
        w0, w1, w2, w3 = philox_words(seed, o >> 2)
        low = tl.where((o & 1) != 0, w1, w0)
        high = tl.where((o & 1) != 0, w3, w2)
        word = tl.where((o & 2) != 0, high, low)
        u = (word >> 1).to(tl.int32).to(tl.float32) * 4.656612873077393e-10
        return (u + 2.3283064365386963e-10).to(DTYPE)


@triton.jit(do_not_specialize=[*_SIZES, "temperature"])
def mixture_sample_kernel(
    p_params, p_noise, p_seed, p_samples,
    K: tl.int64, pixels: tl.int64, blocks: tl.int64, levels: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_p: tl.int64, temperature: tl.float64,
    COLOURS: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    EACH: tl.constexpr = 3 if COLOURS == 3 else 2
    i = tl.program_id(0).to(tl.int64)
    i_n = i // blocks
    o_pixel = (i % blocks) * B + tl.arange(0, B)
    mask = o_pixel < pixels
    o_x = i_n * x_n + o_pixel * x_p
    o_noise = i_n * (1 + COLOURS) * pixels + o_pixel
    seed = 0
    if p_seed is not None:
        seed = tl.load(p_seed)
    spread = tl.full((1,), temperature, DTYPE)
    inverse = 1.0 / tl.maximum(spread, 1e-30)
    largest = tl.full((B,), float("-inf"), DTYPE)
    for k in range(K):
        largest = tl.maximum(largest, _plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE))
    total = tl.zeros((B,), DTYPE)
    for k in range(K):
        logit = _plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE) - largest
        total += exp(logit * inverse)
    limit = _uniform(p_noise, seed, o_noise, mask, DTYPE) * total
    total = tl.zeros((B,), DTYPE)
    chosen = tl.zeros((B,), tl.int64)
    for k in range(K - 1):
        logit = _plane(p_params, o_x, 0, k, K, x_c, mask, DTYPE) - largest
        total += exp(logit * inverse)
        chosen += tl.where(total <= limit, 1, 0)
    last = (levels - 1).to(DTYPE)
    x0 = tl.zeros((B,), DTYPE)
    x1 = tl.zeros((B,), DTYPE)
    for c in tl.static_range(COLOURS):
        shift, _, _ = _mean(p_params, o_x, c, chosen, K, x_c, mask, x0, x1, last, COLOURS, DTYPE)
        raw = _plane(p_params, o_x, 2 + EACH * c, chosen, K, x_c, mask, DTYPE)
        u = _uniform(p_noise, seed, o_noise + (1 + c) * pixels, mask, DTYPE)
        u = tl.minimum(tl.maximum(u, 2.0**-32), 1.0 - 2.0**-24)
        logistic = log_normal_range(u) - log_normal_range(1.0 - u)
        noise = spread * exp(tl.maximum(raw, -7.0)) * logistic
        v = (shift.to(DTYPE) + (noise + 1.0) * last) * 0.5
        v = tl.floor(tl.minimum(tl.maximum(v, 0.0), last) + 0.5)
        if c == 0:
            x0 = 2.0 * v - last
        else:
            x1 = 2.0 * v - last
        o_out = (i_n * COLOURS + c) * pixels + o_pixel
        tl.store(p_samples + o_out, v.to(tl.int32).to(p_samples.dtype.element_ty), mask)
