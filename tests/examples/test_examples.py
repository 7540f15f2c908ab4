"""The models of the examples: learning, sampling, bounds."""

import itertools

import pytest
import torch

from examples import data, registry
from examples.errors import UsageError
from examples.harness.config import build_model
from examples.harness.sampling import draw
from examples.model import Batch, DataSpec, GenerativeModel
from genkern.nn import SpectralNorm

DIGITS = DataSpec((1, 8, 8), 17, 10)


def make(name: str, spec: DataSpec = DIGITS, seed: int = 0, **options: int) -> GenerativeModel:
    """A small model with weights large enough that every path matters."""
    torch.manual_seed(seed)
    model = build_model(name, spec, registry.entry(name).small | options)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_images(spec: DataSpec) -> torch.Tensor:
    values = itertools.product(range(spec.levels), repeat=spec.dims)
    return torch.tensor(list(values), dtype=torch.uint8).view(-1, *spec.shape)


@pytest.mark.parametrize("name", registry.MODELS)
def test_loss_of_every_player_falls_within_a_few_steps(name):
    """On one batch with the same noise, against an opponent that stands still."""
    batch = next(data.load("digits").batches("train", 64))
    for player in make(name).players:
        model = make(name).eval()
        for module in model.modules():
            if isinstance(module, SpectralNorm):
                module.train()  # its vectors follow the weights
        optimizer = torch.optim.Adam(model.players[player].parameters(), 1e-2)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model(batch, noise(), player)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0], player


@pytest.mark.parametrize("name", registry.MODELS)
def test_samples_are_items_and_follow_the_generator(name):
    spec = DataSpec((3, 8, 8), 17, 10) if registry.entry(name).pictures else DIGITS
    items = torch.randint(spec.levels, (6, *spec.shape), dtype=torch.uint8)
    first_given, other_given = (Batch(x, torch.tensor([0, 1, 2])) for x in items.split(3))
    model = make(name, spec).eval()
    # A model that is given images may have no noise of its own.
    first, again, other = (
        draw(name, model, 3, noise(seed), batch=given)
        for seed, given in ((0, first_given), (0, first_given), (1, other_given))
    )
    assert first.shape == (3, *spec.shape)
    assert first.dtype == torch.uint8
    assert first.max() < spec.levels
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@torch.no_grad()
def test_vae_bounds_tighten_with_samples_and_hold():
    """-log p(x) <= E[IWAE_64] <= E[IWAE_1] = -ELBO, with p(x) by quadrature over a 1-D latent."""
    spec = DataSpec((1, 2, 2), 3)
    torch.manual_seed(0)
    model = build_model("vae", spec, {"hidden": 8, "latent": 1}).double()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    images = all_images(spec)
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None, None]
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[..., 0])
    joint = prior - model.reconstruction_nll(images, z.expand(-1, len(images), 1))
    exact = -joint.logsumexp(0) - torch.log(z[1, 0, 0] - z[0, 0, 0])
    assert (-exact).exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    repeats = images.repeat_interleave(50, 0)
    elbo = model.loss(Batch(repeats), noise())["loss"].item()
    means = [model.iwae_nll(repeats, k, noise()).mean().item() for k in (1, 64)]
    assert means[0] == pytest.approx(elbo, abs=0.05)
    assert exact.mean().item() < means[1] < elbo


@torch.no_grad()
def test_decoder_with_two_levels_is_bernoulli():
    """The logit is mean / scale."""
    model = make("vae", DataSpec((1, 2, 3), 2))
    batch = torch.randint(2, (5, 1, 2, 3), generator=noise())
    z = torch.randn(5, 4, generator=noise())
    mean, log_scale = model.decode(z)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        mean * torch.exp(-log_scale), batch.flatten(1).float(), reduction="none"
    ).sum(1)
    torch.testing.assert_close(model.reconstruction_nll(batch, z), expected)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
@torch.no_grad()
def test_decoder_sums_to_one_over_the_levels_at_extreme_scales(shift):
    model = make("vae", DataSpec((1, 1, 1), 17)).double()
    model.decoder[-1].bias[1] += shift
    levels = torch.arange(17, dtype=torch.uint8).view(17, 1, 1, 1)
    z = torch.randn(1, 4, generator=noise()).double().expand(17, 4)
    assert (-model.reconstruction_nll(levels, z)).exp().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["bce", "hinge", "lsgan", "wgan", "rabce"])
def test_gan_losses_reach_only_their_player(kind):
    torch.manual_seed(0)
    model = build_model("gan", DataSpec((2,), None), {"kind": kind, "hidden": 16, "k": 3})
    assert model.schedule == ("discriminator",) * 3 + ("generator",)
    batch = Batch(torch.randn(8, 2, generator=noise()))
    model(batch, noise(), "discriminator")["loss"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.discriminator.parameters())
    model(batch, noise(), "generator")["loss"].backward()
    assert any(p.grad.abs().sum() > 0 for p in model.generator.parameters())


def test_saturating_generator_minimises_log_one_minus_d():
    batch = next(data.load("digits").batches("train", 8))
    losses = {}
    for saturating in (False, True):
        torch.manual_seed(0)
        model = build_model("gan", DIGITS, {"saturating": saturating}).eval()
        losses[saturating] = model(batch, noise(), "generator")["loss"].item()
    with torch.no_grad():
        probability = torch.sigmoid(model.discriminator(model.generate(8, noise())))
    assert losses[False] == pytest.approx(-probability.log().mean().item(), rel=1e-4)
    assert losses[True] == pytest.approx((1 - probability).log().mean().item(), rel=1e-4)


@pytest.mark.parametrize("options", [{"kind": "bcee"}, {"k": 0}, {"hiden": 4}])
def test_wrong_model_options_are_usage_errors(options):
    with pytest.raises(UsageError, match="--set"):
        build_model("gan", DIGITS, options)
