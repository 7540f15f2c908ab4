"""The Triton kernels of masked_conv2d in the interpreter, through their launchers."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tests.core.strategies import DTYPES, lay_out, layouts, sizes, tensors
from tests.core.tolerance import assert_close

pytest.importorskip("triton")
import genkern
from genkern.reference import masked_conv2d as reference
from genkern.triton_kernels import masked_conv2d as kernels
from tests.core.triton_kit import (
    few_examples,
    interpreted,
    launches,
    resolved,
    small_tiles,
)
from tests.masked_conv2d.values import MASK_TYPES, bits, mask_of
from tests.masked_conv2d.values import options as drawn_options

NEEDS = (True, True, True)
OPTIONS = ("data_channels", "dilation", "parts")
masks = pytest.mark.parametrize("mask_type", ["A", "B"])


def ordered(mask_type="B", groups=1, dilation=1, parts=1):
    """Options as the launchers take them."""
    return MASK_TYPES.index(mask_type), groups, parts, dilation


def forward(input, weight, bias, *options, last=False):
    launcher = resolved(kernels.LAUNCHERS["masked_conv2d_forward"])
    return launcher(input, weight, bias, *ordered(*options), last)


def backward(d_output, input, weight, *options, last=False, needs=NEEDS):
    launcher = resolved(kernels.LAUNCHERS["masked_conv2d_backward"])
    bias = torch.zeros_like(weight[:, 0, 0, 0])  # only whether there is one matters
    return launcher(d_output, input, weight, bias, *ordered(*options), last, *needs)


def reference_of(inputs, upstream, *options):
    """Output and gradients of the definition; zeros where nothing depends on an input."""
    leaves = [x.double().requires_grad_() for x in inputs]
    output = reference.forward(*leaves, *options)
    grads = torch.autograd.grad(output, leaves, upstream.double(), allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
    return output.detach(), zeros


def check(inputs, upstream, options, last=False):
    input, weight, _ = inputs
    with launches() as names:
        output = forward(*inputs, *options, last=last)
    assert len(names) == (output.numel() > 0)
    with launches() as names:
        grads = backward(upstream, input, weight, *options, last=last)
    assert len(names) == 2 * (output.numel() > 0)
    want, want_grads = reference_of(inputs, upstream, *options)
    scale, grad_scales = reference_of([x.abs() for x in inputs], upstream.abs(), *options)
    taps, pixels = weight[0, 0].numel(), input[:, 0].numel()
    terms = (weight.shape[0] * taps, pixels, pixels)
    assert_close(output, want, terms=weight.shape[1] * taps + 1, scale=scale, name="output")
    for name, *found in zip(("input", "weight", "bias"), grads, want_grads, terms, grad_scales,
                            strict=True):  # fmt: skip
        assert_close(found[0], found[1], terms=found[2], scale=found[3], name=f"d_{name}")


@st.composite
def problems(draw):
    channels = st.one_of(st.integers(1, 9), st.sampled_from([16, 17]))
    C_in, C_out = draw(channels), draw(channels)
    side = st.sampled_from([1, 2, 3, 4, 5, 7])
    N, H, W = draw(sizes(3)), draw(sizes(7)), draw(sizes(11))
    dtype = draw(st.sampled_from(DTYPES))
    shapes = (N, C_in, H, W), (C_out, C_in, draw(side), draw(side)), (C_out,), (N, C_out, H, W)
    *inputs, upstream = [draw(tensors(shape, dtype)) for shape in shapes]
    settings = draw(drawn_options(C_in, C_out))
    return inputs, upstream, [settings[name] for name in ("mask_type", *OPTIONS)]


@given(problems(), st.booleans())
@few_examples
def test_values_and_every_gradient_match_the_float64_reference(problem, last):
    check(*problem, last)


@given(problems(), st.booleans(), st.data())
@few_examples
def test_a_window_is_that_part_of_the_whole_output(problem, last, data):
    """Of integers, whose sums are exact: the interpreter's products of matrices round by row."""
    inputs, _, options = problem
    inputs = [torch.randint_like(x, -4, 5) for x in inputs]
    ends = [
        sorted(data.draw(st.integers(0, size)) for _ in range(2)) for size in inputs[0].shape[2:]
    ]
    (top, bottom), (left, right) = ends
    want = forward(*inputs, *options, last=last)[:, :, top:bottom, left:right]
    launcher = resolved(kernels.LAUNCHERS["masked_conv2d_window"])
    got = launcher(*inputs, *ordered(*options), last, top, bottom, left, right)
    assert torch.equal(bits(got), bits(want))


