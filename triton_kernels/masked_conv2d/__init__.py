"""Triton kernel of masked_conv2d: an implicit matrix product over the live taps.

channels_last images and weights are the fast layout, because adjacent channels load as vectors.
Images that are not dense are copied once.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.masked_conv2d import plan
from genkern.triton_kernels.masked_conv2d.backward import (
    backward,
    masked_conv2d_backward_kernel,
    masked_conv2d_weight_kernel,
)
from genkern.triton_kernels.masked_conv2d.plan import unsupported
from genkern.triton_kernels.masked_conv2d.tile import convolve

__all__ = [
    "LAUNCHERS",
    "SPILL_BYTES",
    "TENSOR_CORES",
    "configurations",
    "masked_conv2d_backward_kernel",
    "masked_conv2d_weight_kernel",
    "unsupported",
    "variants",
]


@triton.jit(do_not_specialize=plan.VARYING)
def masked_conv2d_forward_kernel(
    p_x, p_w, p_b, p_y, pixels, plane, H, W, C_in, C_out, dilation, top, left, rows, columns,
    F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """y[n, o, p] = b[o] + sum_{i, live t} w[o, i, t] x[n, i, p + t]

    van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4.
    x (N, C_in, H, W), w (C_out, C_in, KH, KW), b (C_out,), y (N, C_out, rows, columns), dense: the
    pixels from (top, left) on.
    A program: T.pixels pixels of all images x T.written output channels.
    """
    convolve(
        tl.program_id(0), p_x, p_w, p_b, p_y, pixels, plane, H, W, C_in, C_out, dilation,
        top, left, rows, columns, False, F, T,
    )  # fmt: skip


def window(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask_type: int,
    data_channels: int,
    parts: int,
    dilation: int,
    channels_last: bool,
    top: int,
    bottom: int,
    left: int,
    right: int,
) -> torch.Tensor:
    """One launch: the pixels [top, bottom) x [left, right) of the output."""
    launch.require(unsupported(input, weight, bias))
    C_out, C_in = weight.shape[:2]
    output = spec.empty_image(input[:, :, top:bottom, left:right], C_out, channels_last)
    if output.numel() == 0:
        return output
    input, (weight, _) = plan.dense_image(input, channels_last), plan.dense_weight(weight)
    facts = plan.facts(input, weight, mask_type, data_channels, parts, channels_last)
    sections, taps = facts.GROUPS * facts.PARTS, plan.live_taps(facts)
    written = triton.cdiv(C_out, sections)
    tile = plan.tile_of(input, channels_last, written=written, read=C_in, taps=taps)
    pixels, plane, H, W = plan.sizes(input)
    pixels = plan.sizes(output)[0]
    programs = plan.convolution_programs(tile, pixels, C_out, sections)
    with launch.on(input):
        masked_conv2d_forward_kernel[launch.programs(plan.OP, programs)](
            input,
            weight,
            None if bias is None else bias.contiguous(),
            output,
            pixels,
            plane,
            H,
            W,
            C_in,
            C_out,
            dilation,
            top,
            left,
            bottom - top,
            right - left,
            F=facts,
            T=tile,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return output


def forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask_type: int,
    data_channels: int,
    parts: int,
    dilation: int,
    channels_last: bool,
) -> torch.Tensor:
    """One launch."""
    H, W = input.shape[2:]
    options = (mask_type, data_channels, parts, dilation, channels_last)
    return window(input, weight, bias, *options, 0, H, 0, W)


def _calls(
    dtype: torch.dtype,
    C_in: int,
    C_out: int,
    groups: int,
    last: bool,
    N: int = 2,
    side: int = 28,
    parts: int = 1,
) -> Iterator[tuple[str, tuple]]:
    def image(*shape):
        memory_format = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device="meta", memory_format=memory_format)

    first = C_in < launch.SMALLEST
    taps, mask_type = (7, plan.A) if first else (3, plan.B)
    input, output = image(N, C_in, side, side + 1), image(N, C_out, side, side + 1)
    bias = image(1, C_out, 1, 1).flatten()
    call = (input, image(C_out, C_in, taps, taps), bias, mask_type, groups, parts, 1, last)
    yield "masked_conv2d_forward", call
    yield "masked_conv2d_window", (*call, side // 2, side, 0, 1)  # nothing new to compile
    yield "masked_conv2d_backward", (output, *call, True, True, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Calls that reach every kernel in every configuration, TF32 included; the first call of a
    dtype is the one to look at where there is time for one."""
    for dtype in spec.FLOATING:
        if dtype != torch.float64:
            yield from _calls(dtype, 128, 128, 1, True)
        yield from _calls(dtype, 1, 64, 1, False)
    yield from _calls(torch.float64, 20, 20, 2, True)
    yield from _calls(torch.bfloat16, 48, 96, 3, False, parts=2)
    yield from _calls(torch.bfloat16, 3, 96, 3, True)
    yield from _calls(torch.bfloat16, 256, 32, 3, True)
    with launch.allowing_tf32():
        yield from _calls(torch.float32, 128, 128, 1, True)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, 16, 32, 1, False, n, n + 2)


LAUNCHERS = {
    "masked_conv2d_forward": forward,
    "masked_conv2d_backward": backward,
    "masked_conv2d_window": window,
}
# In float32 and float64, of 72 to 96 registers: what ptxas saves around the two parts of a program.
SPILL_BYTES = {"masked_conv2d_backward_kernel": 32}
TENSOR_CORES = {"masked_conv2d_forward_kernel", "masked_conv2d_backward_kernel"}
