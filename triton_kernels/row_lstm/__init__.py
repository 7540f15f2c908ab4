"""Triton kernel of row_lstm: one program walks all rows of an image.

State and cell pass from row to row in the type of the sums, through global memory that this
program alone uses: two slots, by the parity of the row, and one barrier of the program a row. So a
row reads only what lies before its barrier, and writes only what no thread reads any more.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.lstm import load_or_zeros, sigmoid, store_four, tanh
from genkern.triton_kernels.row_lstm import plan
from genkern.triton_kernels.row_lstm.backward import (
    backward,
    row_lstm_backward_kernel,
    row_lstm_weight_kernel,
)
from genkern.triton_kernels.row_lstm.plan import unsupported
from genkern.triton_kernels.row_lstm.tile import add_state_products, row_offsets, units_and_columns

__all__ = [
    "LAUNCHERS",
    "SPILL_BYTES",
    "TENSOR_CORES",
    "VARIANTS",
    "configurations",
    "row_lstm_backward_kernel",
    "row_lstm_weight_kernel",
    "unsupported",
    "variants",
]


@triton.jit(do_not_specialize=plan.VARYING)
def row_lstm_forward_kernel(
    p_x, p_w, p_h0, p_c0, p_h, p_hn, p_cn, p_gates, p_cells, p_state,
    hidden, padded, H: tl.int64, W, plane: tl.int64,
    K: tl.constexpr, BU: tl.constexpr, BW: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[o, f, i, g] = x[r] + K_ss * h[r - 1];  c = f c_prev + i g;  h[r] = o tanh(c)

    with sigmoids of o, f, i and tanh of g. van den Oord et al. 2016, "Pixel recurrent neural
    networks", sec. 3.1. x (N, 4 hidden, H, W), w (4 hidden, hidden, K), h (N, hidden, H, W), h0,
    c0, hn, cn (N, hidden, W); saved: gates (N, H, 4 padded, W), cells (N, H, padded, W); scratch:
    state (N, 2 slots, h and c, hidden, W); all contiguous. A program: image n.
    """
    i_n = tl.program_id(0).to(tl.int64)
    tiles, row = tl.cdiv(hidden, BU) * tl.cdiv(W, BW), hidden * W
    gate, saved = hidden * plane, padded * W
    p_x += i_n * 4 * gate
    p_h += i_n * gate
    p_state += i_n * 4 * row
    for tile in range(tiles):
        o_u, o_w, m = units_and_columns(tile, hidden, W, BU, BW)
        o_s = o_u[:, None] * W + o_w[None, :]
        tl.store(p_state + o_s, load_or_zeros(p_h0, i_n * row + o_s, m, BU, BW, ACC), mask=m)
        tl.store(p_state + row + o_s, load_or_zeros(p_c0, i_n * row + o_s, m, BU, BW, ACC), mask=m)
    for r in range(H):
        tl.debug_barrier()
        p_before, p_after = p_state + r % 2 * 2 * row, p_state + (r + 1) % 2 * 2 * row
        for tile in range(tiles):
            o_u, o_w, m = units_and_columns(tile, hidden, W, BU, BW)
            o_s = o_u[:, None] * W + o_w[None, :]
            o_x = o_u[:, None] * plane + row_offsets(r, W, o_w)[None, :]
            b_o = tl.load(p_x + o_x, mask=m, other=0.0).to(ACC)
            b_f = tl.load(p_x + gate + o_x, mask=m, other=0.0).to(ACC)
            b_i = tl.load(p_x + 2 * gate + o_x, mask=m, other=0.0).to(ACC)
            b_g = tl.load(p_x + 3 * gate + o_x, mask=m, other=0.0).to(ACC)
            b_o, b_f, b_i, b_g = add_state_products(
                b_o, b_f, b_i, b_g, p_before, p_w, o_u, o_w, hidden, W, K, BQ, ACC, PRECISION
            )
            b_o, b_f, b_i, b_g = sigmoid(b_o), sigmoid(b_f), sigmoid(b_i), tanh(b_g)
            b_c = b_f * tl.load(p_before + row + o_s, mask=m, other=0.0) + b_i * b_g
            b_h = b_o * tanh(b_c)
            tl.store(p_after + o_s, b_h, mask=m)
            tl.store(p_after + row + o_s, b_c, mask=m)
            tl.store(p_h + o_x, b_h.to(p_h.dtype.element_ty), mask=m)
            if p_gates is not None:
                o_row = (i_n * H + r) * saved
                tl.store(p_cells + o_row + o_s, b_c, mask=m)
                store_four(p_gates + 4 * o_row, o_s, saved, b_o, b_f, b_i, b_g, m)
            if r == H - 1:
                tl.store(p_hn + i_n * row + o_s, b_h.to(p_hn.dtype.element_ty), mask=m)
                tl.store(p_cn + i_n * row + o_s, b_c.to(p_cn.dtype.element_ty), mask=m)


