"""masked_conv2d: edges, threads, levels, compilers, errors, the module, mutants."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern import nn
from genkern.reference import masked_conv2d as reference
from tests.core.helpers import check_compiled, machine_levels, probe, run
from tests.core.tolerance import assert_close
from tests.masked_conv2d.values import F64, NAMES, check, fused, live_taps, plain

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
sys.path.insert(0, ".")
from tests.masked_conv2d.values import check, fused, plain
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


# ---- errors, for test_errors.py ------------------------------------------------------------

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
