"""What the kernels of diagonal_lstm share: diagonals, the products along them, and the cell.

Offsets within the weight are 32-bit, which `unsupported` in plan.py makes sure of; all others are
64-bit.
"""

import triton
import triton.language as tl


@triton.jit
def top_and_end(t, H, W):
    """Rows top .. end - 1 are those that the diagonal t crosses."""
    return tl.maximum(t - W + 1, 0), tl.minimum(t + 1, H)


@triton.jit
def pixels_before(t, H, W):
    """Pixels on the diagonals before t: saved values lie diagonal by diagonal."""
    low, right = tl.maximum(t - H, 0), tl.maximum(t - W, 0)
    return (t * (t + 1) - low * (low + 1) - right * (right + 1)) // 2


@triton.jit
def units_and_rows(tile, hidden, top, end, BU: tl.constexpr, BR: tl.constexpr):
    """Hidden units (BU,), rows (BR,) and mask of a tile of the rows top .. end - 1."""
    across = tl.cdiv(end - top, BR)
    o_u = (tile // across).to(tl.int32) * BU + tl.arange(0, BU)
    o_r = top + tile % across * BR + tl.arange(0, BR)
    return o_u, o_r, (o_u < hidden)[:, None] & (o_r < end)[None, :]


@triton.jit
def add_state_products(
    b_o, b_f, b_i, b_g, p_h, p_w, o_u, o_r, hidden, H, end,
    BQ: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gate[u, r] += sum_{j, k} w[gate, u, j, k] h[j, r - 1 + k] for the four gates.

    h (hidden, H), of each row the pixel that came last; w (4 hidden, hidden, 2), contiguous; (j, k)
    runs as one index q. No row is above the first one.
    """
    factors = hidden * 2
    for q in range(0, factors, BQ):
        o_q = q + tl.arange(0, BQ)
        o_row = o_r[None, :] + (o_q % 2 - 1)[:, None]
        m_h = (o_q < factors)[:, None] & (o_row >= 0) & (o_r < end)[None, :]
        b_h = tl.load(p_h + ((o_q // 2)[:, None] * H + o_row), mask=m_h, other=0.0)
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
    b_dh, p_d, p_w, o_u, o_r, m_ahead, m_below, hidden, H,
    TAPS: tl.constexpr, BQ: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dh[j, r] += sum_{g, k} w[g, j, 1 - k] d[g, r + k], k < TAPS: the product above, transposed.

    d (4 hidden, H), p_d one pointer for each row; w (4 hidden, hidden, 2). A row's state goes to
    the pixel ahead of it (k = 0, where m_ahead) and to the one below it (k = 1, m_below).
    """
    for q in range(0, 4 * hidden * TAPS, BQ):
        o_q = q + tl.arange(0, BQ)
        o_g, o_k = o_q // TAPS, o_q % TAPS
        m_q = o_q < 4 * hidden * TAPS
        m_d = ((o_k == 0)[:, None] & m_ahead[None, :]) | ((o_k == 1)[:, None] & m_below[None, :])
        o_d = (o_g.to(tl.int64) * H + o_k)[:, None] + o_r[None, :]
        b_d = tl.load(p_d[None, :] + o_d, mask=m_q[:, None] & m_d, other=0.0)
        o_w = (o_g * (hidden * 2) + 1 - o_k)[None, :] + (o_u * 2)[:, None]
        b_w = tl.load(p_w + o_w, mask=(o_u < hidden)[:, None] & m_q[None, :], other=0.0).to(ACC)
        b_dh = tl.dot(b_w, b_d, b_dh, input_precision=PRECISION, out_dtype=ACC)
    return b_dh
