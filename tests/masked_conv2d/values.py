"""masked_conv2d and nn.MaskedConv2d."""

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given

import genkern
from genkern import nn
from genkern.reference import masked_conv2d as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, lay_out, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
NAMES = ("d_input", "d_weight", "d_bias")


MASK_TYPES = ("A", "B", "rows", "rows_above", "left", "left_before")


@st.composite
def options(draw, C_in, C_out):
    mask_type = draw(st.sampled_from((*MASK_TYPES, "A", "B")))
    parts = draw(st.sampled_from([1, 1, 2, 3]))
    parts = 1 if C_out % parts else parts
    colours = st.integers(1, min(4, C_in, C_out // parts))
    return {
        "mask_type": mask_type,
        "data_channels": draw(colours) if mask_type in ("A", "B", "left") else 1,
        "dilation": draw(st.sampled_from([1, 1, 1, 2, 3])),
        "parts": parts,
    }


kernels = st.tuples(st.sampled_from([1, 2, 3, 4, 5, 7]), st.sampled_from([1, 2, 3, 4, 5, 7]))


@st.composite
def problems(draw):
    channels = st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 33, 40]))
    C_in, C_out = draw(channels), draw(channels)
    kh, kw = draw(kernels)
    N, H, W = draw(sizes(3)), draw(sizes(9)), draw(st.one_of(sizes(17), st.just(131)))
    dtype = draw(st.sampled_from(DTYPES))
    inputs = [
        draw(tensors((N, C_in, H, W), dtype, draw(st.sampled_from([1.0, 1e-3, 30.0])))),
        draw(tensors((C_out, C_in, kh, kw), dtype)),
        draw(tensors((C_out,), dtype)) if draw(st.booleans()) else None,
    ]
    return inputs, draw(tensors((N, C_out, H, W), dtype)), draw(options(C_in, C_out))


def fused(settings):
    return lambda *inputs: genkern.masked_conv2d(*inputs, **settings)


def plain(settings, forward=reference.forward):
    return lambda *inputs: forward(*inputs, **settings)


def check(function, definition, inputs, upstream, settings):
    """Values and every gradient of ``function`` against the float64 definition."""
    (got,), got_grads = run(function, inputs, [upstream])
    (want,), want_grads = run(definition, double(inputs), [upstream.double()])
    absolute = [x if x is None else x.abs() for x in double(inputs)]
    (scale,), grad_scales = run(plain(settings), absolute, [upstream.double().abs()])
    x, w = inputs[:2]
    taps, pixels = w[0, 0].numel(), x[:, 0].numel()
    assert got.dtype == x.dtype
    assert_close(got, want, terms=x.shape[1] * taps + 1, scale=scale, name="output")
    for name, got, want, scale, terms in zip(
        NAMES, got_grads, want_grads, grad_scales, (w.shape[0] * taps, pixels, pixels), strict=True
    ):
        if got is not None:  # what nothing depends on has no gradient in the definition
            zero = torch.zeros(got.shape, dtype=F64)
            assert got.dtype == x.dtype
            assert_close(
                got,
                zero if want is None else want,
                terms=terms,
                scale=zero if scale is None else scale,
                name=name,
            )


@given(problems())
@examples(2)
def test_values_and_every_gradient_match_the_float64_reference(problem):
    inputs, upstream, settings = problem
    check(fused(settings), plain(settings), inputs, upstream, settings)
    assert genkern.last_backend("masked_conv2d") == backend()


@pytest.mark.parametrize("image", ["input", "upstream"])
def test_rows_of_a_1x1_kernel_that_do_not_follow_one_another(image):
    settings = {"mask_type": "B", "data_channels": 1, "dilation": 1}
    x, upstream = torch.randn(2, 3, 4, 7), torch.randn(2, 5, 4, 7)
    if image == "input":
        x = lay_out(x, "sliced")
    else:
        upstream = lay_out(upstream, "sliced")
    inputs = [x, torch.randn(5, 3, 1, 1), torch.randn(5)]
    check(fused(settings), plain(settings), inputs, upstream, settings)


@pytest.mark.parametrize("channels", [1, 6])
def test_bands_and_parts_of_many_images(channels):
    # An image is a band, and two of them are a part of the weight's gradient, the last one alone;
    # small blocks cut each image. Rows of one channel fill registers of pixels, but for the last.
    settings = {"mask_type": "A", "data_channels": min(2, channels), "dilation": 1}
    inputs = [torch.randn(35, channels, 24, 29), torch.randn(5, channels, 3, 5), torch.randn(5)]
    check(fused(settings), plain(settings), inputs, torch.randn(35, 5, 24, 29), settings)


