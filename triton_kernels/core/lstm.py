"""The LSTM cell and what its scans have in common."""

import torch
import triton
import triton.language as tl

from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import exp, expm1_parts


def precision(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    """States pass in float32, so that half precision splits its factors in two: "bf16x3".

    float32 uses TF32 only where torch's own matrix products may. The interpreter, which knows
    neither, runs on CPU tensors.
    """
    if tensor.device.type == "cpu" or dtype == torch.float64:
        return "ieee"
    if dtype in (torch.bfloat16, torch.float16):
        return "bf16x3"
    return launch.float32_precision()


@triton.jit
def sigmoid(b_x):
    return 1.0 / (1.0 + exp(-b_x))


@triton.jit
def tanh(b_x):
    b_m, _ = expm1_parts(-2.0 * tl.abs(b_x), exp(-2.0 * tl.abs(b_x)))
    return tl.where(b_x < 0, b_m, -b_m) / (2.0 + b_m)


@triton.jit
def cell_backward(b_o, b_f, b_i, b_g, b_before, b_c, b_dh, b_dc):
    """Gradients of the four sums and of the cell before, and the state, from the saved gates."""
    b_t = tanh(b_c)
    b_dc += b_dh * b_o * (1.0 - b_t * b_t)
    b_do = b_dh * b_t * b_o * (1.0 - b_o)
    b_df = b_dc * b_before * b_f * (1.0 - b_f)
    b_di = b_dc * b_g * b_i * (1.0 - b_i)
    b_dg = b_dc * b_i * (1.0 - b_g * b_g)
    return b_do, b_df, b_di, b_dg, b_dc * b_f, b_o * b_t


@triton.jit
def load_or_zeros(p, o, m, BU: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr):
    """What an optional tensor holds at `o`, (BU, BW), or zeros without it."""
    if p is None:
        return tl.zeros((BU, BW), ACC)
    else:
        return tl.load(p + o, mask=m, other=0.0).to(ACC)


@triton.jit
def store_four(p, o, gate, b_o, b_f, b_i, b_g, m):
    """Values of the four gates, which are `gate` elements apart."""
    tl.store(p + o, b_o.to(p.dtype.element_ty), mask=m)
    tl.store(p + gate + o, b_f.to(p.dtype.element_ty), mask=m)
    tl.store(p + 2 * gate + o, b_i.to(p.dtype.element_ty), mask=m)
    tl.store(p + 3 * gate + o, b_g.to(p.dtype.element_ty), mask=m)
