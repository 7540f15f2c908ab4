"""row_lstm: the module, mutants; the rest of its contract is in tests/core."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern import nn
from genkern.reference import row_lstm as reference
from tests.core.helpers import check_colours_are_causal
from tests.row_lstm.values import F64, check_closely, fused, make

# ---- the module ------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("features, hidden", [(6, 3), (12, 6), (7, 4), (9, 8)])
def test_colours_see_earlier_pixels_and_earlier_colours_only(features, hidden, residual):
    layer = nn.RowLSTM(features, hidden, data_channels=3, residual=residual)
    check_colours_are_causal(layer, features)


def test_colours_split_each_gate():
    layer = nn.RowLSTM(6, 3, data_channels=3, residual=False, learned_state=False)
    input, conv = torch.randn(2, 6, 3, 4), layer.input_to_state
    want = [
        genkern.masked_conv2d(input, w, b, data_channels=3)
        for w, b in zip(conv.weight.chunk(4), conv.bias.chunk(4), strict=True)
    ]
    assert torch.equal(layer(input), genkern.row_lstm(torch.cat(want, 1), layer.weight_hh)[0])


def test_layer_is_convolution_scan_and_residual():
    layer = nn.RowLSTM(6, 4, dtype=F64)
    torch.nn.init.normal_(layer.h0), torch.nn.init.normal_(layer.c0)
    input = torch.randn(2, 6, 3, 5, dtype=F64, requires_grad=True)
    gates = genkern.masked_conv2d(input, layer.input_to_state.weight, layer.input_to_state.bias)
    state = [s[:, None].expand(2, 4, 5) for s in (layer.h0, layer.c0)]
    want = input + layer.output(reference.forward(gates, layer.weight_hh, *state)[0])
    torch.testing.assert_close(layer(input), want)
    wanted = [input, *layer.parameters()]
    got_grads = torch.autograd.grad(layer(input).square().sum(), wanted)
    torch.testing.assert_close(got_grads, torch.autograd.grad(want.square().sum(), wanted))


def test_module_copies_loads_and_casts():
    layer = nn.RowLSTM(6, 4, mask_type="A", residual=False)
    names = {"input_to_state.weight", "input_to_state.bias", "weight_hh", "h0", "c0"}
    assert set(layer.state_dict()) == names and "mask_type='A'" in repr(layer)
    input = torch.randn(1, 6, 3, 5)
    other = nn.RowLSTM(6, 4, mask_type="A", residual=False)
    other.load_state_dict(layer.state_dict())
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(clone(input), layer(input))
    plain = nn.RowLSTM(6, 4, residual=False, learned_state=False)
    assert plain.h0 is None and plain(input).shape == (1, 4, 3, 5)
    assert layer.bfloat16()(input.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain(input).dtype == torch.bfloat16


# ---- tests of the tests ----------------------------------------------------------------------


def permuted(order):
    def function(gates, weight, h0, c0):
        swap = lambda t: torch.cat([t.chunk(4)[i] for i in order])  # noqa: E731
        return reference.forward(swap(gates.transpose(0, 1)).transpose(0, 1), swap(weight), h0, c0)

    return function


def edge_lost(gates, weight, h0, c0):
    wide = F.pad(gates, (0, 1)), weight, F.pad(h0, (0, 1)), F.pad(c0, (0, 1))
    return [t[..., :-1] for t in reference.forward(*wide)]


MUTANTS = {
    "gate order i, f, o, g": permuted((2, 1, 0, 3)),
    "gate order of torch": permuted((2, 1, 3, 0)),
    "h0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0 * 0, c0),
    "c0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0, c0 * 0),
    "no halo": edge_lost,
    "taps mirrored": lambda x, w, h0, c0: reference.forward(x, w.flip(2), h0, c0),
    "taps shifted": lambda x, w, h0, c0: reference.forward(x, w.roll(1, 2), h0, c0),
    "last unit ignored": lambda x, w, h0, c0: reference.forward(
        x, torch.cat([w[:, :-1], w[:, -1:] * 0], 1), h0, c0
    ),
    "gradient of h0 stopped": lambda x, w, h0, c0: reference.forward(
        x, w, h0.detach() + 0 * h0, c0
    ),
    "gradient of the weight through half of the batch": lambda x, w, h0, c0: tuple(
        torch.cat(pair)
        for pair in zip(
            reference.forward(x[:1], w, h0[:1], c0[:1]),
            reference.forward(x[1:], w.detach(), h0[1:], c0[1:]),
            strict=True,
        )
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_mutants(name, dtype):
    inputs, upstream = make(2, 5, 4, 7, 3, dtype)
    check_closely(fused, reference.forward, inputs, upstream)
    with pytest.raises(AssertionError):
        check_closely(fused, MUTANTS[name], inputs, upstream)
