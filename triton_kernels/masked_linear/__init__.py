"""Launchers of the masked linear layer's Triton kernels: one launch forward, two backward."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.masked_linear.kernels import (
    masked_linear_backward_kernel,
    masked_linear_forward_kernel,
    masked_linear_weight_kernel,
)

_OP = "masked_linear"
_WARPS, _STAGES = 8, 3


class Facts(NamedTuple):
    """What all kernels of a call are compiled for."""

    STRICT: bool
    ACC: tl.dtype
    DOT: tl.dtype  # of the operands of products
    PRECISION: str


class Tile(NamedTuple):
    """Extent of a tile: rows of the batch, units that are written, steps of the sum."""

    batch: int
    width: int
    step: int


def unsupported(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    upstream: torch.Tensor | None = None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    others = {"weight": weight, "bias": bias, "upstream_0": upstream}
    return launch.mismatch(_OP, "input", input, others)


def _facts(x: torch.Tensor, strict: bool) -> Facts:
    # CPU tensors are those of the interpreter, whose products of bfloat16 are wrong.
    interpreted = x.device.type == "cpu" and x.dtype == torch.bfloat16
    dot = tl.float32 if interpreted else getattr(tl, spec.dtype_name(x.dtype))
    precision = launch.float32_precision() if x.dtype == torch.float32 else "ieee"
    return Facts(strict, accumulator(x.dtype), dot, precision)


def _tile(x: torch.Tensor) -> Tile:
    return Tile(32, 32, 16) if x.dtype == torch.float64 else Tile(64, 64, 32)


def _sizes(x: torch.Tensor, weight: torch.Tensor) -> tuple[int, int, int]:
    """N, C_in, C_out"""
    return x.shape[:-1].numel(), weight.shape[1], weight.shape[0]


def forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_degrees: torch.Tensor,
    out_degrees: torch.Tensor,
    strict: bool,
) -> torch.Tensor:
    launch.require(unsupported(input, weight, bias))
    x, b, seen, seeing = launch.dense(input, bias, in_degrees, out_degrees)
    y = input.new_empty((*input.shape[:-1], weight.shape[0]))
    if y.numel() == 0:
        return y
    tile, (N, C_in, C_out) = _tile(input), _sizes(input, weight)
    programs = triton.cdiv(N, tile.batch) * triton.cdiv(C_out, tile.width)
    with launch.on(input):
        masked_linear_forward_kernel[launch.programs(_OP, programs)](
            x, weight, b, y, seen, seeing, N, C_in, C_out, *weight.stride(),
            F=_facts(input, strict), T=tile, num_warps=_WARPS, num_stages=_STAGES,
            maxnreg=255,  # else the compiler spills so that more programs fit
        )  # fmt: skip
    return y


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_degrees: torch.Tensor,
    out_degrees: torch.Tensor,
    strict: bool,
    needs_input: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    launch.require(unsupported(input, weight, bias, upstream_0))
    d_y, x, seen, seeing = launch.dense(upstream_0, input, in_degrees, out_degrees)
    tile, facts, (N, C_in, C_out) = _tile(input), _facts(input, strict), _sizes(input, weight)
    d_x = input.new_empty(input.shape if needs_input else 0)
    d_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    d_bias = weight.new_empty(C_out if needs_bias else 0)
    options = {"F": facts, "T": tile, "num_warps": _WARPS, "num_stages": _STAGES}
    with launch.on(input):
        if d_x.numel():
            programs = triton.cdiv(N, tile.batch) * triton.cdiv(C_in, tile.width)
            masked_linear_backward_kernel[launch.programs(_OP, programs)](
                d_y, weight, d_x, seen, seeing, N, C_in, C_out, *weight.stride(), **options
            )
        if d_weight.numel() or d_bias.numel():
            columns = triton.cdiv(C_in, tile.width) if d_weight.numel() else 1
            strides = d_weight.stride() if d_weight.numel() else (0, 0)
            masked_linear_weight_kernel[
                launch.programs(_OP, triton.cdiv(C_out, tile.width) * columns)
            ](
                d_y, x, d_weight if d_weight.numel() else None, d_bias if needs_bias else None,
                seen, seeing, N, C_in, C_out, *strides, **options,
            )  # fmt: skip
    return d_x, d_weight, d_bias


LAUNCHERS = {"masked_linear_forward": forward, "masked_linear_backward": backward}
TENSOR_CORES = {
    "masked_linear_forward_kernel", "masked_linear_backward_kernel", "masked_linear_weight_kernel",
}  # fmt: skip


def _call(
    dtype: torch.dtype, strict: bool, N: int, C_in: int, C_out: int
) -> Iterator[tuple[str, tuple]]:
    x, y, w, b = (
        torch.empty(shape, dtype=dtype, device="meta")
        for shape in ((N, C_in), (N, C_out), (C_out, C_in), (C_out,))
    )
    degrees = (torch.empty(size, dtype=torch.int64, device="meta") for size in (C_in, C_out))
    call = (x, w, b, *degrees, strict)
    yield "masked_linear_forward", call
    yield "masked_linear_backward", (y, *call, True, True, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with both comparisons, and TF32, on meta tensors."""
    for dtype in spec.FLOATING:
        for strict in (False, True):
            yield from _call(dtype, strict, 100, 784, 500)
    with launch.allowing_tf32():
        yield from _call(torch.float32, False, 100, 784, 500)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, False, n, n + 1, 2 * n)


# In float64, whatever the tile.
SPILL_BYTES = {"masked_linear_backward_kernel": 40}
