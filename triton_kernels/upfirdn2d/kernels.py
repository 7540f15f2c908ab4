"""The Triton kernel of upfirdn2d, forward and adjoint.

    y[i] = gain sum_k f[k] xu[i down + taps - 1 - pad - k],  xu[m] = x[m / up] where up divides m

along each axis (csrc/upfirdn2d/upfirdn2d.h). A program takes BH x BW pixels of one plane; of the
taps only those are visited that meet a pixel and not one of the zeros between. x has any strides.
"""

import triton
import triton.language as tl

_RUNTIME = [
    "C", "H", "W", "out_h", "out_w", "blocks_h", "blocks_w", "up", "down", "taps_h", "taps_w",
    "pad_y", "pad_x", "x_n", "x_c", "x_h", "x_w", "shift", "gain",
]  # fmt: skip


@triton.jit
def _start(o, up, down, taps, pad, shift):
    """The first tap of each output, and the input that it meets. `shift` keeps p from below 0."""
    p = o * down + taps - 1 - pad + shift * up
    return p % up, p // up - shift


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
    k_i, at_i = _start(o_i, up, down, taps_h, pad_y, shift)
    b_y = tl.zeros((BH, BW), DTYPE)
    for _ in range((taps_h + up - 1) // up):
        m_i = (k_i < taps_h) & (at_i >= 0) & (at_i < H)
        k_j, at_j = _start(o_j, up, down, taps_w, pad_x, shift)
        for _ in range((taps_w + up - 1) // up):
            m_j = (k_j < taps_w) & (at_j >= 0) & (at_j < W)
            mask = m_i[:, None] & m_j[None, :]
            x = tl.load(p_plane + (at_i * x_h)[:, None] + (at_j * x_w)[None, :], mask, 0.0)
            if SEPARABLE:
                f = tl.load(p_f + k_i, m_i, 0.0)[:, None] * tl.load(p_f + k_j, m_j, 0.0)[None, :]
            else:
                f = tl.load(p_f + (k_i * taps_w)[:, None] + k_j[None, :], mask, 0.0)
            b_y += x.to(DTYPE) * f
            k_j += up
            at_j -= 1
        k_i += up
        at_i -= 1
    to = p_y + (plane * out_h + o_i)[:, None] * out_w + o_j[None, :]
    b_y = b_y * tl.full((1, 1), gain, DTYPE)
    tl.store(to, b_y.to(p_y.dtype.element_ty), (o_i < out_h)[:, None] & (o_j < out_w)[None, :])
