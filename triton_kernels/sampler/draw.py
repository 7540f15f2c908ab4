"""Integers from the parameters of the places of a step, by inverse CDF, and log p of them.

A program takes a block of images and the places of the step one after the other; the last of the
programs advances the step. Everything is computed in float64, as `genkern.sampling.outputs` does.
What an integer is as an input of the network goes into the caches, where the next step reads it.
Noise, given integers (-1: to be drawn) and integers are (N, channels, pixels); which of them belong
to a place does not depend on the order of the steps.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, log1p_unit
from genkern.triton_kernels.sampler.kernels import gather

SIZES = [
    "ends", "places", "colours", "output", "count", "images", "N", "C", "pixels", "levels", "top_k",
    "temperature", "programs",
]  # fmt: skip
_SIGN, _TOP_BIT = tl.constexpr(-0x7FFFFFFFFFFFFFFF - 1), tl.constexpr(0x8000000000000000)


@triton.jit
def begin_step(p_step, p_tables, ends, N, R: tl.constexpr):
    """The step, where its places begin and end, and the images of the program."""
    step = tl.load(p_step)
    begin = tl.load(p_tables + ends + step)
    end = tl.load(p_tables + ends + step + 1)
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    return step, begin, end, n, n < N


@triton.jit
def end_step(p_step, p_counter, p_log_prob, step, n, m_n, log_p, programs):
    """Adds log p, and lets the last program advance the step, after all have read it."""
    tl.store(p_log_prob + n, tl.load(p_log_prob + n, m_n, 0.0) + log_p, m_n)
    tl.debug_barrier()
    if tl.atomic_add(p_counter, 1, sem="acq_rel") == programs - 1:
        tl.store(p_counter, 0)
        tl.store(p_step, step + 1)


@triton.jit
def given_or_less(p_given, o, mask):
    """The integer that is given there, or -1."""
    if p_given is None:
        return tl.full(o.shape, -1, tl.int64)
    else:
        return tl.load(p_given + o, mask, -1)


@triton.jit
def keep(p_plan, p_tables, p_cache, p_table, p_integers, images, c, o, place, n, mask, x):
    """Stores integers of a colour, and what the network reads of them."""
    tl.store(p_integers + o, x, mask)
    p_own = p_plan + images + 4 * c
    base, slot = tl.load(p_own), tl.load(p_own + 1)
    image, table = tl.load(p_own + 2), tl.load(p_own + 3)
    at = tl.load(p_tables + table + place).to(tl.int64)
    tl.store(p_cache + base + at * slot + n * image, tl.load(p_table + x, mask, 0.0), mask)


@triton.jit
def softplus(x):
    """log(1 + e^x)"""
    return tl.where(x > 0.0, x, 0.0) + log1p_unit(exp(-tl.abs(x)))


@triton.jit
def log_total(b_x, m_x):
    """log of the sum of e^x over the second axis."""
    largest = tl.max(tl.where(m_x, b_x, float("-inf")), 1)
    terms = tl.where(m_x, exp(b_x - largest[:, None]), 0.0)
    return largest + tl.log(tl.sum(terms, 1))


@triton.jit
def first_true(m_x, o_x, END: tl.constexpr):
    """The first place of the second axis that is true, or END."""
    return tl.min(tl.where(m_x, o_x, END), 1)


@triton.jit(do_not_specialize=SIZES)
def sampler_bernoulli_kernel(
    p_step, p_counter, p_plan, p_tables, p_constants, p_cache, p_noise, p_table, p_given,
    p_integers, p_log_prob, ends: tl.int64, places: tl.int64, colours: tl.int64, output: tl.int64,
    count: tl.int64, images: tl.int64, N: tl.int64, C: tl.int64, pixels: tl.int64,
    levels: tl.int64, top_k: tl.int64, temperature: tl.float64, programs: tl.int64,
    R: tl.constexpr, L: tl.constexpr, COLOURS: tl.constexpr, TOP_K: tl.constexpr,
    CONSTANTS: tl.constexpr,
):  # fmt: skip
    """x = 1 where u < sigmoid(a / T)."""
    step, begin, end, n, m_n = begin_step(p_step, p_tables, ends, N, R)
    only = tl.load(p_tables + colours + step).to(tl.int64)
    log_p = tl.zeros((R,), tl.float64)
    for e in range(begin, end):
        place = tl.load(p_tables + places + e).to(tl.int64)
        for c in range(tl.where(only < 0, 0, only), tl.where(only < 0, C, only + 1)):
            o_k = c + tl.arange(0, 1)
            a = gather(p_plan + output, count, o_k, o_k < count, place + 0 * n, n, m_n, p_tables,
                       p_constants, p_cache, CONSTANTS, False, tl.float64)  # fmt: skip
            a = tl.sum(a, 1)
            o = (n * C + c) * pixels + place
            u = tl.load(p_noise + o, m_n, 0.0).to(tl.float64)
            chance = tl.where(a > 0.0, 1.0, 0.0).to(tl.float64)
            if temperature > 0.0:
                chance = 1.0 / (1.0 + exp(-a / temperature))
            given = given_or_less(p_given, o, m_n)
            x = tl.where(given < 0, (u < chance).to(tl.int64), given)
            log_p -= softplus(tl.where(x > 0, -a, a))
            keep(p_plan, p_tables, p_cache, p_table, p_integers, images, c, o, place, n, m_n, x)
    end_step(p_step, p_counter, p_log_prob, step, n, m_n, log_p, programs)


@triton.jit
def _is_kept(b_l, m_l, top_k):
    """The k largest of each row, and what is as large as the k-th: it is found bit by bit."""
    bits = b_l.to(tl.int64, bitcast=True)
    key = tl.where(bits < 0, ~bits, bits | _SIGN).to(tl.uint64, bitcast=True)
    key = tl.where(m_l, key, 0)
    least = tl.zeros((b_l.shape[0],), tl.uint64)
    bit = least | _TOP_BIT
    for _ in range(64):
        enough = tl.sum((key >= (least | bit)[:, None]).to(tl.int64), 1) >= top_k
        least = tl.where(enough, least | bit, least)
        bit = bit >> 1
    return key >= least[:, None]


@triton.jit
def _level(b_l, m_l, o_l, u, temperature, top_k, L: tl.constexpr, TOP_K: tl.constexpr):
    """The first level whose cumulative probability exceeds u."""
    largest = tl.max(tl.where(m_l, b_l, float("-inf")), 1)
    x = first_true(m_l & (b_l == largest[:, None]), o_l, L)
    if temperature > 0.0:
        terms = tl.where(m_l, exp((b_l - largest[:, None]) / temperature), 0.0)
        if TOP_K:
            terms = tl.where(_is_kept(b_l, m_l, top_k), terms, 0.0)
        cumulative = tl.cumsum(terms, 1)
        limit = (u * tl.sum(terms, 1))[:, None]
        x = first_true((cumulative > limit) & (terms > 0.0), o_l, L)
        last = tl.max(tl.where(terms > 0.0, o_l, 0), 1)
        x = tl.where(x < L, x, last)
    return tl.where(x < L, x, 0)


@triton.jit(do_not_specialize=SIZES)
def sampler_categorical_kernel(
    p_step, p_counter, p_plan, p_tables, p_constants, p_cache, p_noise, p_table, p_given,
    p_integers, p_log_prob, ends: tl.int64, places: tl.int64, colours: tl.int64, output: tl.int64,
    count: tl.int64, images: tl.int64, N: tl.int64, C: tl.int64, pixels: tl.int64,
    levels: tl.int64, top_k: tl.int64, temperature: tl.float64, programs: tl.int64,
    R: tl.constexpr, L: tl.constexpr, COLOURS: tl.constexpr, TOP_K: tl.constexpr,
    CONSTANTS: tl.constexpr,
):  # fmt: skip
    """A softmax over the levels of a colour; L: the next power of two."""
    step, begin, end, n, m_n = begin_step(p_step, p_tables, ends, N, R)
    only = tl.load(p_tables + colours + step).to(tl.int64)
    log_p = tl.zeros((R,), tl.float64)
    o_l = tl.arange(0, L)
    m_l = (o_l < levels)[None, :]
    for e in range(begin, end):
        place = tl.load(p_tables + places + e).to(tl.int64)
        for c in range(tl.where(only < 0, 0, only), tl.where(only < 0, C, only + 1)):
            b_l = gather(p_plan + output, count, c * levels + o_l, o_l < levels, place + 0 * n, n,
                         m_n, p_tables, p_constants, p_cache, CONSTANTS, False,
                         tl.float64)  # fmt: skip
            o = (n * C + c) * pixels + place
            u = tl.load(p_noise + o, m_n, 0.0).to(tl.float64)
            x = _level(b_l, m_l, o_l[None, :], u, temperature, top_k, L, TOP_K).to(tl.int64)
            given = given_or_less(p_given, o, m_n)
            x = tl.where(given < 0, x, given)
            chosen = tl.sum(tl.where(o_l[None, :] == x[:, None], b_l, 0.0), 1)
            log_p += chosen - log_total(b_l, m_l)
            keep(p_plan, p_tables, p_cache, p_table, p_integers, images, c, o, place, n, m_n, x)
    end_step(p_step, p_counter, p_log_prob, step, n, m_n, log_p, programs)
