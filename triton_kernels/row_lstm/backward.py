"""Triton kernels of the gradients of row_lstm: one walk up the rows, then the weight gradient.

Fixed order of every sum. The weight gradient is divided between programs by pixels; the last
program of a tile to finish, found by an integer counter, adds the parts up in order.
"""

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch, lstm
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.core.lstm import cell_backward, load_or_zeros, store_four
from genkern.triton_kernels.row_lstm import plan
from genkern.triton_kernels.row_lstm.tile import row_offsets, state_gradient, units_and_columns
from genkern.triton_kernels.row_lstm.tiles import TILES


@triton.jit(do_not_specialize=plan.VARYING)
def row_lstm_backward_kernel(
    p_dh, p_dhn, p_dcn, p_w, p_h0, p_c0, p_gates, p_cells,
    p_d, p_dx, p_dh0, p_dc0, p_states, p_dc,
    hidden, padded, H: tl.int64, W, plane: tl.int64,
    K: tl.constexpr, BU: tl.constexpr, BW: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dh[r] = upstream + K_ss^T * d[r + 1],  d[r] = gradient of the four sums of row r, from dh[r]

    van den Oord et al. 2016, sec. 3.1. d, dx (N, 4 hidden, H, W), dx only where its type is not
    that of d; dh (N, hidden, H, W), dhn, dcn, h0, c0, dh0, dc0 (N, hidden, W), p_gates and p_cells
    as the forward kernel saved them; states (N, hidden, H, W): row r holds the state above row r;
    scratch: dc (N, 2 slots, hidden, W); all contiguous. A program: image n.
    """
    i_n = tl.program_id(0).to(tl.int64)
    tiles, row = tl.cdiv(hidden, BU) * tl.cdiv(W, BW), hidden * W
    gate, saved = hidden * plane, padded * W
    o_image = i_n * gate
    p_d += 4 * o_image
    p_dc += i_n * 2 * row
    for step in range(H):
        r = H - 1 - step
        tl.debug_barrier()
        for tile in range(tiles):
            o_u, o_w, m = units_and_columns(tile, hidden, W, BU, BW)
            o_s = o_u[:, None] * W + o_w[None, :]
            o_x = o_u[:, None] * plane + row_offsets(r, W, o_w)[None, :]
            b_dh = load_or_zeros(p_dh, o_image + o_x, m, BU, BW, ACC)
            if step == 0:
                b_dh += load_or_zeros(p_dhn, i_n * row + o_s, m, BU, BW, ACC)
                b_dc = load_or_zeros(p_dcn, i_n * row + o_s, m, BU, BW, ACC)
            else:
                p_below = p_d + (plane - step * W)
                b_dh += state_gradient(
                    p_below, p_w, o_u, o_w, hidden, W, plane, K, BU, BW, BQ, ACC, PRECISION
                )
                b_dc = tl.load(p_dc + (step + 1) % 2 * row + o_s, mask=m, other=0.0)
            o_row = (i_n * H + r) * saved
            b_c = tl.load(p_cells + o_row + o_s, mask=m, other=0.0)
            if r == 0:
                b_cp = load_or_zeros(p_c0, i_n * row + o_s, m, BU, BW, ACC)
            else:
                b_cp = tl.load(p_cells + (o_row - saved) + o_s, mask=m, other=0.0)
            p_saved = p_gates + 4 * o_row
            b_o = tl.load(p_saved + o_s, mask=m, other=0.0)
            b_f = tl.load(p_saved + saved + o_s, mask=m, other=0.0)
            b_i = tl.load(p_saved + 2 * saved + o_s, mask=m, other=0.0)
            b_g = tl.load(p_saved + 3 * saved + o_s, mask=m, other=0.0)
            b_do, b_df, b_di, b_dg, b_dc, b_h = cell_backward(
                b_o, b_f, b_i, b_g, b_cp, b_c, b_dh, b_dc
            )
            tl.store(p_dc + step % 2 * row + o_s, b_dc, mask=m)
            store_four(p_d, o_x, gate, b_do, b_df, b_di, b_dg, m)
            if p_dx is not None:
                store_four(p_dx + 4 * o_image, o_x, gate, b_do, b_df, b_di, b_dg, m)
            if p_states is not None:
                m_next = m & (tl.full((BU, BW), r + 1, tl.int64) < H)
                tl.store(p_states + o_image + W + o_x, b_h, mask=m_next)
    tl.debug_barrier()
    for tile in range(tiles):
        o_u, o_w, m = units_and_columns(tile, hidden, W, BU, BW)
        o_s = o_u[:, None] * W + o_w[None, :]
        if p_states is not None:
            b_h = load_or_zeros(p_h0, i_n * row + o_s, m, BU, BW, ACC)
            tl.store(p_states + o_image + (o_u[:, None] * plane + o_w[None, :]), b_h, mask=m)
        if p_dh0 is not None:
            b_dh = state_gradient(
                p_d, p_w, o_u, o_w, hidden, W, plane, K, BU, BW, BQ, ACC, PRECISION
            )
            tl.store(p_dh0 + i_n * row + o_s, b_dh.to(p_dh0.dtype.element_ty), mask=m)
        if p_dc0 is not None:
            b_dc = tl.load(p_dc + (H - 1) % 2 * row + o_s, mask=m, other=0.0)
            tl.store(p_dc0 + i_n * row + o_s, b_dc.to(p_dc0.dtype.element_ty), mask=m)


@triton.jit(do_not_specialize=plan.VARYING)
def row_lstm_weight_kernel(
    p_d, p_states, p_dw, p_part, p_count,
    hidden: tl.int64, plane: tl.int64, W: tl.int64, pixels: tl.int64, pixel_tiles: tl.int64,
    splits: tl.int64, K: tl.constexpr, BO: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dw[o, j, t] = sum_{n, r, x} d[n, o, r, x] states[n, j, r, x + t - K // 2]

    d (N, 4 hidden, plane), states (N, hidden, plane), dw (4 hidden, hidden, K), contiguous; (j, t)
    runs as one index q. A program: a part of the pixels, BO rows o, BQ columns q. part (splits, 4
    hidden, hidden K); count, zeros before and after: parts of a tile that are complete.
    """
    factors = hidden * K
    tiles_q = tl.cdiv(factors, BQ)
    tiles = tl.cdiv(4 * hidden, BO) * tiles_q
    i_s, i_tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    o_o = i_tile // tiles_q * BO + tl.arange(0, BO)
    o_q = i_tile % tiles_q * BQ + tl.arange(0, BQ)
    m_o, m_q = o_o < 4 * hidden, o_q < factors
    b_sum = tl.zeros((BO, BQ), ACC)
    for i_p in range(i_s * pixel_tiles // splits, (i_s + 1) * pixel_tiles // splits):
        o_p = tl.full((BP,), i_p, tl.int64 if WIDE else tl.int32) * BP + tl.arange(0, BP)
        m_p = o_p < pixels
        o_n = o_p // plane.to(o_p.dtype)
        o_rest = o_p - o_n * plane.to(o_p.dtype)
        o_x = (o_rest % W.to(o_p.dtype))[None, :] + (o_q % K - K // 2)[:, None]
        o_image = o_n.to(tl.int64) * hidden * plane + o_rest
        b_d = tl.load(
            p_d
            + (o_image + o_n.to(tl.int64) * 3 * hidden * plane)[None, :]
            + (o_o * plane)[:, None],
            mask=m_o[:, None] & m_p[None, :],
            other=0.0,
        )
        b_h = tl.load(
            p_states + o_image[None, :] + (o_q // K * plane + o_q % K - K // 2)[:, None],
            mask=m_q[:, None] & m_p[None, :] & (o_x >= 0) & (o_x < W),
            other=0.0,
        )
        b_sum = tl.dot(b_d, tl.trans(b_h), b_sum, input_precision=PRECISION, out_dtype=ACC)
    o_w, m_w = o_o[:, None] * factors + o_q[None, :], m_o[:, None] & m_q[None, :]
    if p_part is None:
        tl.store(p_dw + o_w, b_sum.to(p_dw.dtype.element_ty), mask=m_w)
    else:
        tl.store(p_part + i_s * 4 * hidden * factors + o_w, b_sum, mask=m_w)
        tl.debug_barrier()  # all threads have stored before one of them releases the part
        if tl.atomic_add(p_count + i_tile, 1, sem="acq_rel") == splits - 1:
            b_sum = tl.zeros((BO, BQ), ACC)
            for s in range(splits):
                b_sum += tl.load(p_part + s * 4 * hidden * factors + o_w, mask=m_w, other=0.0)
            tl.store(p_dw + o_w, b_sum.to(p_dw.dtype.element_ty), mask=m_w)
            tl.store(p_count + i_tile, 0)


def backward(
    upstream_0: torch.Tensor | None,
    upstream_1: torch.Tensor | None,
    upstream_2: torch.Tensor | None,
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    gates: torch.Tensor,
    cells: torch.Tensor,
    needs_input_gates: bool,
    needs_weight_hh: bool,
    needs_h0: bool,
    needs_c0: bool,
) -> tuple[torch.Tensor, ...]:
    """Two launches, or one where the weight needs no gradient."""
    launch.require(
        plan.unsupported(input_gates, weight_hh, h0, c0, upstream_0=upstream_0,
                         upstream_1=upstream_1, upstream_2=upstream_2)
    )  # fmt: skip
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    needs = (needs_input_gates, needs_weight_hh, needs_h0, needs_c0)
    gradients = spec.empty_gradients((input_gates, weight_hh, h0, c0), needs)
    if not any(d.numel() for d in gradients):
        return gradients
    if N * hidden * W == 0:
        return tuple(d.zero_() for d in gradients)
    d_input, d_weight, d_h0, d_c0 = gradients
    same = gates.dtype == weight_hh.dtype
    d = d_input if same and needs_input_gates else gates.new_empty(N, 4 * hidden, H, W)
    states = gates.new_empty(N, hidden, H, W) if needs_weight_hh else None
    with launch.on(weight_hh):
        row_lstm_backward_kernel[launch.programs("row_lstm", N)](
            *launch.dense(upstream_0, upstream_1, upstream_2, weight_hh, h0, c0, gates, cells),
            d,
            d_input if needs_input_gates and not same else None,
            d_h0 if d_h0.numel() else None,
            d_c0 if d_c0.numel() else None,
            states,
            gates.new_empty(N, 2, hidden, W),
            hidden,
            cells.shape[2],
            H,
            W,
            H * W,
            **plan.constants("row_lstm_backward", weight_hh, W),
        )
        if states is not None:
            _weight_gradient(d, states, d_weight)
    return gradients


def _weight_gradient(d: torch.Tensor, states: torch.Tensor, d_weight: torch.Tensor) -> None:
    N, hidden, H, W = states.shape
    K = d_weight.shape[2]
    tile = plan.Tile(*launch.tile(TILES, "row_lstm_weight", d_weight))
    BO, BQ = launch.extent(tile.units, 4 * hidden), launch.extent(tile.factors, hidden * K)
    tiles = triton.cdiv(4 * hidden, BO) * triton.cdiv(hidden * K, BQ)
    pixel_tiles = triton.cdiv(N * H * W, tile.columns)
    room = plan.PARTIAL_BYTES // (d_weight.numel() * d.element_size())
    longest = triton.cdiv(pixel_tiles, plan.SHORTEST_PART)
    splits = max(1, min(plan.PROGRAMS // tiles, longest, room))
    row_lstm_weight_kernel[(tiles * splits,)](
        d,
        states,
        d_weight,
        d.new_empty(splits, d_weight.numel()) if splits > 1 else None,
        launch.counters(d, tiles) if splits > 1 else None,
        hidden,
        H * W,
        W,
        N * H * W,
        pixel_tiles,
        splits,
        K=K,
        BO=BO,
        BP=tile.columns,
        BQ=BQ,
        ACC=accumulator(d.dtype),
        PRECISION=lstm.precision(d, d_weight.dtype),
        WIDE=N * H * W > 2**31 - 2**16,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
