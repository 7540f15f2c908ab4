"""genkern.testing: what it catches, what it names, what it leaves as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genkern.nn import MaskedConv2d
from genkern.testing import assert_causal, dependencies


class Multiplied(nn.Conv2d):
    """As public code has it: the weight times a mask, here with ``extra`` taps to the right."""

    def __init__(self, channels: int, mask_type: str = "A", extra: int = 0) -> None:
        super().__init__(channels, channels, 3, padding=1)
        mask = torch.ones(3, 3)
        mask[1, 1 + (mask_type == "B") + extra :] = 0
        mask[2:] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


def stack(*layers: nn.Module) -> nn.Module:
    first = MaskedConv2d(1, 4, 3, mask_type="A")
    return nn.Sequential(first, nn.ReLU(), *layers, MaskedConv2d(4, 2, 3))


def coloured(first: str = "A", second: str = "B", width: int = 8) -> nn.Module:
    """Three colours; 8 and 7 channels are groups of unequal sizes."""
    return nn.Sequential(
        MaskedConv2d(3, width, 3, mask_type=first, data_channels=3),
        nn.Tanh(),
        MaskedConv2d(width, 7, 1, mask_type=second, data_channels=3),
    )


def test_causal_models_pass_in_both_modes():
    assert_causal(stack(nn.Dropout(0.5)), (1, 4, 3))
    assert_causal(stack().double(), (1, 1, 5), batch_size=2)
    assert_causal(coloured(), (3, 3, 3), data_channels=3)
    assert_causal(MaskedConv2d(6, 4, 3, data_channels=3), (6, 3, 4), data_channels=3, strict=False)


@pytest.mark.parametrize("nan", [False, True])
def test_a_mask_off_by_one_is_named_by_its_first_pair(nan):
    """The tap right of the centre is live: (0, 0) sees (0, 1)."""
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 0, 0\) \(its"):
        assert_causal(Multiplied(1, extra=2), (1, 3, 4), nan=nan)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 1, 0\) \(its"):
        assert_causal(Multiplied(1, "B", extra=1), (1, 3, 4), strict=False, nan=nan)


def test_mask_b_is_causal_but_not_strictly():
    layer = MaskedConv2d(1, 1, 3)
    assert_causal(layer, (1, 3, 3), strict=False)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 0, 0\)"):
        assert_causal(layer, (1, 3, 3))


def test_a_multiplied_mask_is_found_by_nan_alone():
    model = Multiplied(1)
    assert_causal(model, (1, 3, 4), nan=False)
    with pytest.raises(AssertionError, match=r"\(0, 0, 0\) must .* on \(0, 0, 0\) \(NaN there"):
        assert_causal(model, (1, 3, 4))


def test_batch_norm_leaks_in_train_mode_alone():
    model = stack(nn.BatchNorm2d(4))
    assert_causal(model, (1, 3, 3), modes=("eval",))
    with pytest.raises(AssertionError, match="in train mode, output"):
        assert_causal(model, (1, 3, 3))
    assert not dependencies(model.eval(), (1, 3, 3)).triu().any()
    assert dependencies(model.train(), (1, 3, 3)).triu(1).any()


@pytest.mark.parametrize("nan", [False, True])
def test_a_wrong_colour_order_is_named(nan):
    model, given = coloured(), {"data_channels": 3, "nan": nan}
    flipped = nn.Sequential(model, nn.Identity())
    flipped.forward = lambda x: model(x).flip(1)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 0, 0\)"):
        assert_causal(flipped, (3, 2, 2), **given)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 0, 0\)"):
        assert_causal(model, (3, 2, 2), colour_order="interleaved", **given)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 2\) must .* on \(0, 0, 2\)"):
        assert_causal(lambda x: model(x[:, [0, 2, 1]]), (3, 2, 2), **given)
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 0, 0\)"):
        assert_causal(coloured("B"), (3, 2, 2), **given)


def test_interleaved_colours_pass_where_they_are_meant():
    """9 channels by colour, permuted to channel mod 3."""
    model = MaskedConv2d(3, 9, 3, mask_type="A", data_channels=3)
    order = torch.arange(9).view(3, 3).T.flatten()
    given = {"data_channels": 3, "colour_order": "interleaved"}
    assert_causal(lambda x: model(x)[:, order], (3, 3, 2), **given)
    with pytest.raises(AssertionError):
        assert_causal(model, (3, 3, 2), **given)


def test_pixels_in_another_order():
    """A raster-order model of the mirrored image goes from right to left."""
    model, order = stack(), torch.arange(12).view(3, 4).flip(1).flatten()

    def mirrored(x: torch.Tensor) -> torch.Tensor:
        return model(x.flip(3)).flip(3)

    assert_causal(mirrored, (1, 3, 4), order=order)
    assert_causal(mirrored, (1, 3, 4), order=order.tolist())
    with pytest.raises(AssertionError, match=r"output \(0, 0, 0\) must .* on \(0, 1, 0\)"):
        assert_causal(mirrored, (1, 3, 4))
    with pytest.raises(AssertionError, match=r"output \(0, 3, 0\) must .* on \(0, 2, 0\)"):
        assert_causal(model, (1, 3, 4), order=order)


def test_what_has_no_gradient_is_found_by_other_values():
    def signs(x: torch.Tensor) -> torch.Tensor:
        return x.sign().roll(-1, 3).nan_to_num()

    with pytest.raises(AssertionError, match=r"another value there"):
        assert_causal(signs, (1, 2, 3), nan=False, seed=1)


def test_other_images_of_the_batch_must_not_be_seen():
    with pytest.raises(AssertionError, match="on other images"):
        assert_causal(lambda x: torch.zeros_like(x) + x.roll(1, 0) - x, (1, 2, 2), strict=False)


def test_dependencies_shows_the_blind_spot_of_a_single_stack():
    """Of two 3x3 layers, (2, 0) sees neither (0, 3) nor (1, 2), which are up and right."""
    found = dependencies(nn.Sequential(*(MaskedConv2d(1, 1, 3) for _ in range(2))), (1, 3, 4))
    seen = found.view(3, 4, 3, 4)[2, 0]
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert seen.tolist() == torch.tensor(expected).bool().tolist()
    assert not found.triu(1).any() and found.diagonal().all()


def test_dependencies_of_colours():
    """Red sees no centre, blue sees red and green; all see every colour of the left neighbour."""
    found = dependencies(coloured(), (3, 1, 2), data_channels=3)
    assert torch.equal(found, torch.ones(6, 6).tril(-1).bool())


def test_the_model_is_left_as_it_was():
    model = stack(nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert_causal(model, (1, 3, 3), modes=("eval",))
    with pytest.raises(AssertionError):
        assert_causal(model.forward, (1, 3, 3))
    dependencies(model.train(False), (1, 3, 3))
    model.train()[2].eval()
    with pytest.raises(AssertionError):
        assert_causal(model, (1, 3, 3))
    assert model.training and not model[2].training and model[3].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"shape": (3, 3)}, r"shape must be \(C, H, W\) of one image; got \(3, 3\)"),
        ({"shape": (1, 0, 3)}, "shape must be at least 1; got 0"),
        ({"data_channels": 2}, r"data_channels must be in \[1, 1\]; got 2"),
        ({"colour_order": "mod"}, "colour_order must be one of 'contiguous', 'interleaved'"),
        ({"order": "diagonal"}, "order must be one of 'raster'"),
        ({"order": [0] * 9}, "order must be 'raster' or a permutation of 0 ... 8; got 1 different"),
        ({"modes": ("test",)}, "modes must be one of 'eval', 'train'"),
        ({"nan": 1}, "nan must be a bool; got 1"),
        ({"model": 3}, "model must be callable; got int"),
        ({"model": lambda x: x[:, :, 1:]}, r"model must return finite .* got \(1, 1, 2, 3\)"),
        ({"model": lambda x: x / 0}, "model must return finite .* got values that are not finite"),
        ({"model": lambda x: [x]}, "model must return finite .* got list"),
    ],
)
def test_wrong_arguments_are_sentences(given, text):
    arguments = {"model": nn.Identity(), "shape": (1, 3, 3), **given}
    with pytest.raises((TypeError, ValueError), match=f"assert_causal: {text}"):
        assert_causal(**arguments)


def test_too_few_channels_for_the_colours():
    with pytest.raises(ValueError, match="got 2 channels for 3 colours"):
        dependencies(lambda x: x[:, :2], (3, 2, 2), data_channels=3)
