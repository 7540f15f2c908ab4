"""What the kernels of row_lstm share: the products along a row, and the cell.

Offsets within the weight and within the row of one image are 32-bit, which `unsupported` in
plan.py makes sure of; all others are 64-bit.
"""

import triton
import triton.language as tl


@triton.jit
def units_and_columns(tile, hidden, W, BU: tl.constexpr, BW: tl.constexpr):
    """Hidden units (BU,), columns (BW,) and mask of a tile of a row."""
    columns = tl.cdiv(W, BW)
    o_u = tile // columns * BU + tl.arange(0, BU)
    o_w = tile % columns * BW + tl.arange(0, BW)
    return o_u, o_w, (o_u < hidden)[:, None] & (o_w < W)[None, :]


@triton.jit
def add_state_products(
    b_o, b_f, b_i, b_g, p_h, p_w, o_u, o_w, hidden, W,
    K: tl.constexpr, BQ: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gate[u, x] += sum_{j, t} w[gate, u, j, t] h[j, x + t - K // 2] for the four gates.

    h (hidden, W), w (4 hidden, hidden, K), contiguous; (j, t) runs as one index q.
    """
    factors = hidden * K
    for q in range(0, factors, BQ):
        o_q = q + tl.arange(0, BQ)
        o_x = o_w[None, :] + (o_q % K - K // 2)[:, None]
        m_h = (o_q < factors)[:, None] & (o_x >= 0) & (o_x < W)
        b_h = tl.load(p_h + ((o_q // K * W)[:, None] + o_x), mask=m_h, other=0.0)
        m_w = (o_u < hidden)[:, None] & (o_q < factors)[None, :]
        o_k, gate = o_u[:, None] * factors + o_q[None, :], hidden * factors
        b_w = tl.load(p_w + o_k, mask=m_w, other=0.0).to(ACC)
        b_o = tl.dot(b_w, b_h, b_o, input_precision=PRECISION, out_dtype=ACC)
        b_w = tl.load(p_w + gate + o_k, mask=m_w, other=0.0).to(ACC)
        b_f = tl.dot(b_w, b_h, b_f, input_precision=PRECISION, out_dtype=ACC)
        b_w = tl.load(p_w + 2 * gate + o_k, mask=m_w, other=0.0).to(ACC)
        b_i = tl.dot(b_w, b_h, b_i, input_precision=PRECISION, out_dtype=ACC)
        b_w = tl.load(p_w + 3 * gate + o_k, mask=m_w, other=0.0).to(ACC)
        b_g = tl.dot(b_w, b_h, b_g, input_precision=PRECISION, out_dtype=ACC)
    return b_o, b_f, b_i, b_g


@triton.jit
def state_gradient(
    p_d, p_w, o_u, o_w, hidden, W, plane,
    K: tl.constexpr, BU: tl.constexpr, BW: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_h[u, x] = sum_{r, t} w[r, u, t] d[r, x - t + K // 2]: the product above, transposed.

    d (4 hidden, W) with rows `plane` apart; (r, t) runs as one index q.
    """
    b_dh = tl.zeros((BU, BW), ACC)
    for q in range(0, 4 * hidden * K, BQ):
        o_q = q + tl.arange(0, BQ)
        o_r, o_t, m_q = o_q // K, o_q % K, o_q < 4 * hidden * K
        o_x = o_w[None, :] + (K // 2 - o_t)[:, None]
        m_d = m_q[:, None] & (o_x >= 0) & (o_x < W)
        b_d = tl.load(p_d + ((o_r.to(tl.int64) * plane)[:, None] + o_x), mask=m_d, other=0.0)
        o_k = (o_r * (hidden * K) + o_t)[None, :] + (o_u * K)[:, None]
        b_w = tl.load(p_w + o_k, mask=(o_u < hidden)[:, None] & m_q[None, :], other=0.0).to(ACC)
        b_dh = tl.dot(b_w, b_d, b_dh, input_precision=PRECISION, out_dtype=ACC)
    return b_dh


@triton.jit
def row_offsets(r, W, o_w):
    """Offsets of columns of row r within a plane, 64-bit."""
    return (tl.zeros_like(o_w).to(tl.int64) + r) * W + o_w
