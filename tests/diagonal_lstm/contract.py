"""diagonal_lstm: the module, causality, mutants; the rest of its contract is in tests/core."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import genkern
from genkern import nn
from genkern.reference import diagonal_lstm as reference
from tests.core.helpers import check_colours_are_causal
from tests.diagonal_lstm.values import F64, check, fused, make

# ---- the module ------------------------------------------------------------------------------

SIDE = 8


def small_net(layers: int) -> torch.nn.Sequential:
    """7 x 7 mask A, then layers: the paper's construction; weights that let every path through."""
    torch.manual_seed(layers)
    first = nn.MaskedConv2d(1, 4, 7, mask_type="A")
    net = torch.nn.Sequential(first, *(nn.DiagonalBiLSTM(4, 3) for _ in range(layers))).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


@pytest.mark.parametrize("layers", [1, 3])
def test_no_pixel_sees_a_later_one_and_all_see_every_earlier_one_but_28_pairs(layers):
    """Mask A leaves out a feature's own pixel, so that no state that moved down has seen the last
    pixel of the row above; columns from W - 4 on see it through the convolution and the left."""
    net, pixels = small_net(layers), SIDE * SIDE
    images = torch.randn(SIDE * SIDE, 1, SIDE, SIDE, dtype=F64)[:1].repeat(pixels + 1, 1, 1, 1)
    images.view(pixels + 1, -1)[:-1] += torch.eye(pixels, dtype=F64)
    outputs = net(images).flatten(2).transpose(1, 2)
    changed = (outputs[:-1] != outputs[-1:]).any(2)  # [of pixel][at pixel], bitwise
    earlier = torch.ones(pixels, pixels, dtype=torch.bool).triu(1)
    assert not changed[~earlier].any()
    of, at = (earlier & ~changed).nonzero(as_tuple=True)
    want = {(r * SIDE - 1, r * SIDE + c) for r in range(1, SIDE) for c in range(SIDE - 4)}
    assert set(zip(of.tolist(), at.tolist(), strict=True)) == want and len(want) == 28
    assert int(earlier.sum()) == 2016


def test_the_jacobian_says_the_same():
    net, image = small_net(1), torch.randn(1, 1, SIDE, SIDE, dtype=F64, requires_grad=True)
    rows = [
        torch.autograd.grad(y, image, retain_graph=True)[0].flatten()
        for y in net(image).sum(1).flatten()
    ]
    seen = torch.stack(rows) != 0  # [at pixel][of pixel]
    assert not seen.triu().any() and int(seen.sum()) == 2016 - 28


def test_a_later_nan_never_leaks():
    net, image = small_net(2), torch.randn(1, 1, SIDE, SIDE, dtype=F64)
    want = net(image).flatten(2)
    image.view(-1)[27:] = torch.nan
    got = net(image).flatten(2)
    assert torch.equal(got[..., :28], want[..., :28]) and got[..., 28:36].isnan().all()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("features, hidden", [(6, 3), (7, 4), (9, 8)])
def test_colours_see_earlier_pixels_and_earlier_colours_only(features, hidden, residual):
    layer = nn.DiagonalBiLSTM(features, hidden, data_channels=3, residual=residual)
    check_colours_are_causal(layer, features)


@pytest.mark.parametrize("shape", [(3, 5), (1, 4), (4, 1)])
def test_layer_is_two_scans_a_shift_and_a_residual(shape):
    layer = nn.DiagonalBiLSTM(6, 4, dtype=F64)
    for side in (layer.left, layer.right):
        torch.nn.init.normal_(side.h0), torch.nn.init.normal_(side.c0)
    input = torch.randn(2, 6, *shape, dtype=F64, requires_grad=True)

    def scan(side, input):
        gates = F.conv2d(input, side.input_to_state.weight, side.input_to_state.bias)
        state = [s[:, None].expand(2, 4, shape[0]) for s in (side.h0, side.c0)]
        return reference.forward(gates, side.weight_hh, *state)

    right = scan(layer.right, input.flip(3)).flip(3)
    shifted = torch.cat([torch.zeros_like(right[:, :, :1]), right[:, :, :-1]], 2)
    want = input + layer.output(scan(layer.left, input) + shifted)
    torch.testing.assert_close(layer(input), want)
    wanted = [input, *layer.parameters()]
    got_grads = torch.autograd.grad(layer(input).square().sum(), wanted)
    torch.testing.assert_close(got_grads, torch.autograd.grad(want.square().sum(), wanted))


