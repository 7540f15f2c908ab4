"""nn.MaskedConv2d in the place of nn.Conv2d; compiled, traced and exported."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import genkern
from genkern import nn
from genkern.reference import masked_conv2d as reference
from tests.core.programs import compiled_gradients, onnx_outputs, traced


class Multiplied(torch_nn.Conv2d):
    """The layer of public code: its mask is a buffer, and the weight is overwritten."""

    def __init__(self, mask_type, *arguments, **options):
        super().__init__(*arguments, **options)
        _, _, kh, kw = self.weight.shape
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask[:, :, kh // 2, kw // 2 + (mask_type == "B") :] = 0
        self.mask[:, :, kh // 2 + 1 :] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


def stacks(first_mask="A"):
    theirs = torch_nn.Sequential(
        Multiplied("A", 1, 4, 7, 1, 3), torch_nn.ReLU(), Multiplied("B", 4, 2, 3, padding=1)
    )
    ours = torch_nn.Sequential(
        nn.MaskedConv2d(1, 4, 7, 1, 3, mask_type=first_mask),
        torch_nn.ReLU(),
        nn.MaskedConv2d(4, 2, 3, padding=1),
    )
    return theirs, ours


def test_a_checkpoint_of_public_code_loads_strictly():
    theirs, ours = stacks()
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert before.keys() == theirs.state_dict().keys()  # nothing was taken out of it
    x = torch.randn(2, 1, 9, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_checkpoint_with_another_mask_is_refused_and_says_where():
    theirs, ours = stacks(first_mask="B")
    text = (
        r"0.mask must be the mask of this layer, 1 at \(0, 0, 3, 3\); got 0 there, and 4 elements"
    )
    with pytest.raises(RuntimeError, match=text):
        ours.load_state_dict(theirs.state_dict())
    state = theirs.state_dict() | {"0.mask": torch.ones(3, 3)}
    with pytest.raises(RuntimeError, match=r"0.mask must have shape \(4, 1, 7, 7\); got \(3, 3\)"):
        ours.load_state_dict(state)


def test_the_mask_of_a_checkpoint_may_be_one_for_all_channels():
    theirs, ours = stacks()
    state = theirs.state_dict() | {"2.mask": theirs[2].mask[:1, :1]}
    ours.load_state_dict(state, strict=True)


def test_attributes_and_positional_arguments_are_those_of_a_convolution():
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
             "groups", "padding_mode")  # fmt: skip
    ours = nn.MaskedConv2d(3, 64, (7, 5), 1, (6, 4), 2, 1, False, "zeros")
    theirs = torch_nn.Conv2d(3, 64, (7, 5), 1, (6, 4), 2, 1, False, "zeros")
    assert [getattr(ours, n) for n in names] == [getattr(theirs, n) for n in names]
    assert ours.bias is None and nn.MaskedConv2d(1, 1, 4).padding == "same"


ERRORS = [
    (lambda: nn.MaskedConv2d("A", 3, 64, 7, padding=3), TypeError,
     r"in_channels must be an integer; got 'A' \(the mask is a keyword: mask_type='A' or 'B'\)"),
    (lambda: nn.MaskedConv2d(3, 64, None), TypeError, "kernel_size must be an integer; got None"),
    (lambda: nn.MaskedConv2d(3, 64, b"3"), TypeError, "kernel_size must be an integer; got b'3'"),
    (lambda: nn.MaskedConv2d(3, 64, (3, 3, 3)), ValueError, "an integer or two of them; got"),
    (lambda: nn.MaskedConv2d(3, 64, torch.tensor(3)), TypeError, "kernel_size must be .* Tensor"),
    (lambda: nn.MaskedConv2d(3 + 0j, 64, 3), TypeError, "in_channels must be .*; got complex"),
    (lambda: nn.MaskedConv2d(3, 64, 3, stride=2), ValueError, "stride must be 1 .*; got 2"),
    (lambda: nn.MaskedConv2d(3, 64, 7, padding=2), ValueError,
     r"padding must be 'same' or \(3, 3\) .*; got 2"),
    (lambda: nn.MaskedConv2d(3, 64, 4, padding=2), ValueError, "padding must be 'same' .*; got 2"),
    (lambda: nn.MaskedConv2d(3, 64, 3, dilation=(1, 2)), ValueError, "dilation must be the same"),
    (lambda: nn.MaskedConv2d(3, 64, 3, groups=3), ValueError, "groups must be 1 .*; got 3"),
    (lambda: nn.MaskedConv2d(3, 64, 3, padding_mode="reflect"), ValueError,
     "padding_mode must be one of 'zeros'; got 'reflect'"),
    (lambda: nn.MaskedConv2d(3, 64, 3, bias=None), TypeError, "bias must be a bool; got NoneType"),
    (lambda: nn.MaskedConv2d(3, 64, 3, mask_type=None), TypeError, "mask_type must be one of"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, text", ERRORS)
def test_what_a_masked_convolution_does_not_have_is_refused(call, error, text):
    with pytest.raises(error, match=f"^MaskedConv2d: .*{text}"):
        call()


def test_a_checkpointed_network_is_one_graph():
    network = torch_nn.Sequential(nn.MaskedConv2d(1, 4, 3), nn.MaskedConv2d(4, 2, 3))
    image = torch.randn(2, 1, 5, 5, requires_grad=True)
    compiled_gradients(
        lambda x: checkpoint(network, x, use_reentrant=False).square().sum(), [image]
    )


def test_flops_are_those_of_the_live_taps():
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    layer = nn.MaskedConv2d(3, 8, 3, mask_type="A", data_channels=3)
    live = int(reference.live_taps((8, 3, 3, 3), "A", 3).sum())
    assert live == 3 * 8 * 4 + 3 + 2 * 2  # the centre: colours of 3, 3 and 2 channels
    with FlopCounterMode(display=False) as counter:
        y = layer(x)
    assert counter.get_total_flops() == 2 * live * 2 * 5 * 6
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * 2 * live * 2 * 5 * 6


def test_traced_and_exported_layers_run_without_genkern(tmp_path):
    stack = torch_nn.Sequential(
        nn.MaskedConv2d(3, 9, 5, mask_type="A", data_channels=3),
        torch_nn.ReLU(),
        nn.MaskedConv2d(9, 6, 1, data_channels=3),
    ).eval()
    x = torch.randn(2, 3, 6, 5)
    with torch.no_grad(), genkern.use_backend("reference"):
        want = stack(x)
    assert torch.equal(traced(stack, x, tmp_path / "traced.pt")(x), want)
    for dynamo in (True, False):
        (got,) = onnx_outputs(stack, x, tmp_path / "stack.onnx", dynamo=dynamo)
        torch.testing.assert_close(torch.from_numpy(got), want)


@pytest.mark.parametrize("change", [lambda m: 2 * m, lambda m: 0.5 * m, lambda m: m * torch.nan])
def test_a_mask_that_is_not_0_and_1_is_refused(change):
    theirs, ours = stacks()
    state = theirs.state_dict() | {"0.mask": change(theirs[0].mask)}
    with pytest.raises(RuntimeError, match=r"0.mask must be the mask of this layer, 1 at \(0, 0"):
        ours.load_state_dict(state)


def test_it_is_a_convolution_to_whoever_asks():
    layer = nn.MaskedConv2d(2, 3, 3)
    assert isinstance(layer, torch_nn.Conv2d)
    assert layer.transposed is False and layer.output_padding == (0, 0)
    layer.dilation = 2
    assert torch.equal(
        layer(torch.ones(1, 2, 5, 5)),
        genkern.masked_conv2d(torch.ones(1, 2, 5, 5), layer.weight, layer.bias, dilation=2),
    )


def test_integers_of_numpy_are_integers():
    two = np.int64(2)
    layer = nn.MaskedConv2d(two, two, (np.int32(3), 3), dilation=two, data_channels=two)
    image = torch.randn(1, 2, 5, 5)
    want = genkern.masked_conv2d(image, layer.weight, layer.bias, dilation=2, data_channels=2)
    assert torch.equal(layer(image), want)
    got = genkern.masked_conv2d(image, layer.weight, layer.bias, dilation=two, data_channels=two)
    assert torch.equal(got, want)