def check_groups(C_in, C_out, last, *options):
    shapes = (1, C_in, 2, 5), (C_out, C_in, 3, 3), (C_out,), (1, C_out, 2, 5)
    layout = "channels_last" if last else "contiguous"
    check(*_split([lay_out(torch.randn(shape).half(), layout) for shape in shapes]), options, last)


def _split(tensors):
    return tensors[:-1], tensors[-1]


@pytest.mark.parametrize(
    "last, options", [(False, ("A", 2, 1)), (True, ("B", 2, 1)), (False, ("B", 2, 1, 2))]
)
def test_colour_groups_across_tiles(last, options):
    with small_tiles(16, 8, 16):
        check_groups(18, 20, last, *options)


@pytest.mark.deep
@masks
@pytest.mark.parametrize("last", [False, True])
def test_colour_groups_across_the_tiles_of_a_chip(last, mask_type):
    check_groups(134, 70, last, mask_type, 3, 1)
    check_groups(134, 70, last, mask_type, 3, 1, 2)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.sampled_from("AB"))
@few_examples
def test_integers_are_exact(C_in, C_out, groups, mask_type):
    options = (mask_type, min(groups, C_in, C_out), 1)
    shapes = (2, C_in, 5, 6), (C_out, C_in, 3, 5), (C_out,), (2, C_out, 5, 6)
    *inputs, upstream = [torch.randint(-4, 5, shape).float() for shape in shapes]
    want, want_grads = reference_of(inputs, upstream, *options)
    assert torch.equal(forward(*inputs, *options).double(), want)
    for got, wanted in zip(backward(upstream, *inputs[:2], *options), want_grads, strict=True):
        assert torch.equal(got.double(), wanted)


@masks
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("channels", [(3, 7), pytest.param((40, 35), marks=pytest.mark.deep)])
def test_nan_in_masked_taps_never_leaks_and_their_gradient_is_0(mask_type, groups, channels):
    C_in, C_out = channels
    input, weight = torch.randn(1, C_in, 4, 5), torch.randn(C_out, C_in, 3, 3)
    dead = ~mask_of(weight.shape, {"mask_type": mask_type, "data_channels": groups})
    poisoned = torch.where(dead, math.nan, weight)
    options = (mask_type, groups)
    want = forward(input, weight, None, *options)
    assert torch.equal(forward(input, poisoned, None, *options), want)
    upstream = torch.randn_like(want)
    want, got = (backward(upstream, input, w, *options) for w in (weight, poisoned))
    assert torch.equal(got[0], want[0])
    assert (got[1][dead] == 0).all()
    assert (got[1][~dead] != 0).any()


@masks
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.deep)]
)
def test_future_pixels_and_invisible_channels_never_leak(mask_type, dtype):
    C_in, C_out, groups, (y, x) = 20, 35, 3, (2, 3)
    input, weight = torch.randn(1, C_in, 5, 6).to(dtype), torch.randn(C_out, C_in, 3, 3).to(dtype)
    want = forward(input, weight, None, mask_type, groups)
    ends, out_ends = (reference.group_ends(c, groups) for c in (C_in, C_out))
    for group in range(groups):  # all from this colour of this pixel on is NaN
        poisoned = input.clone()
        poisoned[:, :, y + 1 :], poisoned[:, :, y, x + 1 :] = math.nan, math.nan
        poisoned[:, ([0, *ends])[group] :, y, x] = math.nan
        got = forward(poisoned, weight, None, mask_type, groups)
        clean = out_ends[group] if mask_type == "A" else ([0, *out_ends])[group]
        assert torch.equal(got[:, :, :y], want[:, :, :y])
        assert torch.equal(got[:, :, y, :x], want[:, :, y, :x])
        assert torch.equal(got[:, :clean, y, x], want[:, :clean, y, x])
        if clean < C_out:
            assert got[:, clean:, y, x].isnan().all()


