"""The Triton kernel of upfirdn2d, forward and adjoint.

    y[i] = gain sum_k f[k] xu[i down + taps - 1 - pad - k],  xu[m] = x[m / up] where up divides m

along each axis (core/fir.py). A program takes BH x BW pixels of one plane. x has any strides.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.fir import fir_tile

_RUNTIME = [
    "C", "H", "W", "out_h", "out_w", "blocks_h", "blocks_w", "up", "down", "taps_h", "taps_w",
    "pad_y", "pad_x", "x_n", "x_c", "x_h", "x_w", "shift", "gain",
]  # fmt: skip


@triton.jit(do_not_specialize=_RUNTIME)
def upfirdn2d_kernel(
    p_x, p_f, p_y,
    C: tl.int64, H: tl.int64, W: tl.int64, out_h: tl.int64, out_w: tl.int64,
    blocks_h: tl.int64, blocks_w: tl.int64, up: tl.int64, down: tl.int64,
    taps_h: tl.int64, taps_w: tl.int64, pad_y: tl.int64, pad_x: tl.int64, shift: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_h: tl.int64, x_w: tl.int64, gain: tl.float64,
    SEPARABLE: tl.constexpr, DTYPE: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    plane = i // (blocks_h * blocks_w)
    o_i = (i // blocks_w) % blocks_h * BH + tl.arange(0, BH)
    o_j = i % blocks_w * BW + tl.arange(0, BW)
    p_plane = p_x + (plane // C) * x_n + (plane % C) * x_c
    b_y = fir_tile(
        p_plane, None, p_f, o_i, o_j, H, W, x_h, x_w, up, down, taps_h, taps_w, pad_y, pad_x, shift,
        SEPARABLE, DTYPE, BH, BW,
    )  # fmt: skip
    to = p_y + (plane * out_h + o_i)[:, None] * out_w + o_j[None, :]
    b_y = b_y * tl.full((1, 1), gain, DTYPE)
    tl.store(to, b_y.to(p_y.dtype.element_ty), (o_i < out_h)[:, None] & (o_j < out_w)[None, :])
