"""Models with an exact likelihood: it sums to one, sees no future, and samples follow it."""

import pytest
import torch
from torch import nn

from examples import registry
from examples.autoregressive.gated_pixel_cnn import luminance
from examples.autoregressive.raster import RasterModel
from examples.errors import UsageError
from examples.harness.config import build_model
from examples.model import Batch, DataSpec
from genkern.testing import assert_causal, dependencies
from tests.examples.test_examples import all_images, make, noise

RASTER = [name for name, entry in registry.MODELS.items() if entry.exact]
GATED = ("gated_pixel_cnn", "gated_pixel_cnn_class", "gated_pixel_cnn_colour")
BINARY = [DataSpec((1, 2, 2), 2, 2), DataSpec((1, 2, 3), 2, 2)]
OTHERS = [DataSpec((3, 2, 2), 2, 2), DataSpec((3, 1, 1), 5, 2), DataSpec((1, 1, 3), 4, 2)]


def each_given(model: RasterModel, count: int) -> list[torch.Tensor | None]:
    """What a model may be given, ``count`` times: every class, two pictures, or nothing."""
    if model.condition == "class":
        return [torch.full((count,), label) for label in range(model.spec.classes)]
    if model.condition == "luminance":
        return [told(model, 1, seed).expand(count, -1, -1, -1) for seed in (0, 1)]
    return [None]


def told(model: RasterModel, count: int, seed: int = 0) -> torch.Tensor | None:
    """Classes in turn, or drawn pictures."""
    if model.condition == "class":
        return (1 + torch.arange(count)) % model.spec.classes
    _, H, W = model.spec.shape
    size, levels = (count, 1, H, W), model.spec.levels
    pictures = torch.randint(levels, size, generator=noise(seed), dtype=torch.uint8)
    return pictures if model.condition else None


