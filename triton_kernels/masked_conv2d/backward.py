"""Triton kernels of the gradients of masked_conv2d. Fixed order of every sum, no atomics.

The first launch forms the gradient of the input (the mirrored convolution) and, for parts of the
pixels, those of weight and bias; the second adds these parts up.
"""

import torch
import triton
import triton.language as tl

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.masked_conv2d import plan
from genkern.triton_kernels.masked_conv2d.tile import (
    channel_offsets,
    convolve,
    load_shifted,
    pixel_offsets,
    pixels_of,
    shifts_of,
    steps_of,
    taps_and_channels,
)

PARTIAL_BYTES = 64 << 20  # of the parts of a weight gradient, at most
PROGRAMS = 4 * 132  # that form a weight gradient, where there are pixels enough
SHORTEST_PART = 4  # tiles of pixels


@triton.jit
def weight_part(
    i_program, p_x, p_g, p_part, p_bias_part, pixels, plane, H, W, C_in, C_out, dilation,
    splits, pixel_tiles, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """part[s, o, t, i] = sum_{p in part s} g[o, p] x[i, p + t],  bias part[s, o] = sum_p g[o, p]

    Program: part s of the pixels, T.written output channels, T.read input channels at a tap (where
    T.flat: pairs of tap and channel).
    """
    BP: tl.constexpr = T.pixels
    BO: tl.constexpr = T.written
    BQ: tl.constexpr = T.read
    TAPS: tl.constexpr = F.WHOLE
    CENTRE: tl.constexpr = 1 if F.GROUPS > 1 or not F.EXCLUDE else 0
    factors = (TAPS + CENTRE) * C_in
    tiles_o = tl.cdiv(C_out, BO)
    tiles_q = steps_of(TAPS + CENTRE, C_in, BQ, T.flat) if p_part is not None else 1
    i_s, i_o = i_program // (tiles_o * tiles_q), i_program // tiles_q % tiles_o
    i_q = i_program % tiles_q
    o_o = i_o * BO + tl.arange(0, BO)
    m_o = o_o < C_out
    b_part, b_bias = tl.zeros((BO, BQ), F.ACC), tl.zeros((BO,), F.ACC)
    if p_part is not None:
        o_t, o_c, m_c = taps_and_channels(i_q, 0, TAPS + CENTRE, 0, C_in, BQ, T.flat)
        o_dy, o_dx = shifts_of(o_t, dilation, F)
    begin = i_s.to(tl.int64) * pixel_tiles // splits
    end = (i_s.to(tl.int64) + 1) * pixel_tiles // splits
    for i_p in range(begin, end):
        o_p, o_n, o_y, o_x, m_p = pixels_of(i_p, pixels, plane, W, BP, F.WIDE)
        o_pixel = pixel_offsets(o_p, o_n, plane, C_out, F.LAST)
        b_g = tl.load(
            p_g + (o_pixel[:, None] + channel_offsets(o_o, plane, F.LAST)[None, :]),
            mask=m_p[:, None] & m_o[None, :],
            other=0.0,
        ).to(F.DOT)
        b_bias += tl.sum(b_g.to(F.ACC), axis=0)
        if p_part is not None:
            o_pixel = pixel_offsets(o_p, o_n, plane, C_in, F.LAST)
            b_x = load_shifted(
                p_x, o_pixel, o_y, o_x, m_p, o_dy, o_dx, o_c, m_c, plane, H, W, C_in, F.LAST
            ).to(F.DOT)
            b_part = tl.dot(
                tl.trans(b_g), b_x, b_part, input_precision=F.PRECISION, out_dtype=F.ACC
            )
    o_row = (i_s * C_out + o_o).to(tl.int64)
    if p_part is not None:
        o_factor = o_t * C_in + o_c
        tl.store(p_part + o_row[:, None] * factors + o_factor, b_part, mask=m_o[:, None] & m_c)
    if p_bias_part is not None:
        if i_q == 0:
            tl.store(p_bias_part + o_row, b_bias, mask=m_o)


@triton.jit(do_not_specialize=plan.VARYING)
def masked_conv2d_backward_kernel(
    p_x, p_w, p_g, p_dx, p_part, p_bias_part,
    pixels, plane, H, W, C_in, C_out, dilation, programs, splits, pixel_tiles,
    F: tl.constexpr, T: tl.constexpr, T_W: tl.constexpr,
):  # fmt: skip
    """dx[n, i, p] = sum_{o, live t} w[o, i, t] g[n, o, p - t];  parts of dw[o, i, t] and db[o]

    van den Oord et al. 2016, sec. 3.4. x, dx (N, C_in, H, W), g (N, C_out, H, W), w (C_out, C_in,
    KH, KW), dense; parts (splits, C_out, live taps, C_in) and (splits, C_out).
    The first `programs` programs form dx, tile T; the others the parts, tile T_W.
    """
    i_program = tl.program_id(0)
    if i_program < programs:
        if p_dx is not None:
            convolve(
                i_program, p_g, p_w, None, p_dx, pixels, plane, H, W, C_out, C_in, dilation,
                0, 0, H, W, True, F, T,
            )  # fmt: skip
    else:
        if p_part is not None or p_bias_part is not None:
            weight_part(
                i_program - programs, p_x, p_g, p_part, p_bias_part,
                pixels, plane, H, W, C_in, C_out, dilation, splits, pixel_tiles, F, T_W,
            )  # fmt: skip


@triton.jit(do_not_specialize=plan.VARYING)
def masked_conv2d_weight_kernel(
    p_part, p_bias_part, p_dw, p_db, C_in, C_out, splits, elements, part_size, programs,
    F: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """dw[o, i, t] = sum_s part[s, o, t, i] where t is live for (o, i), else 0;  db[o] likewise

    part (splits, C_out, live taps, C_in), dw (C_out, C_in, KH, KW) in the format of the weight.
    Sums run in order of s. The first `programs` programs form dw, the others db.
    """
    AREA: tl.constexpr = F.KH * F.KW
    TAPS: tl.constexpr = F.WHOLE
    CENTRE: tl.constexpr = 1 if F.GROUPS > 1 or not F.EXCLUDE else 0
    i_e = tl.program_id(0)
    b_sum = tl.zeros((BE,), F.ACC)
    if i_e < programs:
        if p_part is not None:
            o_e = i_e.to(tl.int64) * BE + tl.arange(0, BE)
            m_e = o_e < elements
            o_i, o_t, o_o = o_e % C_in, o_e // C_in % AREA, o_e // C_in // AREA
            size = C_out // F.PARTS
            group = o_o % size * F.GROUPS // size
            # Input channels that channel o sees through its centre.
            seen = tl.cdiv(C_in * (group + (0 if F.EXCLUDE else 1)), F.GROUPS)
            m_live = m_e & ((o_t < TAPS) | ((o_t == TAPS) & (o_i < seen)))
            factors = (TAPS + CENTRE) * C_in
            o_part = o_o * factors + o_t * C_in + o_i
            for _ in range(splits):
                b_sum += tl.load(p_part + o_part, mask=m_live, other=0.0)
                o_part += part_size
            o_dw = o_e if F.W_LAST else (o_o * C_in + o_i) * AREA + o_t
            tl.store(p_dw + o_dw, b_sum.to(p_dw.dtype.element_ty), mask=m_e)
    else:
        if p_bias_part is not None:
            o_b = (i_e - programs) * BE + tl.arange(0, BE)
            for i_s in range(splits):
                b_sum += tl.load(p_bias_part + i_s * C_out + o_b, mask=o_b < C_out, other=0.0)
            tl.store(p_db + o_b, b_sum.to(p_db.dtype.element_ty), mask=o_b < C_out)


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask_type: int,
    data_channels: int,
    parts: int,
    dilation: int,
    channels_last: bool,
    needs_input: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two launches, or one where only the gradient of the input is needed."""
    launch.require(plan.unsupported(input, weight, bias, upstream_0))
    C_in = weight.shape[1]
    needs_bias = needs_bias and bias is not None
    d_input, d_weight = input.new_empty(0), weight.new_empty(0)
    d_bias = weight.new_empty(weight.shape[0] if needs_bias else 0)
    if needs_input:
        d_input = spec.empty_image(input, C_in, channels_last)
    if needs_weight:
        d_weight = torch.empty_like(weight)
    if upstream_0 is None or upstream_0.numel() == 0:
        return d_input.zero_(), d_weight.zero_(), d_bias.zero_()
    input, d_output = (plan.dense_image(x, channels_last) for x in (input, upstream_0))
    dense, last = plan.dense_weight(weight)
    facts = plan.facts(input, dense, mask_type, data_channels, parts, channels_last)
    taps = plan.live_taps(facts)
    if taps * C_in == 0:
        d_weight.zero_()
    part = _Parts(d_output, dense, facts, taps if needs_weight else 0, needs_bias)
    is_written = last or d_weight.is_contiguous()  # by the kernel, where it belongs
    found = d_weight if is_written else torch.empty_like(dense)
    with launch.on(input):
        _launch_parts(d_output, input, dense, d_input, part, facts, taps, dilation)
        if part.weight is not None or part.bias is not None:
            _launch_sums(part, found, d_bias, dense, facts)
    if part.weight is not None and not is_written:
        d_weight.copy_(found)
    return d_input, d_weight, d_bias


class _Parts:
    """How the pixels are divided for the weight gradient, and the memory of the parts."""

    def __init__(self, d_output, weight, facts, taps, needs_bias):
        C_out, C_in = weight.shape[:2]
        factors = taps * C_in
        self.tile = plan.tile_of(
            d_output, facts.LAST, weights=True, written=C_out, read=C_in, taps=taps
        )
        self.pixel_tiles = triton.cdiv(plan.sizes(d_output)[0], self.tile.pixels)
        columns = factors if self.tile.flat else C_in
        steps = triton.cdiv(columns, self.tile.read) * (1 if self.tile.flat else taps)
        tiles = triton.cdiv(C_out, self.tile.written) * max(steps, 1)
        kind = spec.accumulation(d_output.dtype)
        room = PARTIAL_BYTES // (C_out * max(factors, 1) * kind.itemsize)
        longest = triton.cdiv(self.pixel_tiles, SHORTEST_PART)
        self.splits = max(1, min(triton.cdiv(PROGRAMS, tiles), room, longest))
        self.programs = tiles * self.splits if factors or needs_bias else 0
        self.size = C_out * factors
        shape = (self.splits, self.size)
        self.weight = d_output.new_empty(shape, dtype=kind) if factors else None
        self.bias = d_output.new_empty((self.splits, C_out), dtype=kind) if needs_bias else None


def _launch_parts(d_output, input, weight, d_input, part, facts, taps, dilation):
    C_out, C_in = weight.shape[:2]
    groups = facts.GROUPS
    tile = plan.tile_of(
        d_output,
        facts.LAST,
        written=triton.cdiv(C_in, groups),
        read=C_out,
        taps=taps,
        unaligned=groups > 1,
    )
    programs = 0
    if d_input.numel():
        programs = plan.convolution_programs(tile, plan.sizes(input)[0], C_in, groups)
    if programs + part.programs == 0:
        return
    masked_conv2d_backward_kernel[launch.programs(plan.OP, programs + part.programs)](
        input,
        weight,
        d_output,
        d_input if programs else None,
        part.weight,
        part.bias,
        *plan.sizes(input),
        C_in,
        C_out,
        dilation,
        programs,
        part.splits,
        part.pixel_tiles,
        F=facts,
        T=tile,
        T_W=part.tile,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _launch_sums(part, d_weight, d_bias, weight, facts):
    C_out, C_in = weight.shape[:2]
    block = 256
    elements = d_weight.numel() if part.weight is not None else 0
    programs = triton.cdiv(elements, block)
    biases = 0 if part.bias is None else triton.cdiv(C_out, block)
    masked_conv2d_weight_kernel[launch.programs(plan.OP, programs + biases)](
        part.weight,
        part.bias,
        d_weight,
        d_bias,
        C_in,
        C_out,
        part.splits,
        elements,
        part.size,
        programs,
        F=facts,
        BE=block,
        num_warps=4,
    )
