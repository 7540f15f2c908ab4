"""Triton kernels of diagonal_lstm: one program walks all diagonals of an image.

Of each row the state and the cell of the pixel that came last pass in the type of the sums, through
global memory that this program alone uses: the states in two slots, by the parity of the diagonal,
and one barrier of the program a diagonal. So a diagonal reads only what lies before its barrier,
and writes only what no thread reads any more.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.lstm import load_or_zeros, sigmoid, store_four, tanh
from genkern.triton_kernels.diagonal_lstm import plan
from genkern.triton_kernels.diagonal_lstm.backward import (
    backward,
    diagonal_lstm_backward_kernel,
    diagonal_lstm_weight_kernel,
)
from genkern.triton_kernels.diagonal_lstm.plan import unsupported
from genkern.triton_kernels.diagonal_lstm.tile import (
    add_state_products,
    pixels_before,
    top_and_end,
    units_and_rows,
)

__all__ = [
    "LAUNCHERS",
    "SPILL_BYTES",
    "TENSOR_CORES",
    "configurations",
    "diagonal_lstm_backward_kernel",
    "diagonal_lstm_weight_kernel",
    "unsupported",
    "variants",
]


@triton.jit(do_not_specialize=plan.VARYING)
def diagonal_lstm_forward_kernel(
    p_x, p_w, p_h0, p_c0, p_h, p_gates, p_cells, p_state, p_c,
    hidden, padded, H: tl.int64, W: tl.int64, step: tl.int64, origin: tl.int64, sign: tl.int64,
    BU: tl.constexpr, BR: tl.constexpr, BQ: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[o, f, i, g] = x[r, w] + K_0 h[r - 1, w] + K_1 h[r, w - 1];  c = f c[r, w - 1] + i g;
    h[r, w] = o tanh(c)

    with sigmoids of o, f, i and tanh of g. van den Oord et al. 2016, "Pixel recurrent neural
    networks", sec. 3.2. x (N, 4 hidden, H, W), w (4 hidden, hidden, 2), h (N, hidden, H, W), h0, c0
    (N, hidden, H); saved: gates (N, 4, padded, pixels), cells (N, padded, pixels), pixels diagonal
    by diagonal; scratch: state (N, 2 slots, hidden, H), c (N, hidden, H); all contiguous. step,
    origin, sign: see plan.py. A program: image n.
    """
    i_n = tl.program_id(0).to(tl.int64)
    plane, slot = H * W, hidden * H
    gate = hidden * plane
    p_x += i_n * 4 * gate
    p_h += i_n * gate
    p_state += i_n * 2 * slot
    p_c += i_n * slot
    for tile in range(tl.cdiv(hidden, BU) * tl.cdiv(H, BR)):
        o_u, o_r, m = units_and_rows(tile, hidden, H * 0, H, BU, BR)
        o_s = o_u[:, None] * H + o_r[None, :]
        b_h = load_or_zeros(p_h0, i_n * slot + o_s, m, BU, BR, ACC)
        tl.store(p_state + (o_r % 2 * slot)[None, :] + o_s, b_h, mask=m)
        tl.store(p_c + o_s, load_or_zeros(p_c0, i_n * slot + o_s, m, BU, BR, ACC), mask=m)
    for t in range(H + W - 1):
        tl.debug_barrier()
        top, end = top_and_end(t, H, W)
        p_before, p_after = p_state + t % 2 * slot, p_state + (t + 1) % 2 * slot
        for tile in range(tl.cdiv(hidden, BU) * tl.cdiv(end - top, BR)):
            o_u, o_r, m = units_and_rows(tile, hidden, top, end, BU, BR)
            o_s = o_u[:, None] * H + o_r[None, :]
            o_x = o_u[:, None] * plane + (o_r * step + origin + sign * t)[None, :]
            b_o = tl.load(p_x + o_x, mask=m, other=0.0).to(ACC)
            b_f = tl.load(p_x + gate + o_x, mask=m, other=0.0).to(ACC)
            b_i = tl.load(p_x + 2 * gate + o_x, mask=m, other=0.0).to(ACC)
            b_g = tl.load(p_x + 3 * gate + o_x, mask=m, other=0.0).to(ACC)
            b_o, b_f, b_i, b_g = add_state_products(
                b_o, b_f, b_i, b_g, p_before, p_w, o_u, o_r, hidden, H, end, BQ, ACC, PRECISION
            )
            b_o, b_f, b_i, b_g = sigmoid(b_o), sigmoid(b_f), sigmoid(b_i), tanh(b_g)
            b_c = b_f * tl.load(p_c + o_s, mask=m, other=0.0) + b_i * b_g
            b_h = b_o * tanh(b_c)
            tl.store(p_after + o_s, b_h, mask=m)
            tl.store(p_c + o_s, b_c, mask=m)
            tl.store(p_h + o_x, b_h.to(p_h.dtype.element_ty), mask=m)
            if p_gates is not None:
                saved = padded * plane
                o_p = pixels_before(t, H, W) + o_r - top
                o_p = o_u[:, None] * plane + o_p[None, :]
                tl.store(p_cells + i_n * saved + o_p, b_c, mask=m)
                store_four(p_gates + 4 * i_n * saved, o_p, saved, b_o, b_f, b_i, b_g, m)


