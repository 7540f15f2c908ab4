"""The tiles that the kernels of masked_conv2d share: pixels x channels, live taps only.

Live taps are the first KH // 2 * KW + KW // 2 of the kernel in raster order, then the centre.
Offsets are 64-bit. Strides are in elements; where ALIGN > 0, channels are adjacent and all other
strides are passed divided by ALIGN, so that the compiler sees how far addresses are aligned.
"""

import triton
import triton.language as tl


@triton.jit
def pixels_of(i_p, pixels, plane, W, BP: tl.constexpr, WIDE: tl.constexpr):
    """Image, row, column and mask of the BP pixels of tile i_p; 32-bit where all pixels fit."""
    o_p = tl.full((BP,), i_p, tl.int64 if WIDE else tl.int32) * BP + tl.arange(0, BP)
    m_p = o_p < pixels
    o_n = o_p // plane
    o_y = (o_p - o_n * plane) // W
    return o_n, o_y, o_p - o_n * plane - o_y * W, m_p


@triton.jit
def pixel_offsets(o_n, o_y, o_x, s_n, s_y, s_x, ALIGN: tl.constexpr):
    """Offsets of the pixels of a tile, (BP,), of the first channel."""
    o_pixel = o_n.to(tl.int64) * s_n + o_y.to(tl.int64) * s_y + o_x.to(tl.int64) * s_x
    return o_pixel * ALIGN if ALIGN else o_pixel


@triton.jit
def load_shifted(
    p_x, o_pixel, o_y, o_x, m_p, o_dy, o_dx, o_c, m_c, H, W, s_c, s_y, s_x, ALIGN: tl.constexpr
):
    """x[n, c, y + dy, x + dx], (BP, BC), 0 outside of the image; dy, dx scalars or (1, BC)."""
    o_shift = o_dy.to(tl.int64) * s_y + o_dx.to(tl.int64) * s_x
    o_shift = o_shift * ALIGN + o_c if ALIGN else o_shift + o_c.to(tl.int64) * s_c
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
def accumulate(
    b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o, first, taps, lo, hi, H, W, dilation,
    x_c, x_y, x_x, w_o, w_c, w_y, w_x,
    KH: tl.constexpr, KW: tl.constexpr, SIGN: tl.constexpr, X_ALIGN: tl.constexpr,
    FLAT: tl.constexpr, BC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc[p, o] += sum_{t in [first, first + taps)} sum_{c in [lo, hi)} x[p + SIGN t, c] w[o, c, t]

    Channels outside of [lo, hi) are not loaded from either operand: what is masked cannot leak.
    """
    for step in range(steps_of(taps, hi - lo, BC, FLAT)):
        o_t, o_c, m_c = taps_and_channels(step, first, taps, lo, hi, BC, FLAT)
        o_dy, o_dx = (o_t // KW - KH // 2) * dilation * SIGN, (o_t % KW - KW // 2) * dilation * SIGN
        b_x = load_shifted(
            p_x, o_pixel, o_y, o_x, m_p, o_dy, o_dx, o_c, m_c, H, W, x_c, x_y, x_x, X_ALIGN
        ).to(DOT)
        o_factor = (o_t // KW).to(tl.int64) * w_y + (o_t % KW).to(tl.int64) * w_x
        o_factor = o_factor + o_c.to(tl.int64) * w_c + (o_o.to(tl.int64) * w_o)[:, None]
        b_w = tl.load(p_w + o_factor, mask=m_o[:, None] & m_c, other=0.0).to(DOT)
        b_acc = tl.dot(b_x, tl.trans(b_w), b_acc, input_precision=PRECISION, out_dtype=b_acc.dtype)
    return b_acc


@triton.jit
def convolve(
    i_program, p_x, p_w, p_b, p_y, pixels, plane, H, W, C_read, C_write, dilation,
    x_n, x_c, x_y, x_x, y_n, y_c, y_y, y_x, w_o, w_c, w_y, w_x, b_o,
    KH: tl.constexpr, KW: tl.constexpr, GROUPS: tl.constexpr, EXCLUDE: tl.constexpr,
    MIRRORED: tl.constexpr, X_ALIGN: tl.constexpr, Y_ALIGN: tl.constexpr, WIDE: tl.constexpr,
    FLAT: tl.constexpr, BP: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of y[n, o, p] = b[o] + sum_{c, live t} w[o, c, t] x[n, c, p + t]

    x (N, C_read, H, W), y (N, C_write, H, W). MIRRORED: p - t, with the roles of the channels of w
    exchanged (the gradient of x). A tile belongs to one colour group, hence sees one range of
    channels through the centre.
    """
    SIGN: tl.constexpr = -1 if MIRRORED else 1
    TAPS: tl.constexpr = KH // 2 * KW + KW // 2
    tiles = tl.cdiv(tl.cdiv(C_write, GROUPS), BO)
    i_p, i_o = i_program // (tiles * GROUPS), i_program % (tiles * GROUPS)
    i_group = i_o // tiles
    o_o = i_o % tiles * BO + tl.arange(0, BO)
    if GROUPS > 1:
        o_o += tl.cdiv(C_write * i_group, GROUPS)
        m_o = o_o < tl.cdiv(C_write * (i_group + 1), GROUPS)
    else:
        m_o = o_o < C_write
    o_n, o_y, o_x, m_p = pixels_of(i_p, pixels, plane, W, BP, WIDE)
    o_pixel = pixel_offsets(o_n, o_y, o_x, x_n, x_y, x_x, X_ALIGN)
    b_acc = tl.zeros((BP, BO), ACC)
    b_acc = accumulate(
        b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o,
        0, TAPS + (1 if GROUPS == 1 and not EXCLUDE else 0), 0, C_read, H, W, dilation,
        x_c, x_y, x_x, w_o, w_c, w_y, w_x, KH, KW, SIGN, X_ALIGN, FLAT, BC, DOT, PRECISION,
    )  # fmt: skip
    if GROUPS > 1:  # the centre, from the groups that this one sees, or (mirrored) is seen by
        if MIRRORED:
            lo = tl.cdiv(C_read * (i_group + (1 if EXCLUDE else 0)), GROUPS)
            hi = C_read
        else:
            lo = C_read * 0
            hi = tl.cdiv(C_read * (i_group + (0 if EXCLUDE else 1)), GROUPS)
        b_acc = accumulate(
            b_acc, p_x, p_w, o_pixel, o_y, o_x, m_p, o_o, m_o, TAPS, 1, lo, hi, H, W, dilation,
            x_c, x_y, x_x, w_o, w_c, w_y, w_x, KH, KW, SIGN, X_ALIGN, FLAT, BC, DOT, PRECISION,
        )  # fmt: skip
    if p_b is not None:
        b_b = tl.load(p_b + o_o.to(tl.int64) * b_o, mask=m_o, other=0.0)
        b_acc += b_b.to(ACC)[None, :]
    o_y_pixel = pixel_offsets(o_n, o_y, o_x, y_n, y_y, y_x, Y_ALIGN)
    o_channel = o_o if Y_ALIGN else o_o.to(tl.int64) * y_c
    tl.store(
        p_y + (o_y_pixel[:, None] + o_channel[None, :]),
        b_acc.to(p_y.dtype.element_ty),
        mask=m_p[:, None] & m_o[None, :],
    )
