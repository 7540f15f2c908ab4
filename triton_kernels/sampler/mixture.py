"""Integers from a mixture of discretized logistics (Salimans et al. 2017, sec. 2.1), as draw.py."""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts, log_normal_range
from genkern.triton_kernels.sampler.draw import (
    SIZES,
    begin_step,
    end_step,
    first_true,
    given_or_less,
    keep,
    log_total,
    softplus,
)  # fmt: skip
from genkern.triton_kernels.sampler.kernels import gather


@triton.jit
def _log_chance(mean, log_scale, x, levels):
    """log P(x) of a discretized logistic, x at 2 x / (levels - 1) - 1 (Salimans et al. 2017, sec.
    2.1): log(sigm(p) - sigm(q)) without the difference."""
    t = exp(-tl.where(log_scale < -7.0, -7.0, log_scale))
    half = 1.0 / (levels - 1).to(tl.float64)
    z = 2.0 * half * x.to(tl.float64)[:, None] - 1.0 - mean
    p, q = t * (z + half), t * (z - half)
    width = -2.0 * half * t
    gone, _ = expm1_parts(width, exp(width))
    inside = tl.log(-gone) - softplus(-p) - softplus(q)
    first, last = (x == 0)[:, None], (x == levels - 1)[:, None]
    return tl.where(first, -softplus(-p), tl.where(last, -softplus(q), inside))


@triton.jit
def _plane(j, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants, p_cache,
           CONSTANTS: tl.constexpr):  # fmt: skip
    """Parameter j of all components, (R, components)."""
    return gather(p_output, count, j * K + o_k, o_k < K, place + 0 * n, n, m_n, p_tables,
                  p_constants, p_cache, CONSTANTS, False, tl.float64)  # fmt: skip


@triton.jit
def _at(x, levels):
    """Where an integer stands in [-1, 1]."""
    return (2.0 * x.to(tl.float64) / (levels - 1).to(tl.float64) - 1.0)[:, None]


@triton.jit
def _coupling(k):
    e, _ = expm1_parts(-2.0 * tl.abs(k), exp(-2.0 * tl.abs(k)))
    return tl.where(k < 0.0, e, -e) / (2.0 + e)


@triton.jit
def _colour(c: tl.constexpr, x0, x1, levels, K, o_k, p_output, count, place, n, m_n, p_tables,
            p_constants, p_cache, COLOURS: tl.constexpr, CONSTANTS: tl.constexpr):  # fmt: skip
    """Means, given the colours before, and log-scales of a colour of all components."""
    EACH: tl.constexpr = 3 if COLOURS == 3 else 2
    mean = _plane(1 + EACH * c, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants,
                  p_cache, CONSTANTS)  # fmt: skip
    if c == 1:  # green has coefficient 0, blue has 1 and 2
        k = _plane(3, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants, p_cache,
                   CONSTANTS)  # fmt: skip
        mean += _coupling(k) * _at(x0, levels)
    if c == 2:
        k = _plane(6, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants, p_cache,
                   CONSTANTS)  # fmt: skip
        mean += _coupling(k) * _at(x0, levels)
        k = _plane(9, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants, p_cache,
                   CONSTANTS)  # fmt: skip
        mean += _coupling(k) * _at(x1, levels)
    log_scale = _plane(2 + EACH * c, K, o_k, p_output, count, place, n, m_n, p_tables,
                       p_constants, p_cache, CONSTANTS)  # fmt: skip
    return mean, log_scale


@triton.jit
def _component(b_joint, m_k, o_k, u, temperature, K, L: tl.constexpr):
    """The component that u chooses, of unnormalised logs (R, components)."""
    largest = tl.max(tl.where(m_k, b_joint, float("-inf")), 1)
    k = first_true(m_k & (b_joint == largest[:, None]), o_k, L).to(tl.int64)
    if temperature > 0.0:
        terms = tl.where(m_k, exp((b_joint - largest[:, None]) / temperature), 0.0)
        cumulative = tl.cumsum(terms, 1)
        limit = (u * tl.sum(terms, 1))[:, None]
        k = first_true(m_k & (cumulative > limit), o_k, L).to(tl.int64)
    return tl.minimum(k, K - 1)


