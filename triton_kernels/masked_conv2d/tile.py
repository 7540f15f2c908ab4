"""The tiles that the kernels of masked_conv2d share: pixels x channels, live taps only.

Live taps are the first F.WHOLE of the kernel in raster order, then, if there is one, the centre.
Images are dense: channels_last where LAST, else (N, C, H, W); weights likewise, with LAST of their
own. With plane = H W, channel c of pixel p of the batch, which lies in image n, stands at

    LAST:  p C + c        else:  p + n (C - 1) plane + c plane

Offsets are 64-bit. F and T are the `Facts` and `Tile` of plan.py.
"""

import triton
import triton.language as tl


@triton.jit
def pixels_of(i_p, pixels, plane, W, BP: tl.constexpr, WIDE: tl.constexpr):
    """Index in the batch, image, row, column and mask of the BP pixels of tile i_p; 32-bit where
    all pixels fit."""
    o_p = tl.full((BP,), i_p, tl.int64 if WIDE else tl.int32) * BP + tl.arange(0, BP)
    m_p = o_p < pixels
    o_n = o_p // plane
    o_y = (o_p - o_n * plane) // W
    return o_p, o_n, o_y, o_p - o_n * plane - o_y * W, m_p


@triton.jit
def pixel_offsets(o_p, o_n, plane, C, LAST: tl.constexpr):
    """Offsets of the pixels of a tile, (BP,), of the first of C channels."""
    if LAST:
        return o_p.to(tl.int64) * C
    else:
        return o_p.to(tl.int64) + o_n.to(tl.int64) * plane * (C - 1)


@triton.jit
def channel_offsets(o_c, plane, LAST: tl.constexpr):
    return o_c if LAST else o_c.to(tl.int64) * plane


@triton.jit
def load_shifted(
    p_x, o_pixel, o_y, o_x, m_p, o_dy, o_dx, o_c, m_c, plane, H, W, C, LAST: tl.constexpr
):
    """x[n, c, y + dy, x + dx], (BP, BC), 0 outside of the image; dy, dx scalars or (1, BC)."""
    o_shift = o_dy.to(tl.int64) * W + o_dx
    o_shift = (o_shift * C if LAST else o_shift) + channel_offsets(o_c, plane, LAST)
    o_row, o_column = o_y[:, None] + o_dy, o_x[:, None] + o_dx
    m_inside = (o_row >= 0) & (o_row < H) & (o_column >= 0) & (o_column < W)
    return tl.load(
        p_x + (o_pixel[:, None] + o_shift), mask=m_inside & m_p[:, None] & m_c, other=0.0
    )


@triton.jit
def taps_and_channels(step, first, taps, lo, hi, BC: tl.constexpr, FLAT: tl.constexpr):
    """Tap, channels (1, BC) and their mask of one step of a sum over taps x channels [lo, hi).

    FLAT packs several taps into one step, for layers that read few channels: tap is (1, BC) then.
    """
    o_q = tl.arange(0, BC)[None, :]
    if FLAT:
        o_q += step * BC
        o_t = first + o_q // (hi - lo)
        o_c = lo + o_q % (hi - lo)
        m_c = o_q < taps * (hi - lo)
    else:
        blocks = tl.cdiv(hi - lo, BC)
        o_t = first + step // blocks
        o_c = lo + step % blocks * BC + o_q
        m_c = o_c < hi
    return o_t, o_c, m_c


@triton.jit
def steps_of(taps, channels, BC: tl.constexpr, FLAT: tl.constexpr):
    return tl.cdiv(taps * channels, BC) if FLAT else taps * tl.cdiv(channels, BC)