class Features(nn.Module):
    """The network of a model as a function of images alone."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        given = told(self.model, 1)
        if given is None:
            return self.model.features(images)
        encoded = self.model.encode(given.expand(len(images), *given.shape[1:]))
        return self.model.features(images, encoded)


@pytest.mark.parametrize("name", RASTER)
@pytest.mark.parametrize("spec", [*BINARY, *OTHERS], ids=lambda s: f"{s.shape}-{s.levels}")
@torch.no_grad()
def test_likelihoods_of_all_images_sum_to_one(name, spec):
    model, images = make(name, spec).double().eval(), all_images(spec)
    for given in each_given(model, len(images)):
        total = (-model.nll(images, given)).exp().sum().item()
        assert total == pytest.approx(1.0, abs=1e-9)


def pixels(model: RasterModel) -> list[int]:
    """In the order of their factors."""
    width = model.spec.shape[2]
    return [row * width + col for row, col, colour in model.places() if colour == 0]


@pytest.mark.parametrize("name", RASTER)
@pytest.mark.parametrize("spec", [DataSpec((1, 4, 5), 5, 2), DataSpec((3, 3, 2), 4, 2)], ids=str)
def test_future_pixels_never_leak(name, spec):
    model = make(name, spec)
    order = {"data_channels": spec.shape[0], "order": pixels(model)}
    assert_causal(Features(model), spec.shape, **order)


def test_each_order_of_made_is_causal():
    model = make("made", DataSpec((1, 3, 3), 4))
    orders = [model.degrees0[k].argsort() for k in range(model.orders)]
    assert len({tuple(order.tolist()) for order in orders}) == model.orders == 2
    for which, order in enumerate(orders):

        def outputs(images: torch.Tensor, which: int = which) -> torch.Tensor:
            return model.outputs(images.flatten(1), which).transpose(1, 2).unflatten(2, (3, 3))

        assert_causal(outputs, (1, 3, 3), order=order)
        later = orders[1 - which]
        with pytest.raises(AssertionError):
            assert_causal(outputs, (1, 3, 3), order=later)


@pytest.mark.parametrize("name", [*GATED, "fvsbn", "made", "nade", "pixel_lstm"])
@pytest.mark.parametrize("spec", [DataSpec((1, 5, 5), 5, 2), DataSpec((3, 3, 3), 4, 2)], ids=str)
def test_every_earlier_pixel_reaches_the_output(name, spec):
    """With units enough that no colour has only dead ReLUs in the head."""
    model = make(name, spec, **({"hidden": 24} if name in GATED else {})).double()
    found = dependencies(Features(model), spec.shape, data_channels=spec.shape[0])
    assert torch.equal(found, torch.ones_like(found).tril(-1))


def test_pixel_cnn_has_the_blind_spot_that_the_gated_one_has_not():
    """The pixel above and far to the right, which a single stack does not reach."""
    spec = DataSpec((1, 3, 9), 5)
    plain, gated = (
        dependencies(make(name, spec).double().features, spec.shape)
        for name in ("pixel_cnn", "gated_pixel_cnn")
    )
    last, above = 2 * 9, 1 * 9 + 4
    assert gated[last, above] and not plain[last, above]
    assert not (plain & ~torch.ones_like(plain).tril(-1)).any()


@pytest.mark.parametrize("name", RASTER)
@pytest.mark.parametrize("spec", [DataSpec((1, 8, 3), 5, 2), DataSpec((3, 2, 2), 3, 2)], ids=str)
@torch.no_grad()
def test_steps_give_the_logits_of_the_whole_image(name, spec):
    """Whatever is not drawn yet does not matter to them, nor do rows too far above."""
    model = make(name, spec).eval()
    images = torch.randint(spec.levels, (5, *spec.shape), generator=noise(), dtype=torch.uint8)
    given = told(model, 5)
    whole = model.logits(images, given)
    filled = torch.zeros_like(images)
    for (row, col, colour), logits in model.steps(filled, given):
        torch.testing.assert_close(logits, whole[:, :, colour, row, col])
        filled[:, colour, row, col] = images[:, colour, row, col]


@pytest.mark.parametrize("name", RASTER)
@torch.no_grad()
def test_samples_have_the_frequencies_of_the_likelihood(name):
    spec = BINARY[0]
    model = make(name, spec).eval()
    for given in each_given(model, 4000):
        samples = model.sample(4000, noise(), given=given).flatten(1).long()
        found = (samples @ torch.tensor([8, 4, 2, 1])).bincount(minlength=16) / len(samples)
        expected = (-model.nll(all_images(spec), None if given is None else given[:16])).exp()
        error = (expected * (1 - expected) / len(samples)).sqrt()
        assert ((found - expected).abs() <= 5 * error).all()


@pytest.mark.parametrize("name", [n for n in RASTER if n not in ("made", "pixel_cnn_pp")])
@torch.no_grad()
def test_low_temperature_takes_the_likeliest_level(name):
    """(MADE draws an order first; a mixture goes to the mean of its likeliest component.)"""
    model = make(name, DataSpec((1, 3, 3), 5, 2)).eval()
    given = told(model, 2)
    for temperature in (1e-4, 0.0):
        samples = model.sample(2, noise(), temperature=temperature, given=given)
        assert torch.equal(model.logits(samples, given).argmax(1), samples.long())


@pytest.mark.parametrize("name", RASTER)
@torch.no_grad()
def test_completions_keep_what_is_given_and_follow_the_rest(name):
    """The last pixel of a binary image, given the others, has the frequency of its probability."""
    spec, partial = BINARY[0], torch.tensor([[[[1, 0], [1, -1]]]])
    model = make(name, spec).eval()
    given = each_given(model, 2000)[0]
    found = model.sample(2000, noise(), given=given, partial=partial.expand(2000, -1, -1, -1))
    known = partial.expand_as(found)
    assert torch.equal(found[known >= 0].long(), known[known >= 0])
    both = partial.repeat(2, 1, 1, 1)
    both[:, 0, 1, 1] = torch.tensor([0, 1])
    logits = model.logits(both, None if given is None else given[:2])[0, :, 0, 1, 1]
    expected = logits.softmax(0)[1].item()
    frequency = found[:, 0, 1, 1].float().mean().item()
    assert abs(frequency - expected) < 5 * (expected * (1 - expected) / 2000) ** 0.5


def test_made_is_the_mixture_of_its_orders():
    """In eval mode; a training step takes one order, which the generator draws."""
    spec = DataSpec((1, 2, 2), 3)
    model, images = make("made", spec).double(), all_images(spec)[:20]
    members = torch.stack([model.member_nll(images, k) for k in range(2)])
    assert (members[0] - members[1]).abs().min() > 1e-6
    mixture = -((-members).exp().mean(0)).log()
    torch.testing.assert_close(model.nll(images), mixture)
    torch.testing.assert_close(model.eval()(Batch(images), noise())["loss"], mixture.mean())
    losses = {round(model.train()(Batch(images), noise(s))["loss"].item(), 9) for s in range(9)}
    assert losses == {round(nll.mean().item(), 9) for nll in members}


@pytest.mark.parametrize("name", GATED[1:])
def test_a_condition_changes_the_likelihood(name):
    model, images = make(name, BINARY[0]), all_images(BINARY[0])
    first, second = (model.nll(images, given) for given in each_given(model, 16))
    assert (first - second).abs().min() > 0


def test_colours_follow_the_luminance_of_their_place_and_of_places_to_come():
    """The logits of a pixel change with what is given there and around it, later pixels too."""
    spec = DataSpec((3, 7, 9), 4)
    model = make("gated_pixel_cnn_colour", spec).double()
    images, given = torch.zeros(1, *spec.shape, dtype=torch.uint8), told(model, 1)
    changed = torch.zeros(7, 9, dtype=torch.bool)
    whole = model.logits(images, given)[0, :, :, 3, 4]
    for row in range(7):
        for col in range(9):
            other = given.clone()
            other[0, 0, row, col] = (other[0, 0, row, col] + 1) % 4
            changed[row, col] = not torch.equal(model.logits(images, other)[0, :, :, 3, 4], whole)
    assert changed[1:6, 2:7].all()  # as far as two unmasked 3 x 3 convolutions see
    assert changed[0, 4] and not changed[6].any()  # and, above, through pixels in between


def test_luminance_is_that_of_bt601_and_of_grey_pixels_their_level():
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7], [1, 2, 3]]
    items = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None]
    assert luminance(items).flatten().tolist() == [76, 150, 29, 255, 7, 2]
    assert luminance(items).dtype == torch.uint8
    assert torch.equal(luminance(items[:, :1]), items[:, :1])


@pytest.mark.parametrize("name", ["fvsbn", "made", "nade"])
def test_images_that_are_too_large_are_refused_with_their_size(name):
    with pytest.raises(UsageError, match=rf"{name}: the output layer must have at most .* small"):
        build_model(name, DataSpec((3, 64, 64), 256), {"hidden": 4096} if name == "nade" else {})


def test_an_even_kernel_is_refused():
    with pytest.raises(UsageError, match="kernel must be odd and at least 3; got 4"):
        build_model("gated_pixel_cnn", DataSpec((1, 8, 8), 17), {"kernel": 4})
