"""Adversarial models: what makes each of them what it is called."""

import math

import pytest
import torch
from torch import nn

from examples import data, registry
from examples.adversarial import conditional, networks
from examples.harness.config import TrainConfig, build_model
from examples.harness.runlog import read_log
from examples.harness.trainer import Trainer
from examples.model import Batch, DataSpec
from tests.examples.test_examples import DIGITS, make, noise

PLAYERS = [n for n, e in registry.MODELS.items() if e.path.startswith("examples.adversarial")]
POINTS = DataSpec((2,), None)


def digits(count: int = 8) -> Batch:
    return next(data.load("digits").batches("train", count))


# ---- every model -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAYERS)
def test_a_turn_moves_its_own_player_alone(name):
    """Only the discriminator's gradients may be left over from a turn of the generator."""
    model, batch = make(name), digits()
    for turn in model.schedule:
        model.zero_grad()
        model(batch, noise(), turn)["loss"].backward()
        player = turn.partition(" ")[0]
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0
            for p in model.players[player].parameters()
        )
        if player == "discriminator":
            assert all(p.grad is None for p in model.generator.parameters())


@pytest.mark.parametrize("kind", ["hinge", "rabce"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(tmp_path, server, kind):
    """Of a network without batch normalisation; the relativistic means are those of all items.

    The mean logits of "rabce" are not compared: its loss does not depend on the last bias, whose
    gradient is rounding, and Adam makes steps of the learning rate of it. Means of each process by
    itself change these losses by 4e-6 to 2e-5; with larger steps than these the game amplifies
    rounding to more than that.
    """
    given = ["train", "sngan", "--data", "grid25", "--steps", 4, "--batch-size", 64]
    given += ["--lr", 0.01, "--set", f"kind={kind}", "channels=4", "latent=4", "--out"]
    for ranks in (1, 2):
        done = server.run(*given, tmp_path / str(ranks), ranks=ranks)
        assert done.code == 0, done.err
    one, two = (read_log(tmp_path / str(ranks)) for ranks in (1, 2))
    assert [r["step"] for r in two] == [1, 2, 3, 4]
    for a, b in zip(one, two, strict=True):
        for player in ("discriminator loss", "generator loss"):
            assert a[player] == pytest.approx(b[player], rel=0, abs=2e-6), player
    losses = [r["generator loss"] for r in one]
    assert abs(losses[-1] - losses[0]) > 1e-2  # the steps between them were taken


# ---- DCGAN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 28, 32])
def test_dcgan_keeps_the_five_guidelines(side):
    model = build_model("dcgan", DataSpec((3, side, side), 256), {})
    layers = {
        player: [m for m in network.modules() if not list(m.children())]
        for player, network in model.players.items()
    }
    kinds = {player: [type(m) for m in found] for player, found in layers.items()}
    everywhere = set(kinds["generator"] + kinds["discriminator"])
    # 1: strides and no pooling. 3: no fully connected layer.
    assert not any("Pool" in kind.__name__ or kind is nn.Upsample for kind in everywhere)
    assert nn.Linear not in everywhere
    strides = [m.stride for m in layers["discriminator"] if isinstance(m, nn.Conv2d)]
    assert strides[:-1] == [(2, 2)] * (len(strides) - 1)
    ups = [m for m in layers["generator"] if isinstance(m, nn.ConvTranspose2d)]
    assert [m.stride for m in ups[1:]] == [(2, 2)] * (len(ups) - 1)
    # 2: batch normalisation behind all but the generator's last and the discriminator's first.
    for player, edge in (("generator", -1), ("discriminator", 0)):
        kind = nn.ConvTranspose2d if player == "generator" else nn.Conv2d
        inner = [i for i, found in enumerate(kinds[player]) if found is kind]
        bare = {inner[edge], inner[-1]}
        normed = {i for i in inner if nn.BatchNorm2d in kinds[player][i + 1 : i + 2]}
        assert normed == set(inner) - bare
    # 4: ReLU and tanh in the generator. 5: leaky ReLU in the discriminator.
    assert kinds["generator"].count(nn.ReLU) == len(ups) - 1
    assert kinds["generator"][-1] is nn.Tanh
    leaky = [m for m in layers["discriminator"] if isinstance(m, nn.LeakyReLU)]
    first = [m for m in layers["discriminator"] if isinstance(m, networks.BiasAct)]
    assert all(m.negative_slope == 0.2 for m in leaky)
    assert len(leaky) == len(strides) - 2 and [m.act for m in first] == ["lrelu"]
    z = torch.randn(2, 32)
    images = model.generator(z)
    assert images.shape == (2, 3, side, side)
    assert model.discriminator(images).shape == (2,)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(Exception, match="square, and of sides of 4 n; got 9 x 9"):
        build_model("dcgan", DataSpec((1, 9, 9), 17), {})


@pytest.mark.parametrize("steps", [3, pytest.param(200, marks=pytest.mark.deep)])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_dcgan_trains_in_half_precision(precision, steps):
    """Both players inside of autocast; accelerate has no fp16 on CPUs."""
    model = make("dcgan", channels=8)
    optimizers = {n: torch.optim.Adam(p.parameters(), 1e-3) for n, p in model.players.items()}
    for step in range(steps):
        for player in model.schedule:
            optimizers[player].zero_grad()
            with torch.autocast("cpu", precision):
                loss = model(digits(16), noise(step), player)["loss"]
            loss.backward()
            optimizers[player].step()
            assert loss.isfinite()
    assert all(p.isfinite().all() for p in model.parameters())


# ---- Wasserstein -----------------------------------------------------------------------------


def test_clipped_weights_are_clipped_before_each_use():
    model = make("wgan", clip=0.01)
    assert max(p.abs().max() for p in model.discriminator.parameters()) > 0.01
    for player in model.schedule:
        model(digits(), noise(), player)
        assert max(p.abs().max() for p in model.discriminator.parameters()) <= 0.01


@pytest.mark.parametrize("name", ["wgan_gp", "dragan"])
def test_the_penalty_is_that_of_the_gradient_at_its_points(name):
    model = make(name).double()
    points = torch.randn(6, *DIGITS.shape, dtype=torch.float64)
    found = model.penalty(model.discriminator, points, points.flip(0), generator=noise())
    at = model.penalty.points(points, points.flip(0), generator=noise()).requires_grad_()
    (gradient,) = torch.autograd.grad(model.discriminator(at).sum(), at)
    expected = 10.0 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(found.detach(), expected)


def test_no_item_of_a_penalised_critic_sees_another():
    for name in ("wgan_gp", "dragan", "sngan"):
        model = make(name).eval()
        items = torch.randn(4, *DIGITS.shape)
        alone = torch.cat([model.discriminator(x[None]) for x in items])
        torch.testing.assert_close(model.discriminator(items), alone)


def test_sngan_is_lipschitz_1_behind_the_waves():
    """Leaky ReLU and every normalised layer are; `Waves` have the slopes 1, 0.5, 1, 2, 4."""
    torch.manual_seed(0)
    model = build_model("sngan", POINTS, {"channels": 16})
    for parameter in model.discriminator.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    model.train()
    for _ in range(1000):  # of power iteration
        model.discriminator(torch.zeros(1, 2))
    a, b = torch.randn(2, 500, 2)
    slopes = (model.discriminator(a) - model.discriminator(b)).abs() / (a - b).norm(dim=1)
    assert slopes.max() <= math.sqrt(1 + 0.25 + 1 + 4 + 16)
    for weight in model.discriminator.normalized_weights().values():
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, abs=1e-3)


def test_of_the_first_numbers_of_z_the_generator_sees_the_signs():
    torch.manual_seed(0)
    model = build_model("wgan_gp", POINTS, {"latent": 3, "signs": 2, "channels": 4}).eval()
    z = torch.randn(8, 3)
    farther, other, last = z.clone(), z.clone(), z.clone()
    farther[:, :2] *= 5
    other[:, 0] *= -1
    last[:, 2] += 1
    made = model.generator(z)
    assert torch.equal(made, model.generator(farther))
    for changed in (other, last):
        assert (made != model.generator(changed)).any(1).all()
    with pytest.raises(Exception, match="signs must be at most latent = 3; got 4"):
        build_model("wgan_gp", POINTS, {"latent": 3, "signs": 4})


# ---- labels ----------------------------------------------------------------------------------


def test_projection_is_the_inner_product_with_the_embedding():
    model = make("cgan").eval()
    judge, x = model.discriminator.module, torch.randn(5, *DIGITS.shape)
    labels = torch.tensor([0, 3, 3, 9, 1])
    phi = judge.features(x)
    expected = judge.head(phi).flatten() + torch.stack(
        [judge.classes.weight[y] @ f.sum((1, 2)) for y, f in zip(labels, phi, strict=True)]
    )
    torch.testing.assert_close(judge(x, labels), expected)


@pytest.mark.parametrize("name", ["acgan", "cgan"])
def test_the_class_changes_the_image(name):
    model = make(name).eval()
    first, second = (model.sample(4, noise(), 1.0, torch.full((4,), label)) for label in (0, 1))
    assert not torch.equal(first, second)


def test_orthogonal_regularisation_spares_the_norms_of_rows():
    layer = nn.ConvTranspose2d(3, 2, 2, bias=False)
    layer.weight.data.zero_()
    layer.weight.data[0, 0, 0, 0] = layer.weight.data[1, 1, 0, 0] = 5.0
    assert conditional.products_of_rows(layer).item() == 0.0
    layer.weight.data[0, 1, 0, 0] = 2.0  # rows (5, ...) and (2, 5, ...): product 10, twice
    assert conditional.products_of_rows(layer).item() == pytest.approx(200.0)


# ---- StyleGAN --------------------------------------------------------------------------------


def test_lazy_turns_come_every_so_many_steps(tmp_path):
    options = registry.entry("stylegan").small | {"r1_every": 3, "path_every": 2}
    config = TrainConfig.for_model("stylegan", steps=7, options=options, sample_every=0)
    Trainer(config, data.load("digits"), tmp_path, quiet=True).train()
    rows = read_log(tmp_path)
    assert [r["step"] for r in rows] == list(range(1, 8))
    for part, every in (("discriminator R1 loss", 3), ("generator path loss", 2)):
        assert [r["step"] - 1 for r in rows if part in r] == list(range(0, 7, every))
    assert all("generator loss" in r and "discriminator loss" in r for r in rows)


def test_path_lengths_are_those_of_the_jacobian():
    """The mean square of a length is that of the Jacobian's elements, over the pixels of a side."""
    model = make("stylegan").double().eval()
    generator = model.generator
    for layer in generator.synthesis.layers:
        layer.strength.data.zero_()
    styles = generator.styles(torch.randn(1, 4).double())
    J = torch.autograd.functional.jacobian(lambda w: generator.synthesis(w, noise()), styles)
    expected = J.square().sum().item() / generator.num_styles / DIGITS.dims
    generator.styles = lambda z: styles.expand(len(z), -1, -1)
    found = model.path_loss(2000, noise())
    mean, a = found["length"].item(), model.length.item()
    assert a == pytest.approx(0.01 * mean)
    penalty = found["loss"].item() / (model.path * model.intervals["generator path"])
    square = penalty + 2 * a * mean - a**2  # of mean (l - a)^2
    assert square == pytest.approx(expected, rel=0.1)


def test_truncation_and_mixing():
    model = make("stylegan").eval()
    generator = model.generator
    generator.mean.normal_()
    z, other = torch.randn(2, 3, 4)
    assert torch.equal(generator.styles(z, 0.0), generator.mean.expand(3, generator.num_styles, 4))
    half = generator.styles(z, 0.5) - generator.mean
    torch.testing.assert_close(2 * half, generator.styles(z) - generator.mean)
    start = torch.tensor([1, 2, generator.num_styles])
    mixed = generator.mixed(z, other, start)
    for n, first in enumerate(start):
        assert torch.equal(mixed[n, :first], generator.styles(z)[n, :first])
        assert torch.equal(mixed[n, first:], generator.styles(other)[n, first:])
    for layer in generator.synthesis.layers:
        layer.strength.data.zero_()
    same = model.sample(3, noise(), temperature=0.0)
    assert torch.equal(same, same[:1].expand_as(same))