def test_module_names_its_parameters_and_takes_images_alone():
    layer = nn.DiagonalBiLSTM(6, 4)
    one = {"input_to_state.weight", "input_to_state.bias", "weight_hh", "h0", "c0"}
    both = {f"{side}.{name}" for side in ("left", "right") for name in one}
    assert set(layer.state_dict()) == both | {"output.weight", "output.bias"}
    plain = nn.DiagonalBiLSTM(6, 4, residual=False, learned_state=False)
    image = torch.randn(6, 3, 5)
    assert torch.equal(plain(image), plain(image[None])[0]) and plain(image).shape == (4, 3, 5)
    assert plain(torch.randn(2, 6, 0, 5)).shape == (2, 4, 0, 5)
    assert layer.bfloat16()(image.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain(image).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (1, 4, 5, 6), (), (1, 1, 3, 5, 6)])
def test_another_shape_is_named(shape):
    text = r"DiagonalBiLSTM: input must have shape \(N, 3, H, W\) or \(3, H, W\); got \("
    with pytest.raises(ValueError, match=text):
        nn.DiagonalBiLSTM(3, 4)(torch.randn(shape))


def test_flops_are_those_of_the_products_with_the_states():
    gates = torch.randn(2, 8, 4, 5, requires_grad=True)
    weight, state = torch.randn(8, 2, 2, requires_grad=True), torch.zeros(2, 2, 4)
    for states, left in (((), 4 * 4), ((state, state), 4 * 5)):
        product = 2 * 2 * (left + 3 * 5) * 8 * 2
        with FlopCounterMode(display=False) as counter:
            h = genkern.diagonal_lstm(gates, weight, *states)
        assert counter.get_total_flops() == product
        with FlopCounterMode(display=False) as counter:
            h.sum().backward()
        assert counter.get_total_flops() == 2 * product


# ---- tests of the tests ----------------------------------------------------------------------


def permuted(order):
    def function(gates, weight, h0, c0):
        swap = lambda t: torch.cat([t.chunk(4)[i] for i in order])  # noqa: E731
        return reference.forward(swap(gates.transpose(0, 1)).transpose(0, 1), swap(weight), h0, c0)

    return function


MUTANTS = {
    "gate order i, f, o, g": permuted((2, 1, 0, 3)),
    "gate order of torch": permuted((2, 1, 3, 0)),
    "h0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0 * 0, c0),
    "c0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0, c0 * 0),
    "taps mirrored": lambda x, w, h0, c0: reference.forward(x, w.flip(2), h0, c0),
    "no row above": lambda x, w, h0, c0: reference.forward(
        x, w * torch.tensor([0.0, 1.0], dtype=F64), h0, c0
    ),
    "from the other side": lambda x, w, h0, c0: reference.forward(x, w, h0, c0, reverse=True),
    "starts of other rows": lambda x, w, h0, c0: reference.forward(
        x, w, h0.roll(1, 2), c0.roll(1, 2)
    ),
    "rows and columns exchanged": lambda x, w, h0, c0: reference.forward(
        x.transpose(2, 3), w, h0, c0
    ).transpose(2, 3),
    "gradient of h0 stopped": lambda x, w, h0, c0: reference.forward(
        x, w, h0.detach() + 0 * h0, c0
    ),
    "gradient of the weight through half of the batch": lambda x, w, h0, c0: torch.cat(
        [
            reference.forward(x[:1], w, h0[:1], c0[:1]),
            reference.forward(x[1:], w.detach(), h0[1:], c0[1:]),
        ]
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_mutants(name):
    inputs, upstream = make(2, 5, 4, 4, torch.float32)
    check(fused(), reference.forward, inputs, upstream, False)
    with pytest.raises(AssertionError):
        check(fused(), MUTANTS[name], inputs, upstream, False)