@given(layouts, layouts, layouts)
@few_examples
def test_strides_of_images_and_upstream_gradients_do_not_matter(first, second, third):
    drawn = [torch.randn(s) for s in ((2, 18, 2, 3), (5, 18, 3, 3), (2, 5, 2, 3))]
    input, weight, upstream = map(lay_out, drawn, (first, second, third))
    contiguous = [x.contiguous() for x in (upstream, input, weight)]
    assert torch.equal(forward(input, weight, None), forward(*contiguous[1:], None))
    for got, want in zip(backward(upstream, input, weight), backward(*contiguous), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("last", [False, True])
def test_the_front_door_reaches_the_launchers(last):
    layout = "channels_last" if last else "contiguous"
    input, weight = (lay_out(torch.randn(s), layout) for s in ((2, 3, 4, 5), (6, 3, 3, 3)))
    input.requires_grad_(), weight.requires_grad_()
    with interpreted("masked_conv2d"), launches() as names:
        output = genkern.masked_conv2d(input, weight)
        output.sum().backward()
    assert names == [f"masked_conv2d_{k}_kernel" for k in ("forward", "backward", "weight")]
    assert output.is_contiguous() != last
    assert input.grad.stride() == input.stride() and weight.grad.stride() == weight.stride()


def test_sum_of_the_output_sends_an_expanded_gradient():
    input, weight = torch.randn(2, 3, 4, 5), torch.randn(6, 3, 3, 3)
    check([input, weight, torch.zeros(6)], torch.ones(()).expand(2, 6, 4, 5), ("B", 1, 1))


@pytest.mark.parametrize("needs", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_only_the_gradients_that_are_needed(needs):
    shapes = (2, 3, 4, 5), (6, 3, 3, 3), (2, 6, 4, 5)
    input, weight, upstream = map(torch.randn, shapes)
    with launches() as names:
        got = backward(upstream, input, weight, needs=tuple(map(bool, needs)))
    assert len(names) == (any(needs) + (needs[1] or needs[2]))
    for found, wanted, need in zip(got, backward(upstream, input, weight), needs, strict=True):
        assert torch.equal(found, wanted) if need else found.numel() == 0


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_images_launch_nothing(shape):
    input, weight = torch.randn(shape), torch.randn(6, 3, 3, 3)
    with launches() as names:
        output = forward(input, weight, torch.randn(6))
        grads = backward(output, input, weight)
    assert not names
    assert output.shape == (shape[0], 6, *shape[2:])
    assert grads[0].shape == shape
    assert not grads[1].any() and not grads[2].any()


def test_without_live_taps_the_output_is_the_bias():
    input, weight, bias = torch.randn(2, 3, 4, 5), torch.empty(6, 3, 1, 1), torch.randn(6)
    weight.fill_(math.nan)
    output = forward(input, weight, bias, "A")
    assert torch.equal(output, bias[:, None, None].expand_as(output))
    d_input, d_weight, d_bias = backward(torch.ones_like(output), input, weight, "A")
    assert not d_input.any() and not d_weight.any() and (d_bias == 40).all()


def test_the_same_bits_again():
    shapes = (5, 5, 8, 9), (6, 5, 3, 3), (5, 6, 8, 9)
    input, weight, upstream = map(torch.randn, shapes)
    for once, again in zip(*(backward(upstream, input, weight) for _ in range(2)), strict=True):
        assert torch.equal(once, again)


def test_what_cannot_run_is_said_in_a_sentence():
    input, weight = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 3, 3)
    for other, text in (
        (weight.double(), "weight must be float32 like input; got float64"),
        (weight.to("meta"), "weight must be on cpu like input; got meta"),
    ):
        assert kernels.unsupported(input, other) == f"masked_conv2d: {text}"
        with pytest.raises(RuntimeError, match=text):
            forward(input, other, None)