@given(st.data(), st.integers(1, 20), st.integers(1, 40), kernels, sizes(9), sizes(40))
@examples(1.5)
def test_integers_are_exact(data, C_in, C_out, kernel, H, W):
    settings = data.draw(options(C_in, C_out))
    dtype = data.draw(st.sampled_from(DTYPES))
    shapes = ((2, C_in, H, W), (C_out, C_in, *kernel), (C_out,), (2, C_out, H, W))
    *inputs, upstream = [torch.randint(-4, 5, s).to(dtype) for s in shapes]
    (got,), got_grads = run(fused(settings), inputs, [upstream])
    (want,), want_grads = run(plain(settings), double(inputs), [upstream.double()])
    assert torch.equal(got, want.to(dtype))  # an exact sum, rounded once
    for name, got, want in zip(NAMES, got_grads, want_grads, strict=True):
        want = torch.zeros_like(got) if want is None else want.to(dtype)
        assert torch.equal(got, want), name


def bits(tensor):
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.dtype.itemsize])


# ---- causality -----------------------------------------------------------------------------


def place(mask_type, kh, kw):
    """Row and column, in the kernel, of the output pixel."""
    row = {"A": kh // 2, "B": kh // 2, "rows_above": kh}.get(mask_type, kh - 1)
    return row, {"left": kw - 1, "left_before": kw}.get(mask_type, kw // 2)


def live_taps(C_out, C_in, kh, kw, mask_type, data_channels, parts=1):
    """The mask, from the words of the papers; group of a channel by the sizes' definition."""

    def group(channel, channels):
        return next(
            g for g, end in enumerate(reference.group_ends(channels, data_channels))
            if channel < end
        )  # fmt: skip

    mask = torch.zeros(C_out, C_in, kh, kw, dtype=torch.bool)
    a, b = place(mask_type, kh, kw)
    for o, i, y, x in itertools.product(*map(range, mask.shape)):
        before = y <= a if mask_type == "rows" else (y, x) < (a, b)  # in raster order
        out, seen = group(o % (C_out // parts), C_out // parts), group(i, C_in)
        colour = seen < out if mask_type == "A" else seen <= out
        mask[o, i, y, x] = before or ((y, x) == (a, b) and colour)
    return mask


def mask_of(weight_shape, settings):
    return live_taps(
        *weight_shape, settings["mask_type"], settings["data_channels"], settings.get("parts", 1)
    )


@given(st.data(), st.integers(1, 6), st.integers(1, 7), kernels, st.integers(1, 6), sizes(20))
@examples(1.5)
@example(None, 3, 3, (3, 3), 4, 5)
def test_each_pixel_reaches_exactly_the_later_ones_that_the_mask_allows(
    data, C_in, C_out, kernel, H, W
):
    settings = (
        data.draw(options(C_in, C_out))
        if data
        else {"mask_type": "A", "data_channels": 3, "dilation": 1}
    )
    (kh, kw), W, d = kernel, max(1, W), settings["dilation"]
    mask, (a, b) = mask_of((C_out, C_in, kh, kw), settings), place(settings["mask_type"], kh, kw)
    dtype = data.draw(st.sampled_from(DTYPES)) if data else torch.float32
    weight, bias = torch.randn(C_out, C_in, kh, kw).to(dtype), torch.randn(C_out).to(dtype)
    weight = torch.where(weight == 0, torch.ones_like(weight), weight)  # 0 would hide infinity
    input = torch.randn(2, C_in, H, W).to(dtype)
    before = genkern.masked_conv2d(input, weight, bias, **settings)
    i, y, x = (data.draw(st.integers(0, n - 1)) if data else n // 2 for n in (C_in, H, W))
    changed = input.clone()
    # NaN reaches whatever multiplies it, even by 0; infinity must not become NaN on the way.
    changed[1, i, y, x] = data.draw(st.sampled_from([math.nan, math.inf])) if data else math.nan
    after = genkern.masked_conv2d(changed, weight, bias, **settings)
    reached = torch.zeros(2, C_out, H, W, dtype=torch.bool)
    for o, ty, tx in itertools.product(range(C_out), range(kh), range(kw)):
        row, column = y - d * (ty - a), x - d * (tx - b)
        if mask[o, i, ty, tx] and 0 <= row < H and 0 <= column < W:
            reached[1, o, row, column] = True
    assert torch.equal(~after.isfinite(), reached)
    assert torch.equal(after[~reached], before[~reached])  # bitwise, nothing else moved
    first = y * W if settings["mask_type"] == "rows" else y * W + x
    later = torch.arange(H * W).view(H, W) >= first
    assert not (reached & ~later).any()


@given(st.data(), st.integers(1, 6), st.integers(1, 18), kernels)
@examples(1.5)
def test_masked_taps_are_never_read_and_get_no_gradient(data, C_in, C_out, kernel):
    settings = data.draw(options(C_in, C_out))
    mask = mask_of((C_out, C_in, *kernel), settings)
    dtype = data.draw(st.sampled_from(DTYPES))
    shapes = (2, C_in, 4, 9), (C_out, C_in, *kernel), (C_out,), (2, C_out, 4, 9)
    *inputs, upstream = [torch.randn(s).to(dtype) for s in shapes]
    (clean,), clean_grads = run(fused(settings), inputs, [upstream])
    inputs[1] = inputs[1].masked_fill(~mask, math.nan)
    (got,), grads = run(fused(settings), inputs, [upstream])
    assert torch.equal(got, clean) and all(map(torch.equal, grads, clean_grads))
    assert not grads[1][~mask].any()
    reach = torch.zeros(kernel, dtype=torch.bool)  # taps that some pixel of a 4x9 image meets
    (a, b), d = place(settings["mask_type"], *kernel), settings["dilation"]
    for ty, tx in itertools.product(*map(range, kernel)):
        reach[ty, tx] = abs(ty - a) * d < 4 and abs(tx - b) * d < 9
    assert grads[1][mask & reach].all()


@given(st.data(), st.integers(1, 6), st.integers(1, 18), kernels, st.integers(1, 9))
@examples(0.75)
def test_a_pixel_that_no_tap_meets_stays_out_of_the_gradients(data, C_in, C_out, kernel, W):
    settings, dtype = data.draw(options(C_in, C_out)), data.draw(st.sampled_from(DTYPES))
    shapes = (1, C_in, 3, W), (C_out, C_in, *kernel), (C_out,), (1, C_out, 3, W)
    *inputs, upstream = [torch.randn(s).to(dtype) for s in shapes]
    inputs[0][0, :, 2, W - 1] = math.nan  # seen by the last pixel alone, if at all, or its row
    _, (d_input, d_weight, _) = run(fused(settings), inputs, [upstream])
    assert d_input.isfinite().all()
    a, b = place(settings["mask_type"], *kernel)
    d_weight[:, :, a:, b:] = 0
    assert d_weight.isfinite().all()


def test_every_earlier_pixel_reaches_the_last_one_through_a_stack():
    # Two rows up and all columns: enough layers see the whole past but the blind spot.
    first = nn.MaskedConv2d(1, 4, 3, mask_type="A")
    layers = [nn.MaskedConv2d(4, 4, 3) for _ in range(6)]
    image = torch.randn(1, 1, 5, 5, requires_grad=True)
    y = first(image)
    for layer in layers:
        y = layer(y)
    (g,) = torch.autograd.grad(y[0, :, 4, 2].sum(), image)
    seen = g[0, 0] != 0
    want = torch.zeros(5, 5, dtype=torch.bool)
    for row in range(5):
        for column in range(5):
            up = 4 - row
            want[row, column] = (up >= 1 and column <= 2 + up) or (up == 0 and column < 2)
    assert torch.equal(seen, want)


# ---- gradients -----------------------------------------------------------------------------


def test_gradient_penalty_through_two_masked_convolutions():
    def penalty(convolution):
        torch.manual_seed(3)
        x = torch.randn(2, 3, 5, 6, dtype=F64, requires_grad=True)
        w1 = torch.randn(8, 3, 3, 3, dtype=F64, requires_grad=True)
        w2 = torch.randn(4, 8, 3, 3, dtype=F64, requires_grad=True)
        b = torch.randn(8, dtype=F64, requires_grad=True)
        hidden = torch.tanh(convolution(x, w1, b, mask_type="A", data_channels=3))
        y = convolution(hidden, w2, None, mask_type="B")
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), (x, w1, w2, b))

    torch.testing.assert_close(penalty(genkern.masked_conv2d), penalty(reference.forward))


def test_memory_formats_are_kept():
    last = torch.channels_last
    x = torch.randn(2, 4, 5, 6).to(memory_format=last).requires_grad_()
    for k in (1, 3):
        w = torch.randn(6, 4, k, k).to(memory_format=last).requires_grad_()
        y = genkern.masked_conv2d(x, w)
        assert y.is_contiguous(memory_format=last)
        y.backward(torch.randn(2, 6, 5, 6))
        assert w.grad.stride() == w.stride() and x.grad.stride() == x.stride()
        w.grad = x.grad = None
        y = genkern.masked_conv2d(x.detach().contiguous(), w)
        assert y.is_contiguous()
        y.sum().backward()
        assert w.grad.stride() == w.stride()
        w.grad = None


def test_one_channel_is_not_channels_last():
    x = torch.randn(2, 5, 12, 1).permute(0, 3, 1, 2)[..., ::2]  # a stride of 1 by chance
    assert x.stride(1) == 1 and not x.is_contiguous()
    assert genkern.masked_conv2d(x, torch.randn(4, 1, 3, 3)).is_contiguous()
