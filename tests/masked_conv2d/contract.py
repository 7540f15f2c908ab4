"""masked_conv2d: edges, the module, mutants; the rest of its contract is in tests/core."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

import genkern
from benchmarks.masked_conv2d import mask_of
from genkern import nn
from genkern.reference import masked_conv2d as reference
from tests.core.tolerance import assert_close
from tests.masked_conv2d.values import check, fused, live_taps, plain

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


def test_the_benchmark_counts_live_taps():
    assert mask_of(2, 3, 7, 7, "A").sum() == 2 * 3 * 24
    assert mask_of(2, 3, 7, 7, "B").sum() == 2 * 3 * 25
    assert mask_of(3, 3, 1, 1, "A", 3).flatten(1).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


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