def forward(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    reverse: bool,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One launch."""
    launch.require(unsupported(input_gates, weight_hh, h0, c0))
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    kind = spec.accumulation(input_gates.dtype)
    padded, images = spec.padded(hidden, kind), N if save else 0
    h = input_gates.new_empty(N, hidden, H, W)
    gates = input_gates.new_empty(images, 4 * padded, H, W, dtype=kind)
    cells = input_gates.new_empty(images, padded, H, W, dtype=kind)
    if h.numel() == 0:
        return h, gates, cells
    with launch.on(input_gates):
        diagonal_lstm_forward_kernel[launch.programs("diagonal_lstm", N)](
            *launch.dense(input_gates, weight_hh, h0, c0),
            h,
            gates if save else None,
            cells if save else None,
            input_gates.new_empty(N, 2, hidden, H, dtype=kind),
            input_gates.new_empty(N, hidden, H, dtype=kind),
            hidden,
            padded,
            *plan.places(H, W, reverse),
            **plan.constants("diagonal_lstm_forward", weight_hh),
        )
    return h, gates, cells


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
    """Calls of other sizes and directions, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, 16, n + 1, True, False, n, n, n % 2 == 0)


def _calls(
    dtype: torch.dtype,
    hidden: int,
    W: int,
    save: bool,
    given: bool,
    N: int = 64,
    H: int = 28,
    reverse: bool = False,
) -> Iterator[tuple[str, tuple]]:
    def empty(*shape, kind=dtype):
        return torch.empty(shape, dtype=kind, device="meta")

    image, weight = empty(N, 4 * hidden, H, W), empty(4 * hidden, hidden, 2)
    start = empty(N, hidden, H) if given else None
    kind = spec.accumulation(dtype)
    padded = spec.padded(hidden, kind)
    saved = empty(N, 4 * padded, H, W, kind=kind), empty(N, padded, H, W, kind=kind)
    inputs = (image, weight, start, start)
    yield "diagonal_lstm_forward", (*inputs, reverse, save)
    needs = (True, True, given, given)
    yield "diagonal_lstm_backward", (empty(N, hidden, H, W), *inputs, *saved, reverse, *needs)


LAUNCHERS = {"diagonal_lstm_forward": forward, "diagonal_lstm_backward": backward}
TENSOR_CORES = {
    "diagonal_lstm_forward_kernel", "diagonal_lstm_backward_kernel", "diagonal_lstm_weight_kernel",
}  # fmt: skip
# What ptxas chooses to keep on the stack, of 255 registers.
SPILL_BYTES = {
    "diagonal_lstm_forward_kernel": 64,
    "diagonal_lstm_backward_kernel": 64,
}
