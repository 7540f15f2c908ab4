"""Triton kernels of the filtered activation: y = D f(U (x + b)), f(z) = clamp(gain act(z), -c, c).

Two launches: the upsampled image with what is applied to it, and the filter behind that. With z =
U (x + b), formed again, s = f'(z), r = f''(z), the first writes f(z), or for the derivatives
s D^T d, s U (g + h), r U (g + h) D^T d (csrc/filtered_act/filtered_act.h). A program takes BH x BW
pixels of one plane. Images are contiguous, what is between the filters is in DTYPE.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.activation import bounded, jet
from genkern.triton_kernels.core.fir import fir_tile

_SIZES = ["H", "W", "tall_h", "tall_w", "out_h", "out_w", "blocks_h", "blocks_w", "C"]
_FIRST = ["up", "up_h", "up_w", "pad_y", "pad_x", "up_shift", "down", "down_h", "down_w"]
_FIRST += ["down_shift", "up_gain", "alpha", "gain", "clamp"]
_LAST = ["up", "down", "taps_h", "taps_w", "pad_y", "pad_x", "shift", "factor"]


@triton.jit
def _tile(blocks_h, blocks_w, BH: tl.constexpr, BW: tl.constexpr):
    """The plane of this program, its rows and its columns."""
    i = tl.program_id(0).to(tl.int64)
    o_i = (i // blocks_w) % blocks_h * BH + tl.arange(0, BH)
    return i // (blocks_h * blocks_w), o_i, i % blocks_w * BW + tl.arange(0, BW)


@triton.jit
def _plane(p_x, plane, size):
    """Where a plane begins; nothing of nothing."""
    if p_x is None:
        return None
    else:
        return p_x + plane * size


@triton.jit
def _number(p_b, channel, DTYPE: tl.constexpr):
    if p_b is None:
        return None
    else:
        return tl.load(p_b + channel).to(DTYPE)


@triton.jit(do_not_specialize=[*_SIZES, *_FIRST])
def filtered_act_tall_kernel(
    p_x, p_b, p_g, p_h, p_d, p_up, p_down, p_tall,
    C: tl.int64, H: tl.int64, W: tl.int64, tall_h: tl.int64, tall_w: tl.int64, out_h: tl.int64,
    out_w: tl.int64, blocks_h: tl.int64, blocks_w: tl.int64,
    up: tl.int64, up_h: tl.int64, up_w: tl.int64, pad_y: tl.int64, pad_x: tl.int64,
    up_shift: tl.int64, down: tl.int64, down_h: tl.int64, down_w: tl.int64, down_shift: tl.int64,
    up_gain: tl.float64, alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ALONG: tl.constexpr, ACT: tl.constexpr, CLAMPS: tl.constexpr, UP_SEPARABLE: tl.constexpr,
    DOWN_SEPARABLE: tl.constexpr, DTYPE: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """f(z); with p_d s D^T d; ALONG s U (g + h), and with p_d too r U (g + h) D^T d. p_down is the
    reversed filter: the adjoint goes `down` times up."""
    plane, o_i, o_j = _tile(blocks_h, blocks_w, BH, BW)
    unit, bound = tl.full((1, 1), up_gain, DTYPE), tl.full((1, 1), clamp, DTYPE)
    factor = tl.full((1, 1), gain, DTYPE)
    z = unit * fir_tile(
        p_x + plane * H * W, _number(p_b, plane % C, DTYPE), p_up, o_i, o_j, H, W, W, 1, up, 1,
        up_h, up_w, pad_y, pad_x, up_shift, UP_SEPARABLE, DTYPE, BH, BW,
    )  # fmt: skip
    value, slope, bend = jet(z, tl.full((1, 1), alpha, DTYPE), ACT)
    value = value * factor
    y = factor * slope
    if ALONG:
        a = unit * fir_tile(
            _plane(p_g, plane, H * W), _number(p_h, plane % C, DTYPE), p_up, o_i, o_j, H, W, W, 1,
            up, 1, up_h, up_w, pad_y, pad_x, up_shift, UP_SEPARABLE, DTYPE, BH, BW,
        )  # fmt: skip
        if p_d is not None:
            y = factor * bend
        y = y * a
    if p_d is not None:
        y = y * fir_tile(
            p_d + plane * out_h * out_w, None, p_down, o_i, o_j, out_h, out_w, out_w, 1, down, 1,
            down_h, down_w, down_h - 1, down_w - 1, down_shift, DOWN_SEPARABLE, DTYPE, BH, BW,
        )  # fmt: skip
    if p_d is None and not ALONG:
        y = value
        if CLAMPS:
            y = bounded(y, bound)
    elif CLAMPS:
        y = tl.where(tl.abs(value) > bound, 0.0, y)
    to = p_tall + (plane * tall_h + o_i)[:, None] * tall_w + o_j[None, :]
    tl.store(to, y, (o_i < tall_h)[:, None] & (o_j < tall_w)[None, :])


@triton.jit(do_not_specialize=[*_SIZES, *_LAST])
def filtered_act_last_kernel(
    p_tall, p_f, p_y,
    tall_h: tl.int64, tall_w: tl.int64, out_h: tl.int64, out_w: tl.int64, blocks_h: tl.int64,
    blocks_w: tl.int64, up: tl.int64, down: tl.int64, taps_h: tl.int64, taps_w: tl.int64,
    pad_y: tl.int64, pad_x: tl.int64, shift: tl.int64, factor: tl.float64,
    SEPARABLE: tl.constexpr, DTYPE: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """y = factor times the filtered image: D, or the adjoint of U."""
    plane, o_i, o_j = _tile(blocks_h, blocks_w, BH, BW)
    y = tl.full((1, 1), factor, DTYPE) * fir_tile(
        p_tall + plane * tall_h * tall_w, None, p_f, o_i, o_j, tall_h, tall_w, tall_w, 1, up, down,
        taps_h, taps_w, pad_y, pad_x, shift, SEPARABLE, DTYPE, BH, BW,
    )  # fmt: skip
    to = p_y + (plane * out_h + o_i)[:, None] * out_w + o_j[None, :]
    mask = (o_i < out_h)[:, None] & (o_j < out_w)[None, :]
    tl.store(to, y.to(p_y.dtype.element_ty), mask)
