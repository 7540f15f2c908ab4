"""Triton kernels of the Gaussian ops: KL divergence and reparameterised samples.

Inputs mu, logvar (N, D), contiguous; noise and samples (S, N, D). A tile is BR rows by BC Philox
blocks of four elements; rows that do not start at a block are covered from the block they start in.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import (
    exp,
    expm1_parts,
    log1p_unit,
    log_normal_range,
    philox_normals,
    philox_normals_at,
)

_SIZES = ["N", "D", "S", "splits", "split_blocks", "column_tiles", "free_bits"]


@triton.jit
def _tile(i_row, c, N, D, ALIGNED: tl.constexpr, BC: tl.constexpr):
    """Of the rows `i_row` (BR,), the tile whose first Philox block is the row's c-th: offsets of
    its first elements (BR, 1), a multiple of 4; columns (1, 4 BC); mask (BR, 4 BC)."""
    if ALIGNED:
        D = D // 4 * 4  # tells the compiler that every row starts at a block
    o_row = i_row * D
    o_first = (o_row >> 2) * 4
    o_tile = o_first + c * 4
    o_column = tl.arange(0, 4 * BC)
    # Columns that belong to the row, in 32 bits: [lead, left) of this tile.
    left = tl.minimum(o_row - o_tile + D, 4 * BC)
    left = tl.where(i_row < N, left, 0).to(tl.int32)
    m_tile = o_column[None, :] < left[:, None]
    if not ALIGNED:
        lead = tl.maximum(o_row - o_tile, 0).to(tl.int32)
        m_tile = m_tile & (o_column[None, :] >= lead[:, None])
    return o_tile[:, None], o_column[None, :], m_tile


@triton.jit
def _sample(i_s, N, D, MANY: tl.constexpr, BLOCKS: tl.constexpr):
    """Offset of sample `i_s` in (S, N, D)."""
    if not MANY:
        return 0
    elif BLOCKS:
        return i_s * (N * D // 4 * 4)  # tells the compiler that samples start at a block
    else:
        return i_s * (N * D)


@triton.jit
def _load(p, o_tile, o_column, m_tile, DTYPE: tl.constexpr):
    return tl.load(p + o_tile + o_column, mask=m_tile, other=0.0).to(DTYPE)


@triton.jit
def _noise(p_eps, seed, o_noise, o_column, m_tile, BLOCKS: tl.constexpr, DTYPE: tl.constexpr):
    """Noise of a tile: given, or the Philox stream at the same offsets."""
    if p_eps is not None:
        return _load(p_eps, o_noise, o_column, m_tile, DTYPE)
    elif BLOCKS:
        o_block = (o_noise >> 2) + tl.arange(0, o_column.shape[1] // 4)[None, :]
        return philox_normals(seed, o_block, DTYPE)
    else:
        return philox_normals_at(seed, o_noise + o_column, DTYPE)


@triton.jit
def _floor(p_free_bits, free_bits, DTYPE: tl.constexpr):
    """What a KL may not be below, (1, 1): -inf for no free bits, on the device as on the host."""
    if p_free_bits is not None:
        given = tl.load(p_free_bits).to(tl.float64)
        free_bits = tl.where(given > 0.0, given, float("-inf"))
    return tl.full((1, 1), free_bits, DTYPE)


@triton.jit
def _scaled(d, factor):
    """d times a factor that may be infinite: no distance stays none."""
    return tl.where(d == 0.0, 0.0, d * factor)


@triton.jit
def _softplus(b):
    """log(1 + e^b), and e^-|b|."""
    b_t = exp(-tl.abs(b))
    return tl.maximum(b, 0.0) + log1p_unit(b_t), b_t


@triton.jit
def _to_logvar(b, SCALE: tl.constexpr):
    """From what the scale is given as: l, log sigma (1), or s of sigma = log(1 + e^s) (2)."""
    if SCALE == 1:
        b = b + b
    elif SCALE == 2:
        b_sigma, _ = _softplus(tl.where(b < -40.0, 0.0, b))
        b_log = tl.where(b < -40.0, b, log_normal_range(b_sigma))
        b = 2.0 * tl.where(tl.abs(b) < 1e38, b_log, b)  # NaN and infinities stay
    return b


@triton.jit
def _slope(b, SCALE: tl.constexpr):
    """d logvar / d given, for the scales 1 and 2."""
    if SCALE == 1:
        return tl.full(b.shape, 2.0, b.dtype)
    else:
        b_sigma, b_t = _softplus(tl.where(b < -40.0, 0.0, b))
        b_slope = tl.where(b < 0.0, b_t, 1.0) / ((1.0 + b_t) * b_sigma)
        return 2.0 * tl.where(b < -40.0, 1.0, b_slope)


@triton.jit(do_not_specialize=_SIZES)
def gaussian_forward_kernel(
    p_mu, p_logvar, p_prior_mu, p_prior_logvar, p_eps, p_seed, p_free_bits, p_z, p_kl,
    p_log_prob, p_partial, p_done,
    N: tl.int64, D: tl.int64, S: tl.int32, splits: tl.int32, split_blocks: tl.int64,
    free_bits: tl.float64,
    MANY: tl.constexpr, ALIGNED: tl.constexpr, BLOCKS: tl.constexpr, DTYPE: tl.constexpr,
    SCALE: tl.constexpr, ELEMENTS: tl.constexpr, MAX_SPLITS: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """z[s, n, d] = mu + e^{l/2} eps;  kl[n] = sum_d max((d^2 w + e^D - 1 - D) / 2, free_bits)
    log_prob[s, n] = -sum_d (eps^2 + l + log 2 pi) / 2

    with d = mu - mu2, D = l - l2, w = e^{-l2}; without a prior mu2 = l2 = 0.
    Kingma and Welling 2014, sec. 2.4 and app. B. mu, logvar, prior (N, D); eps, z (S, N, D);
    kl (N,), or (N, D) for ELEMENTS. Program (rows, split of the row, sample), sample fastest; the
    KL belongs to sample 0.
    With splits, partial sums go to p_partial (N, splits), and the program that finishes last
    adds them up in order.
    """
    i_tile = tl.program_id(0)
    i_s = 0
    i_split = 0
    if MANY:
        i_s = i_tile % S
        i_tile = i_tile // S
    if MAX_SPLITS > 1:
        i_split = i_tile % splits
        i_tile = i_tile // splits
    i_row = i_tile.to(tl.int64) * BR + tl.arange(0, BR)
    floor = _floor(p_free_bits, free_bits, DTYPE)
    seed = 0
    if p_seed is not None:
        seed = tl.load(p_seed)
    b_sum = tl.zeros((BR, 4 * BC), DTYPE)
    b_log_prob = tl.zeros((BR, 4 * BC), DTYPE)
    first = i_split * split_blocks
    last = tl.minimum(first + split_blocks, (D + (0 if ALIGNED else 6)) // 4)
    for c in range(first, last, BC):
        o_tile, o_column, m_tile = _tile(i_row, c, N, D, ALIGNED, BC)
        b_mu = _load(p_mu, o_tile, o_column, m_tile, DTYPE)
        b_logvar = _to_logvar(_load(p_logvar, o_tile, o_column, m_tile, DTYPE), SCALE)
        b_scale = exp(0.5 * b_logvar)
        if p_z is not None:
            o_sample = o_tile + _sample(i_s, N, D, MANY, BLOCKS)
            b_eps = _noise(p_eps, seed, o_sample, o_column, m_tile, BLOCKS, DTYPE)
            b_z = b_mu + b_scale * b_eps
            tl.store(p_z + o_sample + o_column, b_z, mask=m_tile)
            if p_log_prob is not None:
                b_terms = b_eps * b_eps + (b_logvar + 1.8378770664093453)
                b_log_prob += tl.where(m_tile, b_terms, 0.0)
        if p_kl is not None:
            if i_s == 0:
                if p_prior_mu is not None:
                    b_l2 = _load(p_prior_logvar, o_tile, o_column, m_tile, DTYPE)
                    b_l2 = _to_logvar(b_l2, SCALE)
                    b_d = b_mu - _load(p_prior_mu, o_tile, o_column, m_tile, DTYPE)
                    b_delta = b_logvar - b_l2
                    _, b_rest = expm1_parts(b_delta, exp(b_delta))
                    b_u = _scaled(b_d, exp(-0.5 * b_l2))
                    b_kl = 0.5 * (b_u * b_u + b_rest)
                else:
                    _, b_rest = expm1_parts(b_logvar, b_scale * b_scale)
                    b_kl = 0.5 * (b_mu * b_mu + b_rest)
                b_kl = tl.where(b_kl < floor, floor, b_kl)  # keeps NaN
                if ELEMENTS:
                    tl.store(p_kl + o_tile + o_column, b_kl, mask=m_tile)
                b_sum += tl.where(m_tile, b_kl, 0.0)
    if p_log_prob is not None:
        tl.store(p_log_prob + i_s * N + i_row, -0.5 * tl.sum(b_log_prob, 1), mask=i_row < N)
    if p_kl is not None and not ELEMENTS:
        if i_s == 0:
            b_kl = tl.sum(b_sum, 1)
            if MAX_SPLITS == 1:
                tl.store(p_kl + i_row, b_kl, mask=i_row < N)
            else:
                tl.static_assert(BR == 1)
                tl.store(p_partial + i_row * splits + i_split, b_kl)
                tl.debug_barrier()
                p_row = p_done + i_tile
                if tl.atomic_add(p_row, 1, sem="acq_rel") == splits - 1:
                    o_split = tl.arange(0, MAX_SPLITS)
                    p_parts = p_partial + i_row[:, None] * splits + o_split[None, :]
                    b_parts = tl.load(
                        p_parts, mask=o_split[None, :] < splits, other=0.0, volatile=True
                    )
                    tl.store(p_kl + i_row, tl.sum(b_parts, 1))
                    tl.store(p_row, 0)  # for the next launch


@triton.jit(do_not_specialize=_SIZES)
def gaussian_backward_kernel(
    p_d_z, p_d_kl, p_d_log_prob, p_mu, p_logvar, p_prior_mu, p_prior_logvar, p_eps, p_seed,
    p_free_bits, p_d_mu, p_d_logvar, p_d_prior_mu, p_d_prior_logvar, p_d_eps,
    N: tl.int64, D: tl.int64, S: tl.int32, column_tiles: tl.int32, free_bits: tl.float64,
    MANY: tl.constexpr, ALIGNED: tl.constexpr, BLOCKS: tl.constexpr, DTYPE: tl.constexpr,
    SCALE: tl.constexpr, ELEMENTS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """d_mu = sum_s d_z + g d w;  d_logvar = sum_s d_z eps e^{l/2} / 2 + g (e^D - 1) / 2
    d_mu2 = -g d w;  d_l2 = -g (e^D - 1 + d^2 w) / 2;  d_eps = d_z e^{l/2}

    and d_logvar -= q / 2, d_eps -= q eps with q = d_log_prob[s, n]; times d logvar / d given on
    another scale. g is d_kl[n] or, for ELEMENTS, d_kl[n, d], but 0 where the element's KL is below
    free_bits; d, D, w as in the forward kernel. d_z, eps, d_eps (S, N, D); q (S, N); d_kl (N,);
    all others (N, D). Program (rows, columns).
    """
    i = tl.program_id(0)
    i_row = (i // column_tiles).to(tl.int64) * BR + tl.arange(0, BR)
    c = (i % column_tiles).to(tl.int64) * BC
    o_tile, o_column, m_tile = _tile(i_row, c, N, D, ALIGNED, BC)
    o_out = o_tile + o_column
    b_given = _load(p_logvar, o_tile, o_column, m_tile, DTYPE)
    b_logvar = _to_logvar(b_given, SCALE)
    b_scale = exp(0.5 * b_logvar)
    b_d_mu = tl.zeros(m_tile.shape, DTYPE)
    b_d_logvar = tl.zeros(m_tile.shape, DTYPE)
    b_d_prior_logvar = tl.zeros(m_tile.shape, DTYPE)
    b_d_prior_mu = tl.zeros(m_tile.shape, DTYPE)
    if p_d_kl is not None:
        if ELEMENTS:
            b_g = _load(p_d_kl, o_tile, o_column, m_tile, DTYPE)
        else:
            b_g = tl.load(p_d_kl + i_row, mask=i_row < N, other=0.0).to(DTYPE)[:, None]
        b_u = _load(p_mu, o_tile, o_column, m_tile, DTYPE)  # d e^{-l2 / 2}
        b_delta = b_logvar
        b_exp = b_scale * b_scale
        b_scaled = b_u
        if p_prior_mu is not None:
            b_given_l2 = _load(p_prior_logvar, o_tile, o_column, m_tile, DTYPE)
            b_l2 = _to_logvar(b_given_l2, SCALE)
            b_inverse = exp(-0.5 * b_l2)
            b_d = b_u - _load(p_prior_mu, o_tile, o_column, m_tile, DTYPE)
            b_u = _scaled(b_d, b_inverse)
            b_delta = b_logvar - b_l2
            b_exp = exp(b_delta)
            b_scaled = _scaled(b_u, b_inverse)
        b_em1, b_rest = expm1_parts(b_delta, b_exp)
        floor = _floor(p_free_bits, free_bits, DTYPE)
        floored = 0.5 * (b_u * b_u + b_rest) < floor
        b_d_mu = tl.where(floored, 0.0, b_g * b_scaled)
        b_d_logvar = tl.where(floored, 0.0, 0.5 * b_g * b_em1)
        b_d_prior_mu = -b_d_mu
        b_d_prior_logvar = tl.where(floored, 0.0, -0.5 * b_g * (b_em1 + b_u * b_u))
        if p_prior_mu is not None and SCALE > 0:
            b_d_prior_logvar *= _slope(b_given_l2, SCALE)
    if p_d_prior_mu is not None:
        tl.store(p_d_prior_mu + o_out, b_d_prior_mu, mask=m_tile)
    if p_d_prior_logvar is not None:
        tl.store(p_d_prior_logvar + o_out, b_d_prior_logvar, mask=m_tile)
    if p_d_z is not None:
        seed = 0
        if p_seed is not None:
            seed = tl.load(p_seed)
        for i_s in range(S):
            o_sample = o_tile + _sample(i_s, N, D, MANY, BLOCKS)
            b_eps = _noise(p_eps, seed, o_sample, o_column, m_tile, BLOCKS, DTYPE)
            b_d_z = _load(p_d_z, o_sample, o_column, m_tile, DTYPE)
            b_d_eps = b_d_z * b_scale
            b_d_mu += b_d_z
            b_d_logvar += 0.5 * b_d_eps * b_eps
            if p_d_log_prob is not None:
                p_row = p_d_log_prob + i_s * N + i_row
                b_q = tl.load(p_row, mask=i_row < N, other=0.0).to(DTYPE)[:, None]
                b_d_logvar -= 0.5 * b_q
                b_d_eps -= b_q * b_eps
            if p_d_eps is not None:
                tl.store(p_d_eps + o_sample + o_column, b_d_eps, mask=m_tile)
    if p_d_mu is not None:
        tl.store(p_d_mu + o_out, b_d_mu, mask=m_tile)
    if SCALE > 0:
        b_d_logvar *= _slope(b_given, SCALE)
    if p_d_logvar is not None:
        tl.store(p_d_logvar + o_out, b_d_logvar, mask=m_tile)