def forward(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One launch."""
    launch.require(unsupported(input_gates, weight_hh, h0, c0))
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    kind = spec.accumulation(input_gates.dtype)
    padded = spec.padded(hidden, kind)
    h = input_gates.new_empty(N, hidden, H, W)
    h_n, c_n = (input_gates.new_empty(N, hidden, W) for _ in range(2))
    gates = input_gates.new_empty(N if save else 0, H, 4 * padded, W, dtype=kind)
    cells = input_gates.new_empty(N if save else 0, H, padded, W, dtype=kind)
    if h_n.numel() == 0:
        return h, h_n, c_n, gates, cells
    state = input_gates.new_empty(N, 2, 2, hidden, W, dtype=kind)
    with launch.on(input_gates):
        row_lstm_forward_kernel[launch.programs("row_lstm", N)](
            *launch.dense(input_gates, weight_hh, h0, c0),
            h,
            h_n,
            c_n,
            gates if save else None,
            cells if save else None,
            state,
            hidden,
            padded,
            H,
            W,
            H * W,
            **plan.constants("row_lstm_forward", weight_hh, W),
        )
    return h, h_n, c_n, gates, cells


def configurations() -> Iterator[tuple[str, tuple]]:
    """Calls that reach every kernel in every configuration, TF32 included."""
    for dtype in spec.FLOATING:
        if dtype != torch.float64:
            yield from _calls(dtype, 128, 32, False, True)
        if dtype != torch.float16:
            yield from _calls(dtype, 16, 28, True, False)
    with launch.allowing_tf32():
        yield from _calls(torch.float32, 128, 32, True, False)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, 16, 28, True, False, n, n)


def _calls(
    dtype: torch.dtype,
    hidden: int,
    W: int,
    save: bool,
    given: bool,
    N: int = 64,
    H: int | None = None,
) -> Iterator[tuple[str, tuple]]:
    H = W if H is None else H

    def empty(*shape, kind=dtype):
        return torch.empty(shape, dtype=kind, device="meta")

    image, weight = empty(N, 4 * hidden, H, W), empty(4 * hidden, hidden, 3)
    state = empty(N, hidden, W) if given else None
    kind = spec.accumulation(dtype)
    padded = spec.padded(hidden, kind)
    saved = empty(N, H, 4 * padded, W, kind=kind), empty(N, H, padded, W, kind=kind)
    inputs = (image, weight, state, state)
    yield "row_lstm_forward", (*inputs, save)
    upstream = (None, state, state) if given else (empty(N, hidden, H, W), None, None)
    yield "row_lstm_backward", (*upstream, *inputs, *saved, True, True, given, given)


LAUNCHERS = {"row_lstm_forward": forward, "row_lstm_backward": backward}
TENSOR_CORES = {"row_lstm_forward_kernel", "row_lstm_backward_kernel", "row_lstm_weight_kernel"}
# What ptxas chooses to keep on the stack, of 128 or 255 registers.
SPILL_BYTES = {
    "row_lstm_forward_kernel": 32,
    "row_lstm_backward_kernel": 64,
}
# The weight gradient of a small batch is not divided.
VARIANTS = {"row_lstm_weight_kernel": 2}