@triton.jit
def shifts_of(o_t, dilation, F: tl.constexpr):
    """By how many rows and columns a tap is off the output pixel."""
    return (o_t // F.KW - F.ROW) * dilation, (o_t % F.KW - F.COLUMN) * dilation


@triton.jit
def accumulate(
    b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o, first, taps, lo, hi,
    plane, H, W, C_read, C_write, dilation,
    MIRRORED: tl.constexpr, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """acc[p, o] += sum_{t in [first, first + taps)} sum_{c in [lo, hi)} x[p + t, c] w[o, c, t]

    MIRRORED: x[p - t, c] w[c, o, t]. Channels outside of [lo, hi) are not loaded from either
    operand: what is masked cannot leak.
    """
    AREA: tl.constexpr = F.KH * F.KW
    C_in = C_write if MIRRORED else C_read
    w_out, w_in = C_in * AREA, 1 if F.W_LAST else AREA  # strides of the weight
    w_tap = C_in if F.W_LAST else 1
    w_o, w_c = (w_in, w_out) if MIRRORED else (w_out, w_in)
    for step in range(steps_of(taps, hi - lo, T.read, T.flat)):
        o_t, o_c, m_c = taps_and_channels(step, first, taps, lo, hi, T.read, T.flat)
        o_dy, o_dx = shifts_of(o_t, -dilation if MIRRORED else dilation, F)
        b_x = load_shifted(
            p_x, o_pixel, o_y, o_x, m_p, o_dy, o_dx, o_c, m_c, plane, H, W, C_read, F.LAST
        ).to(F.DOT)
        o_factor = o_t.to(tl.int64) * w_tap + o_c.to(tl.int64) * w_c
        o_factor = o_factor + (o_o.to(tl.int64) * w_o)[:, None]
        b_w = tl.load(p_w + o_factor, mask=m_o[:, None] & m_c, other=0.0).to(F.DOT)
        b_acc = tl.dot(
            b_x, tl.trans(b_w), b_acc, input_precision=F.PRECISION, out_dtype=b_acc.dtype
        )
    return b_acc


@triton.jit
def convolve(
    i_program, p_x, p_w, p_b, p_y, pixels, plane, H, W, C_read, C_write, dilation,
    top, left, rows, columns, MIRRORED: tl.constexpr, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """One tile of y[n, o, p] = b[o] + sum_{c, live t} w[o, c, t] x[n, c, p + t]

    x (N, C_read, H, W), y (N, C_write, rows, columns), whose first pixel is pixel (top, left) of
    the image. MIRRORED: p - t, with the roles of the channels of w exchanged (the gradient of x),
    and y as large as x. A tile belongs to one colour group of one part, hence sees one range of
    channels through the centre.
    """
    BP: tl.constexpr = T.pixels
    BO: tl.constexpr = T.written
    CENTRE: tl.constexpr = 1 if F.GROUPS == 1 and not F.EXCLUDE else 0  # seen by all channels
    SECTIONS: tl.constexpr = F.GROUPS if MIRRORED else F.GROUPS * F.PARTS
    size = C_write // (1 if MIRRORED else F.PARTS)
    tiles = tl.cdiv(tl.cdiv(C_write, SECTIONS), BO)
    i_p, i_o = i_program // (tiles * SECTIONS), i_program % (tiles * SECTIONS)
    i_group = i_o // tiles % F.GROUPS
    o_o = i_o % tiles * BO + tl.arange(0, BO)
    if F.GROUPS > 1:
        start = i_o // tiles // F.GROUPS * size
        o_o += start + tl.cdiv(size * i_group, F.GROUPS)
        m_o = o_o < start + tl.cdiv(size * (i_group + 1), F.GROUPS)
    else:
        m_o = o_o < C_write
    o_y_p, o_n, o_y, o_x, m_p = pixels_of(i_p, pixels, rows * columns, columns, BP, F.WIDE)
    o_p = o_y_p
    if not MIRRORED:
        o_y, o_x = o_y + top, o_x + left
        o_p = o_n * plane + o_y * W + o_x
    o_pixel = pixel_offsets(o_p, o_n, plane, C_read, F.LAST)
    b_acc = tl.zeros((BP, BO), F.ACC)
    b_acc = accumulate(
        b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o, 0, F.WHOLE + CENTRE, 0, C_read,
        plane, H, W, C_read, C_write, dilation, MIRRORED, F, T,
    )  # fmt: skip
    if F.GROUPS > 1:  # the centre, from the groups that this one sees, or (mirrored) is seen by
        read = C_read // (F.PARTS if MIRRORED else 1)
        for part in tl.static_range(F.PARTS if MIRRORED else 1):
            if MIRRORED:
                lo = part * read + tl.cdiv(read * (i_group + (1 if F.EXCLUDE else 0)), F.GROUPS)
                hi = (part + 1) * read
            else:
                lo = C_read * 0
                hi = tl.cdiv(C_read * (i_group + (0 if F.EXCLUDE else 1)), F.GROUPS)
            b_acc = accumulate(
                b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o, F.WHOLE, 1, lo, hi,
                plane, H, W, C_read, C_write, dilation, MIRRORED, F, T,
            )  # fmt: skip
    if p_b is not None:
        b_acc += tl.load(p_b + o_o, mask=m_o, other=0.0).to(F.ACC)[None, :]
    o_pixel = pixel_offsets(o_y_p, o_n, rows * columns, C_write, F.LAST)
    tl.store(
        p_y + (o_pixel[:, None] + channel_offsets(o_o, rows * columns, F.LAST)[None, :]),
        b_acc.to(p_y.dtype.element_ty),
        mask=m_p[:, None] & m_o[None, :],
    )