@triton.jit
def _value(mean, log_scale, u, levels, temperature):
    """The integer of the logistic that u chooses."""
    u = tl.minimum(tl.maximum(u, 2.0**-32), 1.0 - 2.0**-24)
    logistic = log_normal_range(u) - log_normal_range(1.0 - u)
    scale = exp(tl.where(log_scale < -7.0, -7.0, log_scale))
    last = (levels - 1).to(tl.float64)
    level = 0.5 * last * (1.0 + mean + temperature * scale * logistic)
    level = tl.minimum(tl.maximum(level, 0.0), last)
    level = (level + 6755399441055744.0) - 6755399441055744.0  # to the nearest, and even, integer
    return tl.where(level == level, level, 0.0).to(tl.int64)


@triton.jit(do_not_specialize=SIZES)
def sampler_mixture_kernel(
    p_step, p_counter, p_plan, p_tables, p_constants, p_cache, p_noise, p_table, p_given,
    p_integers, p_log_prob, ends: tl.int64, places: tl.int64, colours: tl.int64, output: tl.int64,
    count: tl.int64, images: tl.int64, N: tl.int64, C: tl.int64, pixels: tl.int64,
    levels: tl.int64, top_k: tl.int64, temperature: tl.float64, programs: tl.int64,
    R: tl.constexpr, L: tl.constexpr, COLOURS: tl.constexpr, TOP_K: tl.constexpr,
    CONSTANTS: tl.constexpr,
):  # fmt: skip
    """Components K = count / 3, of three colours count / 10; L: the next power of two. Planes:
    logits, then for each colour means, log-scales and, of three colours, coefficients. Noise
    channel 0 chooses the component."""
    step, begin, end, n, m_n = begin_step(p_step, p_tables, ends, N, R)
    log_p = tl.zeros((R,), tl.float64)
    K = count // (10 if COLOURS == 3 else 3)
    o_k = tl.arange(0, L)
    m_k = (o_k < K)[None, :]
    p_output = p_plan + output
    for e in range(begin, end):
        place = tl.load(p_tables + places + e).to(tl.int64)
        o = n * COLOURS * pixels + place
        o_u = n * (COLOURS + 1) * pixels + place
        logits = _plane(0, K, o_k, p_output, count, place, n, m_n, p_tables, p_constants, p_cache,
                        CONSTANTS)  # fmt: skip
        joint = logits
        if p_given is not None:  # from the first colour on, it says which component it is of
            known = n >= 0
            x0 = given_or_less(p_given, o, m_n)
            x1 = given_or_less(p_given, o + (COLOURS // 2) * pixels, m_n)
            for c in tl.static_range(COLOURS):
                x = given_or_less(p_given, o + c * pixels, m_n)
                known = known & (x >= 0)
                mean, log_scale = _colour(c, x0, x1, levels, K, o_k, p_output, count, place, n,
                                          m_n, p_tables, p_constants, p_cache, COLOURS,
                                          CONSTANTS)  # fmt: skip
                more = _log_chance(mean, log_scale, x, levels)
                joint += tl.where(known[:, None], more, 0.0)
        u = tl.load(p_noise + o_u, m_n, 0.0).to(tl.float64)
        chosen = _component(joint, m_k, o_k[None, :], u, temperature, K, L)
        m_chosen = o_k[None, :] == chosen[:, None]
        logs = logits
        x0 = tl.zeros((R,), tl.int64)
        x1 = x0
        for c in tl.static_range(COLOURS):
            mean, log_scale = _colour(c, x0, x1, levels, K, o_k, p_output, count, place, n, m_n,
                                      p_tables, p_constants, p_cache, COLOURS,
                                      CONSTANTS)  # fmt: skip
            u = tl.load(p_noise + o_u + (1 + c) * pixels, m_n, 0.5).to(tl.float64)
            own = tl.sum(tl.where(m_chosen, mean, 0.0), 1)
            x = _value(own, tl.sum(tl.where(m_chosen, log_scale, 0.0), 1), u, levels, temperature)
            given = given_or_less(p_given, o + c * pixels, m_n)
            x = tl.where(given < 0, x, given)
            logs += _log_chance(mean, log_scale, x, levels)
            keep(p_plan, p_tables, p_cache, p_table, p_integers, images, c, o + c * pixels, place,
                  n, m_n, x)  # fmt: skip
            if c == 0:
                x0 = x
            else:
                x1 = x
        log_p += log_total(logs, m_k) - log_total(logits, m_k)
    end_step(p_step, p_counter, p_log_prob, step, n, m_n, log_p, programs)
