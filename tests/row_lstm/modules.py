"""nn.RowLSTM without a batch; compiled, traced and exported."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import genkern
from genkern import nn
from tests.core.programs import compiled_gradients, onnx_outputs, traced


def test_an_image_alone_is_a_batch_of_one():
    layer, image = nn.RowLSTM(3, 4), torch.randn(3, 5, 6)
    assert torch.equal(layer(image), layer(image[None])[0])


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (1, 4, 5, 6), (), (1, 1, 3, 5, 6)])
def test_another_shape_is_named(shape):
    text = r"RowLSTM: input must have shape \(N, 3, H, W\) or \(3, H, W\); got \("
    with pytest.raises(ValueError, match=text):
        nn.RowLSTM(3, 4)(torch.randn(shape))


@pytest.mark.parametrize("name", ["residual", "learned_state"])
def test_flags_are_bools(name):
    with pytest.raises(TypeError, match=f"RowLSTM: {name} must be a bool; got 'no'"):
        nn.RowLSTM(3, 4, **{name: "no"})


def test_one_tensor_in_two_arguments_is_one_graph():
    gates, weight = torch.randn(2, 8, 4, 5), torch.randn(8, 2, 3)
    leaves = [x.requires_grad_() for x in (gates, weight, torch.randn(2, 2, 5))]

    def loss(gates, weight, state):
        h, (h_n, c_n) = genkern.row_lstm(gates, weight, state, state)
        return h.square().sum() + (h_n * c_n).sum()

    compiled_gradients(loss, leaves)


def test_flops_are_those_of_the_products_with_the_state():
    gates = torch.randn(2, 8, 4, 5, requires_grad=True)
    weight, state = torch.randn(8, 2, 3, requires_grad=True), torch.zeros(2, 2, 5)
    for states, rows in (((), 3), ((state, state), 4)):
        product = 2 * 2 * rows * 5 * weight.numel()
        with FlopCounterMode(display=False) as counter:
            h, _ = genkern.row_lstm(gates, weight, *states)
        assert counter.get_total_flops() == product
        with FlopCounterMode(display=False) as counter:
            h.sum().backward()
        assert counter.get_total_flops() == 2 * product


def test_traced_and_exported_layers_run_without_genkern(tmp_path):
    layer, x = nn.RowLSTM(3, 4, data_channels=3).eval(), torch.randn(2, 3, 3, 6)
    with torch.no_grad(), genkern.use_backend("reference"):
        want = layer(x)
    assert torch.equal(traced(layer, x, tmp_path / "layer.pt")(x), want)
    (got,) = onnx_outputs(layer, x, tmp_path / "layer.onnx", dynamo=False)
    torch.testing.assert_close(torch.from_numpy(got), want)
