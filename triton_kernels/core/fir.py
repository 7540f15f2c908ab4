"""The one loop of the filters between zero-inserted images: a tile of one plane.

    y[i] = sum_k f[k] xu[i down + taps - 1 - pad - k],  xu[m] = x[m / up] where up divides m

along each axis (csrc/core/fir.h). Of the taps only those are visited that meet a pixel and not one
of the zeros between.
"""

import triton
import triton.language as tl


@triton.jit
def _start(o, up, down, taps, pad, shift):
    """The first tap of each output, and the input that it meets. `shift` keeps p from below 0."""
    p = o * down + taps - 1 - pad + shift * up
    return p % up, p // up - shift


@triton.jit
def fir_tile(
    p_x, number, p_f, o_i, o_j, H, W, x_h, x_w, up, down, taps_h, taps_w, pad_y, pad_x, shift,
    SEPARABLE: tl.constexpr, DTYPE: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Outputs o_i (BH,) x o_j (BW,) of the plane p_x, with `number`, if any, added to its pixels;
    without p_x of a plane of that number."""
    k_i, at_i = _start(o_i, up, down, taps_h, pad_y, shift)
    b_y = tl.zeros((BH, BW), DTYPE)
    for _ in range((taps_h + up - 1) // up):
        m_i = (k_i < taps_h) & (at_i >= 0) & (at_i < H)
        k_j, at_j = _start(o_j, up, down, taps_w, pad_x, shift)
        for _ in range((taps_w + up - 1) // up):
            m_j = (k_j < taps_w) & (at_j >= 0) & (at_j < W)
            mask = m_i[:, None] & m_j[None, :]
            if p_x is None:
                x = tl.where(mask, number, 0.0)
            else:
                o = (at_i * x_h)[:, None] + (at_j * x_w)[None, :]
                x = tl.load(p_x + o, mask, 0.0).to(DTYPE)
                if number is not None:
                    x = tl.where(mask, x + number, 0.0)
            if SEPARABLE:
                f = tl.load(p_f + k_i, m_i, 0.0)[:, None] * tl.load(p_f + k_j, m_j, 0.0)[None, :]
            else:
                f = tl.load(p_f + (k_i * taps_w)[:, None] + k_j[None, :], mask, 0.0)
            b_y += x * f
            k_j += up
            at_j -= 1
        k_i += up
        at_i -= 1
    return b_y
