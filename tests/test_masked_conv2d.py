"""masked_conv2d and nn.MaskedConv2d."""

import copy
import itertools
import math
import pickle

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from contract import check_compiled, double, machine_levels, probe, run
from hypothesis import example, given, settings
from strategies import DTYPES, LAYOUTS, backend, lay_out, sizes, tensors
from tolerance import assert_close

import genkern
from genkern import nn
from genkern.reference import masked_conv2d as reference

F64 = torch.float64
NAMES = ("d_input", "d_weight", "d_bias")


@st.composite
def options(draw, C_in, C_out):
    return {
        "mask_type": draw(st.sampled_from("AB")),
        "data_channels": draw(st.integers(1, min(4, C_in, C_out))),
        "dilation": draw(st.sampled_from([1, 1, 1, 2, 3])),
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
@settings(max_examples=80)
def test_values_and_every_gradient_match_the_float64_reference(problem):
    inputs, upstream, settings = problem
    check(fused(settings), plain(settings), inputs, upstream, settings)
    assert genkern.last_backend("masked_conv2d") == backend()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_inputs_and_upstream_gradients(dtype, layout):
    settings = {"mask_type": "B", "data_channels": 2, "dilation": 1}
    shapes = ((3, 9, 5, 11), (18, 9, 3, 3), (18,), (3, 18, 5, 11))
    for laid_out in range(4):
        tensors = [torch.randn(s).to(dtype) for s in shapes]
        tensors[laid_out] = lay_out(tensors[laid_out], layout)
        check(fused(settings), plain(settings), tensors[:3], tensors[3], settings)


@given(st.data(), st.integers(1, 20), st.integers(1, 40), kernels, sizes(9), sizes(40))
@settings(max_examples=60)
def test_integers_are_exact(data, C_in, C_out, kernel, H, W):
    settings = data.draw(options(C_in, C_out))
    dtype = data.draw(st.sampled_from([torch.float32, F64]))
    shapes = ((2, C_in, H, W), (C_out, C_in, *kernel), (C_out,), (2, C_out, H, W))
    *inputs, upstream = [torch.randint(-4, 5, s).to(dtype) for s in shapes]
    (got,), got_grads = run(fused(settings), inputs, [upstream])
    (want,), want_grads = run(plain(settings), inputs, [upstream])
    assert torch.equal(got, want)
    for name, got, want in zip(NAMES, got_grads, want_grads, strict=True):
        assert torch.equal(got, torch.zeros_like(got) if want is None else want), name


# ---- causality -----------------------------------------------------------------------------


def live_taps(C_out, C_in, kh, kw, mask_type, data_channels):
    """The mask, from the words of the paper; group of a channel by the sizes' definition."""

    def group(channel, channels):
        return next(
            g for g, end in enumerate(reference.group_ends(channels, data_channels))
            if channel < end
        )  # fmt: skip

    mask = torch.zeros(C_out, C_in, kh, kw, dtype=torch.bool)
    for o, i, y, x in itertools.product(*map(range, mask.shape)):
        before = (y, x) < (kh // 2, kw // 2)  # raster order
        out, seen = group(o, C_out), group(i, C_in)
        colour = seen < out if mask_type == "A" else seen <= out
        mask[o, i, y, x] = before or ((y, x) == (kh // 2, kw // 2) and colour)
    return mask


@given(st.data(), st.integers(1, 6), st.integers(1, 7), kernels, st.integers(1, 6), sizes(9))
@settings(max_examples=60)
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
    mask = live_taps(C_out, C_in, kh, kw, settings["mask_type"], settings["data_channels"])
    weight, bias = torch.randn(C_out, C_in, kh, kw), torch.randn(C_out)
    input = torch.randn(2, C_in, H, W)
    before = genkern.masked_conv2d(input, weight, bias, **settings)
    i, y, x = (data.draw(st.integers(0, n - 1)) if data else n // 2 for n in (C_in, H, W))
    changed = input.clone()
    changed[1, i, y, x] = math.nan  # reaches whatever multiplies it, even by 0
    after = genkern.masked_conv2d(changed, weight, bias, **settings)
    reached = torch.zeros(2, C_out, H, W, dtype=torch.bool)
    for o, ty, tx in itertools.product(range(C_out), range(kh), range(kw)):
        row, column = y - d * (ty - kh // 2), x - d * (tx - kw // 2)
        if mask[o, i, ty, tx] and 0 <= row < H and 0 <= column < W:
            reached[1, o, row, column] = True
    assert torch.equal(after.isnan(), reached)
    assert torch.equal(after[~reached], before[~reached])  # bitwise, nothing else moved
    later = torch.arange(H * W).view(H, W) >= y * W + x
    assert not (reached & ~later).any()


@given(st.data(), st.integers(1, 6), st.integers(1, 18), kernels)
@settings(max_examples=60)
def test_masked_taps_are_never_read_and_get_no_gradient(data, C_in, C_out, kernel):
    settings = data.draw(options(C_in, C_out))
    mask = live_taps(C_out, C_in, *kernel, settings["mask_type"], settings["data_channels"])
    inputs = [torch.randn(2, C_in, 4, 9), torch.randn(C_out, C_in, *kernel), torch.randn(C_out)]
    upstream = torch.randn(2, C_out, 4, 9)
    (clean,), clean_grads = run(fused(settings), inputs, [upstream])
    inputs[1] = inputs[1].masked_fill(~mask, math.nan)
    (got,), grads = run(fused(settings), inputs, [upstream])
    assert torch.equal(got, clean) and all(map(torch.equal, grads, clean_grads))
    assert not grads[1][~mask].any()
    reach = torch.zeros(kernel, dtype=torch.bool)  # taps that some pixel of a 4x9 image meets
    a, b, d = kernel[0] // 2, kernel[1] // 2, settings["dilation"]
    for ty, tx in itertools.product(*map(range, kernel)):
        reach[ty, tx] = abs(ty - a) * d < 4 and abs(tx - b) * d < 9
    assert grads[1][mask & reach].all()


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


@pytest.mark.parametrize("mask_type, data_channels", [("A", 1), ("B", 3)])
def test_gradients_of_both_orders(mask_type, data_channels):
    x = torch.randn(1, 3, 2, 3, dtype=F64, requires_grad=True)
    w = torch.randn(3, 3, 2, 3, dtype=F64, requires_grad=True)
    b = torch.randn(3, dtype=F64, requires_grad=True)
    function = fused({"mask_type": mask_type, "data_channels": data_channels, "dilation": 1})
    assert torch.autograd.gradcheck(function, (x, w, b))
    assert torch.autograd.gradgradcheck(function, (x, w, b), fast_mode=True)
    assert torch.autograd.gradcheck(function, (x.detach(), w.detach(), b))
    assert torch.autograd.gradgradcheck(function, (x, w.detach()))


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


def test_only_the_gradients_that_are_needed():
    tensors = [torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3), torch.randn(5)]
    (_, whole) = run(genkern.masked_conv2d, tensors, [torch.ones(2, 5, 4, 4)])
    for needed in itertools.product([False, True], repeat=3):
        leaves = [t.clone().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
        y = genkern.masked_conv2d(*leaves)
        assert (y.grad_fn is None) == (not any(needed))
        if any(needed):
            y.sum().backward()  # hands a stride-0 gradient
        for leaf, need, grad in zip(leaves, needed, whole, strict=True):
            assert torch.equal(leaf.grad, grad) if need else leaf.grad is None
    with torch.no_grad():
        assert genkern.masked_conv2d(*leaves).grad_fn is None


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


# ---- edges ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0), (2, 0, 3, 3)])
def test_empty_images(shape):
    w = torch.randn(5, shape[1], 3, 3, requires_grad=True)
    b, x = torch.randn(5, requires_grad=True), torch.randn(shape, requires_grad=True)
    y = genkern.masked_conv2d(x, w, b)
    assert torch.equal(y, b[:, None, None].expand(shape[0], 5, *shape[2:]))
    y.sum().backward()
    assert x.grad.shape == shape and not w.grad.any()
    assert torch.equal(b.grad, torch.full((5,), float(y[:, 0].numel())))


def test_type_a_on_a_1x1_kernel_is_the_bias():
    x, w = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(6, 3, 1, 1, requires_grad=True)
    b = torch.randn(6)
    y = genkern.masked_conv2d(x, w, b, mask_type="A")
    assert torch.equal(y, b[:, None, None].expand(2, 6, 4, 5))
    y.sum().backward()
    assert not w.grad.any() and not x.grad.any()


def test_equals_a_multiplied_mask_in_torch():
    x, w, b = torch.randn(2, 5, 8, 9), torch.randn(7, 5, 5, 5), torch.randn(7)
    for mask_type, d in itertools.product("AB", (1, 2)):
        mask = live_taps(7, 5, 5, 5, mask_type, 1)
        want = F.conv2d(
            x.double(), w.double() * mask, b.double(), padding="same", dilation=d
        )  # fmt: skip
        got = genkern.masked_conv2d(x, w, b, mask_type=mask_type, dilation=d)
        scale = F.conv2d(x.abs(), w.abs(), b.abs(), padding="same", dilation=d).double()
        assert_close(got, want, terms=126, scale=scale)


def test_unbatched_large_batches_and_kernels_larger_than_the_image():
    x, w = torch.randn(3, 5, 6, requires_grad=True), torch.randn(4, 3, 3, 3)
    y = genkern.masked_conv2d(x, w)
    assert torch.equal(y, genkern.masked_conv2d(x[None], w)[0])
    y.sum().backward()
    assert x.grad.shape == x.shape
    many = torch.randint(-3, 4, (65_537, 1, 1, 2)).float()
    kernel = torch.randint(-3, 4, (2, 1, 3, 3)).float()
    assert torch.equal(genkern.masked_conv2d(many, kernel), reference.forward(many, kernel))
    far = torch.randint(-3, 4, (1, 2, 31, 63)).float()
    assert torch.equal(
        genkern.masked_conv2d(many[:1], far[:, :1], dilation=10_000_000),
        many[:1] * far[0, 0, 15, 31],
    )


def test_large_values_do_not_overflow_inside():
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.full((1, 2, 1, 1), 300.0, dtype=dtype)
        w = torch.tensor([300.0, -300.0], dtype=dtype).view(1, 2, 1, 1)
        assert genkern.masked_conv2d(x, w).item() == 0.0  # 90000 is beyond float16
    inf = genkern.masked_conv2d(torch.tensor([[[[math.inf]]]]), torch.ones(1, 1, 1, 1))
    assert inf.item() == math.inf


def test_inputs_are_not_written_and_backward_twice_raises():
    inputs = [torch.randn(2, 3, 4, 5), torch.randn(6, 3, 3, 3), torch.randn(6)]
    before = [x.clone() for x in inputs]
    run(genkern.masked_conv2d, inputs, [torch.randn(2, 6, 4, 5)])
    assert all(map(torch.equal, inputs, before))
    y = genkern.masked_conv2d(*(x.requires_grad_() for x in inputs)).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_autocast_computes_in_the_autocast_dtype():
    x, w = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    b = torch.randn(4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = genkern.masked_conv2d(x, w, b)
        exact = genkern.masked_conv2d(x.double(), w.double(), b.double())
    half = [t.detach().bfloat16() for t in (x, w, b)]
    assert y.dtype == torch.bfloat16 and torch.equal(y, genkern.masked_conv2d(*half))
    assert exact.dtype == F64
    y.sum().backward()
    assert x.grad.dtype == w.grad.dtype == b.grad.dtype == torch.float32


# ---- threads, levels, compilers ------------------------------------------------------------


@pytest.mark.parametrize("level", machine_levels())
def test_thread_count_does_not_change_a_bit(level):
    code = """
results = []
cases = ((3, 20, 35, 17, 19, 5, 1), (1, 1, 17, 40, 301, 7, 1), (9, 6, 9, 8, 8, 3, 3))
for N, C, O, H, W, k, g in cases:
    x = torch.randn(N, C, H, W, requires_grad=True)
    w = torch.randn(O, C, k, k, requires_grad=True)
    b = torch.randn(O, requires_grad=True)
    y = genkern.masked_conv2d(x, w, b, data_channels=g)
    y.square().sum().backward()
    results += [y, x.grad, w.grad, b.grad]
print(digest(*results))
"""
    one, two = (probe(code, level=level, threads=t) for t in (1, 2))
    assert one == two


@pytest.mark.parametrize("level", machine_levels())
def test_every_level_matches_the_float64_reference(level):
    code = """
import sys
sys.path.insert(0, "tests")
from test_masked_conv2d import check, fused, plain
cases = [
    (torch.float32, 2, 17, 35, 6, 19, 5, "A", 3, 1), (torch.float32, 1, 1, 9, 9, 29, 7, "A", 1, 1),
    (torch.float64, 2, 9, 17, 5, 18, 3, "B", 2, 2), (torch.bfloat16, 2, 8, 33, 4, 17, 3, "B", 1, 1),
    (torch.float16, 2, 32, 40, 4, 16, 1, "B", 1, 1), (torch.float32, 1, 3, 3, 2, 140, 4, "B", 3, 1),
]
for dtype, N, C, O, H, W, k, mask_type, g, d in cases:
    settings = {"mask_type": mask_type, "data_channels": g, "dilation": d}
    shapes = (N, C, H, W), (O, C, k, k), (O,), (N, O, H, W)
    *x, upstream = [torch.randn(s).to(dtype) for s in shapes]
    check(fused(settings), plain(settings), x, upstream, settings)
print("checked")
"""
    assert probe(code, level=level) == "checked\n"


@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(channels_last):
    x, w, b = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 3), torch.randn(3)
    forward = torch.ops.genkern.masked_conv2d_forward.default
    backward = torch.ops.genkern.masked_conv2d_backward.default
    rest = (False, 1, 1, channels_last)
    torch.library.opcheck(forward, (x, w, b, *rest))
    torch.library.opcheck(forward, (x, w, None, True, 3, 2, channels_last))
    d_y = torch.randn(2, 3, 5, 6)
    torch.library.opcheck(backward, (d_y, x, w, *rest, True, True, True))
    torch.library.opcheck(backward, (d_y, x, w, *rest, False, False, True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic):
    inputs = [torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3), torch.randn(4)]
    function = lambda x, w, b: genkern.masked_conv2d(x * 2, w, b, mask_type="A")  # noqa: E731
    check_compiled(function, inputs, dynamic=dynamic)
    if not dynamic:
        inputs[0] = inputs[0].to(memory_format=torch.channels_last)
        check_compiled(function, inputs, dynamic=dynamic)


def test_functorch_and_export_run_the_reference():
    x, w = torch.randn(4, 2, 5, 5), torch.randn(3, 2, 3, 3)
    got = torch.func.vmap(lambda image: genkern.masked_conv2d(image[None], w)[0])(x)
    torch.testing.assert_close(got, genkern.masked_conv2d(x, w))
    layer = nn.MaskedConv2d(2, 3, 3)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))
    with genkern.use_backend("reference"):
        assert torch.equal(genkern.masked_conv2d(x, w), reference.forward(x, w))
        assert genkern.last_backend("masked_conv2d") == "reference"


# ---- errors --------------------------------------------------------------------------------

X, WEIGHT = torch.ones(2, 3, 4, 4), torch.ones(5, 3, 3, 3)
call = genkern.masked_conv2d
ERRORS = [
    (lambda: call([1.0], WEIGHT), TypeError, "masked_conv2d: input must be a Tensor; got list"),
    (lambda: call(X, None), TypeError, "masked_conv2d: weight must be a Tensor; got NoneType"),
    (lambda: call(X.int(), WEIGHT), TypeError,
     "masked_conv2d: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(torch.ones(2, 3), WEIGHT), RuntimeError,
     r"masked_conv2d: input must have shape \(N, C, H, W\) or \(C, H, W\); got \(2, 3\)"),
    (lambda: call(X, WEIGHT.double()), RuntimeError,
     "masked_conv2d: weight must be float32 like input; got float64"),
    (lambda: call(X, WEIGHT.to("meta")), RuntimeError,
     "masked_conv2d: weight must be on cpu like input; got meta"),
    (lambda: call(X[:, :1], WEIGHT), RuntimeError,
     r"weight.shape\[1\] must equal the channels of input = 1; got weight \(5, 3, 3, 3\)"),
    (lambda: call(X, WEIGHT[0]), RuntimeError,
     r"weight must have shape \(C_out, C_in, kh, kw\) with .*; got \(3, 3, 3\)"),
    (lambda: call(X, WEIGHT[:, :, :0]), RuntimeError, r"at least 1; got \(5, 3, 0, 3\)"),
    (lambda: call(X, WEIGHT[:0]), RuntimeError, r"at least 1; got \(0, 3, 3, 3\)"),
    (lambda: call(X, WEIGHT, torch.ones(4)), RuntimeError,
     r"bias must have shape \(weight.shape\[0\],\) = \(5,\); got \(4,\)"),
    (lambda: call(X, WEIGHT, mask_type="b"), ValueError, "mask_type must be one of 'A', 'B'; got"),
    (lambda: call(X, WEIGHT, data_channels=4), ValueError,
     r"data_channels must be in \[1, 3\]; got 4"),
    (lambda: call(X, WEIGHT, data_channels=1.5), TypeError, "data_channels must be an integer"),
    (lambda: call(X, WEIGHT, dilation=0), ValueError, "dilation must be at least 1; got 0"),
    (lambda: call(X, WEIGHT, padding=1), TypeError, "padding"),
    (lambda: nn.MaskedConv2d(2, 3, 3, mask_type="C"), ValueError, "must be one of 'A', 'B'"),
    (lambda: nn.MaskedConv2d(3, 2, 3, data_channels=3), ValueError,
     r"MaskedConv2d: data_channels must be in \[1, 2\]; got 3"),
    (lambda: nn.MaskedConv2d(3, 2, (3, 0)), ValueError, "kernel_size must be at least 1; got 0"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, text", ERRORS)
def test_errors_name_op_argument_and_value(call, error, text):
    with pytest.raises(error, match=text):
        call()


# ---- the module, and tests of the tests ----------------------------------------------------


def test_module_takes_the_place_of_a_convolution():
    convolution = torch.nn.Conv2d(2, 5, 3, padding=1)
    layer = nn.MaskedConv2d(2, 5, 3, mask_type="A")
    layer.load_state_dict(convolution.state_dict())
    assert list(layer.state_dict()) == list(convolution.state_dict())
    x = torch.randn(1, 2, 4, 4)
    mask = live_taps(5, 2, 3, 3, "A", 1)
    want = F.conv2d(x, convolution.weight * mask, convolution.bias, padding=1)
    torch.testing.assert_close(layer(x), want)
    assert torch.equal(layer(x[0]), layer(x)[0])
    averaged = torch.optim.swa_utils.AveragedModel(layer)
    averaged.update_parameters(layer)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), averaged):
        assert torch.equal(clone(x), layer(x))
    text = repr(nn.MaskedConv2d(2, 5, (3, 1), dilation=2, bias=False))
    assert "2, 5, kernel_size=(3, 1), mask_type='B'" in text and "dilation=2, bias=False" in text


def test_module_is_drawn_for_the_fan_in_of_its_live_taps():
    weight = nn.MaskedConv2d(8, 64, 5).weight
    bound = 1 / math.sqrt(8 * 13)
    assert 0.98 * bound < weight.abs().max() <= bound
    assert nn.MaskedConv2d(1, 1, 1, mask_type="A").weight.isfinite().all()


def mutant(change):
    """The reference on changed arguments."""

    def forward(input, weight, bias, **settings):
        return reference.forward(*change(input, weight, bias, settings), **settings)

    return forward


def swap(settings, **changes):
    settings.update(changes)


def floor_groups(channels, groups):
    return [channels * (g + 1) // groups for g in range(groups)]


MUTANTS = {
    "centre tap live in A": lambda x, w, b, s: swap(s, mask_type="B") or (x, w, b),
    "no bias": lambda x, w, b, s: (x, w, None),
    "taps mirrored": lambda x, w, b, s: (x, w.flip(3), b),
    "kernel transposed": lambda x, w, b, s: (x, w.transpose(2, 3), b),
    "no colours": lambda x, w, b, s: swap(s, data_channels=1) or (x, w, b),
    "dilation ignored": lambda x, w, b, s: swap(s, dilation=1) or (x, w, b),
    "last channel dropped": lambda x, w, b, s: (x, F.pad(w[:, :-1], (0, 0, 0, 0, 0, 1)), b),
    "image shifted": lambda x, w, b, s: (x.roll(1, 3), w, b),
    "one tap dropped": lambda x, w, b, s: (x, F.pad(w[:, :, :, 1:], (1, 0)), b),
}
CASE = {"mask_type": "A", "data_channels": 3, "dilation": 2}


def case():
    shapes = ((2, 7, 6, 7), (5, 7, 3, 3), (5,), (2, 5, 6, 7))
    return [torch.randn(s) for s in shapes]


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    *inputs, upstream = case()
    check(fused(CASE), plain(CASE), inputs, upstream, CASE)
    with pytest.raises(AssertionError, match="elements off"):
        check(fused(CASE), plain(dict(CASE), mutant(MUTANTS[name])), inputs, upstream, CASE)


def test_the_property_test_catches_other_colour_groups(monkeypatch):
    *inputs, upstream = case()
    monkeypatch.setattr(reference, "group_ends", floor_groups)
    with pytest.raises(AssertionError, match="elements off"):
        check(fused(CASE), plain(CASE), inputs, upstream, CASE)


@pytest.mark.parametrize("wrong", range(3))
def test_the_property_test_catches_one_wrong_gradient_element(monkeypatch, wrong):
    from genkern.ops import masked_conv2d as op

    backward = op._backward

    def perturbed(*arguments):
        grads = backward(*arguments)
        grads[wrong].view(-1)[-1 if wrong else 0] += 1e-3
        return grads

    *inputs, upstream = case()
    inputs[1] = inputs[1][:, :, :, :]
    monkeypatch.setattr(op, "_backward", perturbed)
    with pytest.raises(AssertionError, match=NAMES[wrong]):
        check(fused(CASE), plain(CASE), inputs, upstream, CASE)
