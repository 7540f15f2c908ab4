"""Triton kernels of the gated activation: y = tanh(a + c_a) sigmoid(b + c_b).

A program takes a stretch of the pixels of one plane (n, c). Input, condition and gradients have any
strides over (n, channel, pixel), whole images being one run of pixels; b is C channels behind a.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts

_RUNTIME = ["C", "pixels", "blocks"]
_STRIDES = [f"{tensor}_{axis}" for tensor in ("x", "c", "y") for axis in "ncp"]


@triton.jit
def _load_half(p_x, p_c, x_offset, c_offset, mask, DTYPE: tl.constexpr):
    value = tl.load(p_x + x_offset, mask, 0.0).to(DTYPE)
    if p_c is None:
        return value
    else:
        return value + tl.load(p_c + c_offset, mask, 0.0).to(DTYPE)


@triton.jit
def _functions(a, b):
    """tanh a, sigmoid b and their slopes, no tail of which is a difference of near numbers."""
    f = exp(-2.0 * tl.abs(a))
    m, _ = expm1_parts(-2.0 * tl.abs(a), f)
    tanh = tl.where(a < 0.0, m, -m) / (2.0 + m)
    q = 1.0 / (1.0 + f)
    e = exp(-tl.abs(b))
    r = 1.0 / (1.0 + e)
    return tanh, tl.where(b < 0.0, e * r, r), 4.0 * f * q * q, e * r * r


@triton.jit
def _places(i_plane, o_pixel, C, stride_n, stride_c, stride_p):
    """Offsets of a plane's pixels, and the distance to the plane of b."""
    n = i_plane // C
    return n * stride_n + (i_plane % C) * stride_c + o_pixel * stride_p, C * stride_c


@triton.jit(do_not_specialize=_RUNTIME + _STRIDES)
def gated_activation_forward_kernel(
    p_x, p_c, p_y,
    C: tl.int64, pixels: tl.int64, blocks: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_p: tl.int64,
    c_n: tl.int64, c_c: tl.int64, c_p: tl.int64,
    y_n: tl.int64, y_c: tl.int64, y_p: tl.int64,
    DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    i_plane = i // blocks
    o_pixel = (i % blocks) * B + tl.arange(0, B)
    mask = o_pixel < pixels
    o_x, x_far = _places(i_plane, o_pixel, C, x_n, x_c, x_p)
    o_c, c_far = _places(i_plane, o_pixel, C, c_n, c_c, c_p)
    a = _load_half(p_x, p_c, o_x, o_c, mask, DTYPE)
    b = _load_half(p_x, p_c, o_x + x_far, o_c + c_far, mask, DTYPE)
    tanh, sigmoid, _, _ = _functions(a, b)
    o_y, _ = _places(i_plane, o_pixel, C, y_n, y_c, y_p)
    tl.store(p_y + o_y, (tanh * sigmoid).to(p_y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=_RUNTIME + _STRIDES + ["d_n", "d_c", "d_p"])
def gated_activation_backward_kernel(
    p_up, p_x, p_c, p_d_x, p_d_c,
    C: tl.int64, pixels: tl.int64, blocks: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_p: tl.int64,
    c_n: tl.int64, c_c: tl.int64, c_p: tl.int64,
    y_n: tl.int64, y_c: tl.int64, y_p: tl.int64,
    d_n: tl.int64, d_c: tl.int64, d_p: tl.int64,
    SUM: tl.constexpr, DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """SUM: p_d_c (N, 2C) holds sums over the pixels, and one program takes a whole plane."""
    i = tl.program_id(0).to(tl.int64)
    i_plane = i // blocks
    start = (i % blocks) * B
    end = pixels if SUM else tl.minimum(start + B, pixels)
    sum_a = tl.zeros((B,), DTYPE)
    sum_b = tl.zeros((B,), DTYPE)
    while start < end:
        o_pixel = start + tl.arange(0, B)
        mask = o_pixel < end
        o_x, x_far = _places(i_plane, o_pixel, C, x_n, x_c, x_p)
        o_c, c_far = _places(i_plane, o_pixel, C, c_n, c_c, c_p)
        o_y, _ = _places(i_plane, o_pixel, C, y_n, y_c, y_p)
        o_d, d_far = _places(i_plane, o_pixel, C, d_n, d_c, d_p)
        a = _load_half(p_x, p_c, o_x, o_c, mask, DTYPE)
        b = _load_half(p_x, p_c, o_x + x_far, o_c + c_far, mask, DTYPE)
        up = tl.load(p_up + o_y, mask, 0.0).to(DTYPE)
        tanh, sigmoid, tanh_slope, sigmoid_slope = _functions(a, b)
        of_a = tl.where(mask, up * sigmoid * tanh_slope, 0.0)
        of_b = tl.where(mask, up * tanh * sigmoid_slope, 0.0)
        if p_d_x is not None:
            tl.store(p_d_x + o_d, of_a.to(p_d_x.dtype.element_ty), mask)
            tl.store(p_d_x + o_d + d_far, of_b.to(p_d_x.dtype.element_ty), mask)
        if SUM:
            sum_a += of_a
            sum_b += of_b
        elif p_d_c is not None:
            tl.store(p_d_c + o_d, of_a.to(p_d_c.dtype.element_ty), mask)
            tl.store(p_d_c + o_d + d_far, of_b.to(p_d_c.dtype.element_ty), mask)
        start += B
    if SUM:
        to = p_d_c + (i_plane // C) * 2 * C + i_plane % C
        tl.store(to, tl.sum(sum_a, 0).to(p_d_c.dtype.element_ty))
        tl.store(to + C, tl.sum(sum_b, 0).to(p_d_c.dtype.element_ty))
