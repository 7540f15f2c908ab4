"""What is particular to the PixelRNNs, the multi-scale PixelRNN and PixelCNN++."""

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from examples import data
from examples.errors import UsageError
from examples.harness.config import build_model
from examples.model import DataSpec
from genkern import sampling
from genkern.testing import assert_causal, dependencies
from tests.examples.test_examples import DIGITS, all_images, make, noise


def test_diagonal_layers_miss_only_what_the_first_mask_keeps_from_them():
    """The features of a row's last pixel exclude it, and the state from the right that has seen it
    starts behind it: columns that no 7x7 kernel brings nearer do not know it (sec. 3.2, 3.4)."""
    spec = DataSpec((1, 8, 8), 5)
    found = dependencies(make("pixel_rnn_diagonal", spec).double().features, spec.shape)
    expected = torch.ones_like(found).tril(-1)
    for row in range(1, 8):
        for col in range(8 - 4):
            expected[row * 8 + col, (row - 1) * 8 + 7] = False
    assert torch.equal(found, expected)


def test_the_two_pixel_rnns_compare():
    row, diagonal = make("pixel_rnn"), make("pixel_rnn_diagonal")
    assert len(row.layers) == len(diagonal.layers)
    assert row.features(torch.zeros(1, 1, 8, 8)).shape == (1, 17, 8, 8)
    assert diagonal.features(torch.zeros(1, 1, 8, 8)).shape == (1, 17, 8, 8)


def test_the_small_image_guides_every_pixel_of_the_large_one():
    """Also those before it in raster order; pixels of the small image see it alone."""
    spec = DataSpec((1, 5, 5), 5)
    model = make("multi_scale", spec).double()
    with pytest.raises(AssertionError, match="earlier inputs"):
        assert_causal(model.features, spec.shape)
    found = dependencies(model.features, spec.shape)
    given = torch.zeros(5, 5, dtype=torch.bool)
    given[::2, ::2] = True
    given = given.flatten()
    assert found[1, given].sum() >= 4  # by two convolutions
    assert not found[given][:, ~given].any()


@torch.no_grad()
def test_the_two_scales_are_drawn_by_the_engine_as_place_by_place():
    spec = DataSpec((3, 5, 4), 5)
    model = make("multi_scale", spec).double().eval()
    drawn = model.sample(2, noise(), temperature=0.0)
    assert sampling.last_report().method == "incremental"
    expected = torch.zeros_like(drawn)
    model.fill(expected, model.steps(expected), noise(), 0.0)
    assert torch.equal(drawn, expected) and len(drawn.unique()) > 1


@pytest.mark.parametrize("spec", [DataSpec((1, 3, 3), 17), DataSpec((3, 2, 3), 5)], ids=str)
@torch.no_grad()
def test_the_logits_of_a_mixture_give_its_likelihood(spec):
    model = make("pixel_cnn_pp", spec).double().eval()
    images = torch.randint(spec.levels, (7, *spec.shape), generator=noise(), dtype=torch.uint8)
    chances = model.logits(images).log_softmax(1).gather(1, images[:, None].long())
    torch.testing.assert_close(-chances.flatten(1).sum(1), model.nll(images))


def test_pixel_cnn_pp_sees_all_that_is_earlier():
    spec = DataSpec((1, 6, 6), 5)
    found = dependencies(make("pixel_cnn_pp", spec).double().features, spec.shape)
    assert torch.equal(found, torch.ones_like(found).tril(-1))


@torch.no_grad()
def test_samples_of_a_mixture_have_its_frequencies_where_pixels_and_colours_depend():
    spec, count = DataSpec((3, 1, 2), 2), 4000
    model, images = make("pixel_cnn_pp", spec).eval(), all_images(spec)
    model.initialise(images)
    model.head.parametrizations.weight.original0 *= 4.0
    expected = (-model.nll(images)).exp()
    joint = expected.view(2, 2, 2, 2, 2, 2)  # (colour, column)
    left, right = joint.sum((1, 3, 5)), joint.sum((0, 2, 4))
    apart = torch.einsum("ace,bdf->abcdef", left, right)
    assert (joint - apart).abs().max() > 0.03
    samples = model.sample(count, noise()).flatten(1).long() @ (2 ** torch.arange(6).flip(0))
    found = samples.bincount(minlength=64) / count
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt()).all()


@torch.no_grad()
def test_a_cold_mixture_gives_the_mean_of_its_likeliest_component():
    model = make("pixel_cnn_pp", DataSpec((1, 3, 3), 17)).eval()
    images = model.sample(4, noise(), temperature=0.0)
    logits, means, _ = model.at(images).unflatten(1, (3, -1)).unbind(1)
    likeliest = means.gather(1, logits.argmax(1, keepdim=True))
    assert torch.equal(images, model.spec.unscale(likeliest))


@torch.no_grad()
def test_the_first_training_batch_sets_lengths_and_biases_once():
    torch.manual_seed(0)
    model = build_model("pixel_cnn_pp", DIGITS, {"hidden": 8, "dropout": 0.0})
    batches = data.load("digits").batches("train", 64)
    first, second = next(batches), next(batches)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()(first, noise())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    outputs: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if is_parametrized(layer, "weight"):
            layer.register_forward_hook(lambda m, i, out, name=name: outputs.update({name: out}))
    model.train()(first, torch.Generator())
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()(second, torch.Generator())
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    model.eval()(first, noise())
    assert len(outputs) == sum(name.endswith("original0") for name in after) > 20
    for name, output in outputs.items():
        spread, mean = torch.std_mean(output, dim=(0, 2, 3), correction=0)
        wanted = 0.1 if name.endswith("second") else 1.0
        torch.testing.assert_close(spread, torch.full_like(spread, wanted), rtol=1e-3, atol=0)
        assert mean.abs().max() < 1e-3 * wanted, name


def test_two_colours_are_refused_by_a_mixture():
    with pytest.raises(UsageError, match="images must have 1 or 3 colours; got 2"):
        build_model("pixel_cnn_pp", DataSpec((2, 4, 4), 5), {})
