"""Triton kernels of the gradients of diagonal_lstm: one walk up the diagonals, then the weight
gradient, divided between programs by pixels. All sums run in an order that the shapes fix."""

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch, lstm
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.core.lstm import cell_backward, load_or_zeros, store_four
from genkern.triton_kernels.diagonal_lstm import plan
from genkern.triton_kernels.diagonal_lstm.tile import (
    pixels_before,
    state_gradient,
    top_and_end,
    units_and_rows,
)
from genkern.triton_kernels.diagonal_lstm.tiles import TILES


@triton.jit(do_not_specialize=plan.VARYING)
def diagonal_lstm_backward_kernel(
    p_dh, p_w, p_c0, p_gates, p_cells, p_d, p_dx, p_dh0, p_dc0, p_states, p_line, p_dc,
    hidden, padded, H: tl.int64, W: tl.int64, step: tl.int64, origin: tl.int64, sign: tl.int64,
    BU: tl.constexpr, BR: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dh[r, w] = upstream + K_0^T d[r + 1, w] + K_1^T d[r, w + 1],  d = gradient of the four sums

    van den Oord et al. 2016, sec. 3.2. dh (N, hidden, H, W); d, dx (N, 4 hidden, H, W), dx only
    where its type is not that of d; c0, dh0, dc0 (N, hidden, H); p_gates and p_cells as the forward
    kernel saved them; states (N, hidden, H, W): h again, in the type of the sums; scratch: line (N,
    2 slots, 4 hidden, H), the d of the diagonals, by their parity, dc (N, hidden, H); all
    contiguous. A program: image n.
    """
    i_n = tl.program_id(0).to(tl.int64)
    plane, start, line = H * W, hidden * H, 4 * hidden * H
    gate, saved = hidden * plane, padded * plane
    o_image, p_saved = i_n * gate, p_gates + 4 * i_n * saved
    p_d += 4 * o_image
    p_cells += i_n * saved
    p_line += i_n * 2 * line
    p_dc += i_n * start
    for back in range(H + W - 1):
        t = H + W - 2 - back
        tl.debug_barrier()
        top, end = top_and_end(t, H, W)
        before = pixels_before(t, H, W)
        # Where the pixel of row r lies on the diagonal before this one, but for the row.
        o_before = pixels_before(t - 1, H, W) - tl.maximum(t - W, 0)
        for tile in range(tl.cdiv(hidden, BU) * tl.cdiv(end - top, BR)):
            o_u, o_r, m = units_and_rows(tile, hidden, top, end, BU, BR)
            o_s = o_u[:, None] * H + o_r[None, :]
            o_x = o_u[:, None] * plane + (o_r * step + origin + sign * t)[None, :]
            m_r = o_r < end
            m_ahead = m_r & (t + 1 - o_r < W)
            b_dh = tl.load(p_dh + o_image + o_x, mask=m, other=0.0).to(ACC)
            p_next = p_line + (t + 1) % 2 * line + o_r * 0
            b_dh = state_gradient(
                b_dh, p_next, p_w, o_u, o_r, m_ahead, m_r & (o_r + 1 < H), hidden, H,
                2, BQ, ACC, PRECISION,
            )  # fmt: skip
            b_dc = tl.load(p_dc + o_s, mask=m & m_ahead[None, :], other=0.0)
            m_first = m & (o_r == t)[None, :]
            o_p = o_u[:, None] * plane + (before + o_r - top)[None, :]
            o_left = o_u[:, None] * plane + (o_before + o_r)[None, :]
            b_c = tl.load(p_cells + o_p, mask=m, other=0.0)
            b_left = tl.load(p_cells + o_left, mask=m & (o_r < t)[None, :], other=0.0)
            b_left += load_or_zeros(p_c0, i_n * start + o_s, m_first, BU, BR, ACC)
            b_o = tl.load(p_saved + o_p, mask=m, other=0.0)
            b_f = tl.load(p_saved + saved + o_p, mask=m, other=0.0)
            b_i = tl.load(p_saved + 2 * saved + o_p, mask=m, other=0.0)
            b_g = tl.load(p_saved + 3 * saved + o_p, mask=m, other=0.0)
            b_do, b_df, b_di, b_dg, b_dc, b_h = cell_backward(
                b_o, b_f, b_i, b_g, b_left, b_c, b_dh, b_dc
            )
            tl.store(p_dc + o_s, b_dc, mask=m)
            store_four(p_line + t % 2 * line, o_s, start, b_do, b_df, b_di, b_dg, m)
            store_four(p_d, o_x, gate, b_do, b_df, b_di, b_dg, m)
            if p_dx is not None:
                store_four(p_dx + 4 * o_image, o_x, gate, b_do, b_df, b_di, b_dg, m)
            if p_states is not None:
                tl.store(p_states + o_image + o_x, b_h, mask=m)
            if p_dc0 is not None:
                tl.store(p_dc0 + i_n * start + o_s, b_dc.to(p_dc0.dtype.element_ty), mask=m_first)
    if p_dh0 is not None:
        tl.debug_barrier()
        for tile in range(tl.cdiv(hidden, BU) * tl.cdiv(H, BR)):
            o_u, o_r, m = units_and_rows(tile, hidden, H * 0, H, BU, BR)
            # Row r's first pixel was on diagonal r, and nothing of this row came after it.
            p_first, m_r = p_line + o_r % 2 * line, o_r < H
            b_dh = state_gradient(
                tl.zeros((BU, BR), ACC), p_first, p_w, o_u, o_r, m_r, m_r, hidden, H,
                1, BQ, ACC, PRECISION,
            )  # fmt: skip
            o_s = i_n * start + o_u[:, None] * H + o_r[None, :]
            tl.store(p_dh0 + o_s, b_dh.to(p_dh0.dtype.element_ty), mask=m)


@triton.jit(do_not_specialize=plan.VARYING)
def diagonal_lstm_weight_kernel(
    p_d, p_states, p_h0, p_dw,
    hidden: tl.int64, H: tl.int64, W: tl.int64, origin: tl.int64, sign: tl.int64,
    pixels: tl.int64, pixel_tiles: tl.int64, splits: tl.int64,
    BO: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dw[o, j, k] = sum_{n, r, w} d[n, o, r, w] (states[n, j, r - 1, w], states[n, j, r, w - 1])[k]

    d (N, 4 hidden, H, W), states (N, hidden, H, W), h0 (N, hidden, H), left of the first column; dw
    (splits, 4 hidden, hidden, 2), contiguous; (j, k) runs as one index q. A program: a part of the
    pixels, BO rows o, BQ columns q.
    """
    factors, plane = hidden * 2, H * W
    tiles_q = tl.cdiv(factors, BQ)
    tiles = tl.cdiv(4 * hidden, BO) * tiles_q
    i_s, i_tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    o_o = i_tile // tiles_q * BO + tl.arange(0, BO)
    o_q = i_tile % tiles_q * BQ + tl.arange(0, BQ)
    m_o, m_q = o_o < 4 * hidden, o_q < factors
    o_j, is_left = o_q // 2, o_q % 2 == 1
    b_sum = tl.zeros((BO, BQ), ACC)
    for i_p in range(i_s * pixel_tiles // splits, (i_s + 1) * pixel_tiles // splits):
        o_p = tl.full((BP,), i_p, tl.int64) * BP + tl.arange(0, BP)
        m_p = o_p < pixels
        o_n, o_in = o_p // plane, o_p % plane
        row, is_first = o_in // W, o_in % W == origin
        o_d = (o_n * 4 * hidden * plane + o_in)[None, :] + (o_o * plane)[:, None]
        b_d = tl.load(p_d + o_d, mask=m_o[:, None] & m_p[None, :], other=0.0)
        m_h = tl.where(is_left[:, None], (is_first == 0)[None, :], (row > 0)[None, :])
        o_h = (o_n * hidden * plane + o_in)[None, :] + (o_j * plane)[:, None]
        o_h -= tl.where(is_left, sign, W)[:, None]
        m = m_q[:, None] & m_p[None, :]
        b_h = tl.load(p_states + o_h, mask=m & m_h, other=0.0)
        if p_h0 is not None:
            o_s = (o_n * hidden * H + row)[None, :] + (o_j * H)[:, None]
            m_s = m & is_left[:, None] & is_first[None, :]
            b_h += tl.load(p_h0 + o_s, mask=m_s, other=0.0).to(ACC)
        b_sum = tl.dot(b_d, tl.trans(b_h), b_sum, input_precision=PRECISION, out_dtype=ACC)
    o_w = (i_s * 4 * hidden + o_o)[:, None] * factors + o_q[None, :]
    tl.store(p_dw + o_w, b_sum.to(p_dw.dtype.element_ty), mask=m_o[:, None] & m_q[None, :])


def backward(
    upstream_0: torch.Tensor | None,
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    gates: torch.Tensor,
    cells: torch.Tensor,
    reverse: bool,
    needs_input_gates: bool,
    needs_weight_hh: bool,
    needs_h0: bool,
    needs_c0: bool,
) -> tuple[torch.Tensor, ...]:
    """Two launches, or one where the weight needs no gradient."""
    launch.require(plan.unsupported(input_gates, weight_hh, h0, c0, upstream_0))
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    needs = (needs_input_gates, needs_weight_hh, needs_h0, needs_c0)
    gradients = spec.empty_gradients((input_gates, weight_hh, h0, c0), needs)
    if N * hidden * H * W == 0:
        return tuple(d.zero_() for d in gradients)
    d_input, d_weight, d_h0, d_c0 = gradients
    same = gates.dtype == weight_hh.dtype
    d = d_input if same and needs_input_gates else gates.new_empty(N, 4 * hidden, H, W)
    states = gates.new_empty(N, hidden, H, W) if needs_weight_hh else None
    d_h, weight, h0, c0, gates, cells = launch.dense(upstream_0, weight_hh, h0, c0, gates, cells)
    with launch.on(weight_hh):
        diagonal_lstm_backward_kernel[launch.programs("diagonal_lstm", N)](
            d_h,
            weight,
            c0,
            gates,
            cells,
            d,
            d_input if needs_input_gates and not same else None,
            d_h0 if d_h0.numel() else None,
            d_c0 if d_c0.numel() else None,
            states,
            d.new_empty(N, 2, 4 * hidden, H),
            d.new_empty(N, hidden, H),
            hidden,
            spec.padded(hidden, d.dtype),
            *plan.places(H, W, reverse),
            **plan.constants("diagonal_lstm_backward", weight_hh),
        )
        if states is not None:
            _weight_gradient(d, states, h0, d_weight, reverse)
    return gradients


def _weight_gradient(
    d: torch.Tensor,
    states: torch.Tensor,
    h0: torch.Tensor | None,
    d_weight: torch.Tensor,
    reverse: bool,
) -> None:
    N, hidden, H, W = states.shape
    tile = plan.Tile(*launch.tile(TILES, "diagonal_lstm_weight", d_weight))
    BO, BQ = launch.extent(tile.units, 4 * hidden), launch.extent(tile.factors, 2 * hidden)
    tiles = triton.cdiv(4 * hidden, BO) * triton.cdiv(2 * hidden, BQ)
    pixel_tiles = triton.cdiv(N * H * W, tile.rows)
    room = plan.PARTIAL_BYTES // (d_weight.numel() * d.element_size())
    longest = triton.cdiv(pixel_tiles, plan.SHORTEST_PART)
    splits = max(1, min(plan.PROGRAMS // tiles, longest, room))
    parts = d.new_empty(splits, *d_weight.shape) if splits > 1 else d_weight
    H, W, _, origin, sign = plan.places(H, W, reverse)
    diagonal_lstm_weight_kernel[launch.programs("diagonal_lstm", tiles * splits)](
        d,
        states,
        h0,
        parts,
        hidden,
        H,
        W,
        origin,
        sign,
        N * H * W,
        pixel_tiles,
        splits,
        BO=BO,
        BP=tile.rows,
        BQ=BQ,
        ACC=accumulator(d.dtype),
        PRECISION=lstm.precision(d, d_weight.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if splits > 1:
        d_weight.copy_(parts.sum(0))
