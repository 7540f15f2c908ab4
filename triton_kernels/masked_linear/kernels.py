"""Triton kernels of the masked linear layer: y[n, o] = b[o] + sum over live i of w[o, i] x[n, i].

Germain et al. 2015, "MADE", sec. 3. Degrees are compared block by block, in whatever order they
stand: a block of which no weight is live is passed over, of one that is mixed the live weights are
loaded. What a dead weight would multiply is kept out of the product too where it is NaN or
infinite. Offsets are 64-bit.
"""

import triton
import triton.language as tl

RUNTIME = ["N", "C_in", "C_out", "w_o", "w_i", "d_o", "d_i"]


@triton.jit
def _is_live(row_degree, column_degree, MIRRORED: tl.constexpr, STRICT: tl.constexpr):
    """The rows are outputs and the columns inputs, or (MIRRORED) the other way round."""
    if MIRRORED:
        return column_degree > row_degree if STRICT else column_degree >= row_degree
    else:
        return row_degree > column_degree if STRICT else row_degree >= column_degree


@triton.jit
def _add_infinite(
    b_acc, p_a, p_w, p_degree, o_n, m_n, o_r, m_r, b_row, first, K, w_r, w_k,
    MIRRORED: tl.constexpr, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Column by column, the products of the elements of a block that are NaN or infinite."""
    for k in range(first, tl.minimum(first + T.step, K)):
        b_a = tl.load(p_a + o_n * K + k, mask=m_n, other=0.0).to(F.ACC)
        m_live = m_r & _is_live(b_row, tl.load(p_degree + k), MIRRORED, F.STRICT)
        b_w = tl.load(p_w + o_r * w_r + k * w_k, mask=m_live, other=0.0).to(F.ACC)
        m = m_live[None, :] & (b_a - b_a != 0.0)[:, None]
        b_acc += tl.where(m, b_a[:, None] * b_w[None, :], 0.0)
    return b_acc


@triton.jit
def multiply(
    p_a, p_w, p_bias, p_to, p_row_degree, p_degree, N, R, K, w_r, w_k,
    MIRRORED: tl.constexpr, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """A tile of to[n, r] = bias[r] + sum over live k of a[n, k] w[r, k]; a (N, K), to (N, R)."""
    BN: tl.constexpr = T.batch
    BR: tl.constexpr = T.width
    BK: tl.constexpr = T.step
    tiles = tl.cdiv(R, BR)
    o_n = (tl.program_id(0) // tiles).to(tl.int64) * BN + tl.arange(0, BN)
    o_r = (tl.program_id(0) % tiles).to(tl.int64) * BR + tl.arange(0, BR)
    m_n, m_r = o_n < N, o_r < R
    b_row = tl.load(p_row_degree + o_r, mask=m_r, other=0)
    # What is compared with the columns: the rows that see most and least.
    lowest = tl.min(tl.where(m_r, b_row, 0x7FFFFFFFFFFFFFFF), 0)
    highest = tl.max(tl.where(m_r, b_row, -0x7FFFFFFFFFFFFFFF - 1), 0)
    most, least = (lowest, highest) if MIRRORED else (highest, lowest)
    b_acc = tl.zeros((BN, BR), F.ACC)
    for first in range(0, K, BK):
        o_k = tl.full((BK,), first, tl.int64) + tl.arange(0, BK)
        m_k = o_k < K
        b_degree = tl.load(p_degree + o_k, mask=m_k, other=0)
        low = tl.min(tl.where(m_k, b_degree, 0x7FFFFFFFFFFFFFFF), 0)
        high = tl.max(tl.where(m_k, b_degree, -0x7FFFFFFFFFFFFFFF - 1), 0)
        near, far = (high, low) if MIRRORED else (low, high)
        if _is_live(most, near, MIRRORED, F.STRICT):
            whole = _is_live(least, far, MIRRORED, F.STRICT)
            m_live = _is_live(b_row[:, None], b_degree[None, :], MIRRORED, F.STRICT)
            m_live = m_live & m_r[:, None] & m_k[None, :]
            o_w = o_r[:, None] * w_r + o_k[None, :] * w_k
            b_w = tl.load(p_w + o_w, mask=m_live, other=0.0).to(F.DOT)
            o_a = o_n[:, None] * K + o_k[None, :]
            b_a = tl.load(p_a + o_a, mask=m_n[:, None] & m_k[None, :], other=0.0).to(F.DOT)
            m_finite = b_a - b_a == 0.0
            b_finite = tl.where(m_finite | whole, b_a, 0.0).to(F.DOT)
            b_acc = tl.dot(
                b_finite, tl.trans(b_w), b_acc, input_precision=F.PRECISION, out_dtype=F.ACC
            )
            if tl.min(tl.min((m_finite | whole).to(tl.int32), 1), 0) == 0:
                b_acc = _add_infinite(
                    b_acc, p_a, p_w, p_degree, o_n, m_n, o_r, m_r, b_row, first, K, w_r, w_k,
                    MIRRORED, F, T,
                )  # fmt: skip
    if p_bias is not None:
        b_acc += tl.load(p_bias + o_r, mask=m_r, other=0.0).to(F.ACC)[None, :]
    tl.store(
        p_to + o_n[:, None] * R + o_r[None, :],
        b_acc.to(p_to.dtype.element_ty),
        mask=m_n[:, None] & m_r[None, :],
    )


@triton.jit(do_not_specialize=RUNTIME)
def masked_linear_forward_kernel(
    p_x, p_w, p_b, p_y, p_in, p_out,
    N: tl.int64, C_in: tl.int64, C_out: tl.int64, w_o: tl.int64, w_i: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """x (N, C_in), y (N, C_out), b (C_out,) dense; w (C_out, C_in) of any strides."""
    multiply(p_x, p_w, p_b, p_y, p_out, p_in, N, C_out, C_in, w_o, w_i, False, F, T)


@triton.jit(do_not_specialize=RUNTIME)
def masked_linear_backward_kernel(
    p_d_y, p_w, p_d_x, p_in, p_out,
    N: tl.int64, C_in: tl.int64, C_out: tl.int64, w_o: tl.int64, w_i: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """d_x[n, i] = sum over live o of w[o, i] d_y[n, o]"""
    multiply(p_d_y, p_w, None, p_d_x, p_in, p_out, N, C_in, C_out, w_i, w_o, True, F, T)


@triton.jit(do_not_specialize=RUNTIME)
def masked_linear_weight_kernel(
    p_d_y, p_x, p_d_w, p_d_b, p_in, p_out,
    N: tl.int64, C_in: tl.int64, C_out: tl.int64, d_o: tl.int64, d_i: tl.int64,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """d_w[o, i] = sum over n of d_y[n, o] x[n, i] where live, else 0;  d_b[o] = sum of d_y[n, o]

    The sum over the batch runs in order. The first tile of inputs adds up the bias too.
    """
    BU: tl.constexpr = T.width
    BN: tl.constexpr = T.step
    tiles = tl.cdiv(C_in, BU) if p_d_w is not None else 1
    i_o, i_i = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    o_o = i_o.to(tl.int64) * BU + tl.arange(0, BU)
    o_i = i_i.to(tl.int64) * BU + tl.arange(0, BU)
    m_o, m_i = o_o < C_out, o_i < C_in
    b_out = tl.load(p_out + o_o, mask=m_o, other=0)
    b_in = tl.load(p_in + o_i, mask=m_i, other=0)
    m_live = _is_live(b_out[:, None], b_in[None, :], False, F.STRICT)
    m_live = m_live & m_o[:, None] & m_i[None, :]
    is_live = tl.max(tl.max(m_live.to(tl.int32), 1), 0) == 1
    b_acc, b_bias = tl.zeros((BU, BU), F.ACC), tl.zeros((BU,), F.ACC)
    if is_live | (i_i == 0):
        for first in range(0, N, BN):
            o_n = tl.full((BN,), first, tl.int64) + tl.arange(0, BN)
            m_n = (o_n < N)[:, None]
            b_g = tl.load(
                p_d_y + o_n[:, None] * C_out + o_o[None, :], mask=m_n & m_o[None, :], other=0.0
            ).to(F.DOT)
            b_bias += tl.sum(b_g.to(F.ACC), axis=0)
            if p_d_w is not None:
                b_x = tl.load(
                    p_x + o_n[:, None] * C_in + o_i[None, :], mask=m_n & m_i[None, :], other=0.0
                ).to(F.DOT)
                b_acc = tl.dot(
                    tl.trans(b_g), b_x, b_acc, input_precision=F.PRECISION, out_dtype=F.ACC
                )
    if p_d_w is not None:
        tl.store(
            p_d_w + o_o[:, None] * d_o + o_i[None, :] * d_i,
            tl.where(m_live, b_acc, 0.0).to(p_d_w.dtype.element_ty),
            mask=m_o[:, None] & m_i[None, :],
        )
    if p_d_b is not None:
        if i_i == 0:
            tl.store(p_d_b + o_o, b_bias.to(p_d_b.dtype.element_ty), mask=m_o)
