"""Triton kernels of the concatenated ELU: y = [elu(x), elu(-x)] on the channels.

x is rows of `row` elements, y rows of twice as many: those of x, then those of -x. One of the two
values of an element is |x|, the other e^-|x| - 1.
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts

_RUNTIME = ["elements", "row"]


@triton.jit
def _places(elements, row, B: tl.constexpr):
    """Offsets in x, in y of elu(x), and the mask."""
    o_x = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    return o_x, o_x + o_x // row * row, o_x < elements


@triton.jit(do_not_specialize=_RUNTIME)
def concat_elu_forward_kernel(
    p_x, p_y, elements: tl.int64, row: tl.int64, DTYPE: tl.constexpr, B: tl.constexpr
):
    o_x, o_y, m = _places(elements, row, B)
    x = tl.load(p_x + o_x, m, 0.0).to(DTYPE)
    small, _ = expm1_parts(-tl.abs(x), exp(-tl.abs(x)))
    tl.store(p_y + o_y, tl.where(x > 0.0, x, small).to(p_y.dtype.element_ty), m)
    tl.store(p_y + o_y + row, tl.where(x > 0.0, small, -x).to(p_y.dtype.element_ty), m)


@triton.jit(do_not_specialize=_RUNTIME)
def concat_elu_backward_kernel(
    p_up, p_x, p_d_x, elements: tl.int64, row: tl.int64, DTYPE: tl.constexpr, B: tl.constexpr
):
    """The slopes are 1 and -e^-|x|, or e^-|x| and -1."""
    o_x, o_y, m = _places(elements, row, B)
    x = tl.load(p_x + o_x, m, 0.0).to(DTYPE)
    up = tl.load(p_up + o_y, m, 0.0).to(DTYPE)
    down = tl.load(p_up + o_y + row, m, 0.0).to(DTYPE)
    e = exp(-tl.abs(x))
    d_x = tl.where(x > 0.0, up - down * e, up * e - down)
    tl.store(p_d_x + o_x, d_x.to(p_d_x.dtype.element_ty), m)
