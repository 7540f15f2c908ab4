"""Models with a latent variable: their densities, their bounds, and the gradients of these."""

import itertools
import math

import pytest
import torch

from examples import data, registry
from examples.harness.config import build_model
from examples.latent import rate_distortion
from examples.latent.iaf_vae import Step
from examples.latent.ladder_vae import relative
from examples.latent.ppca import PPCA
from examples.model import Batch, DataSpec
from genkern.metrics import AIS, active_units, log_likelihood, posterior_gap
from tests.examples.test_examples import all_images, make, noise

LATENT = [name for name, entry in registry.MODELS.items() if entry.bounds]
OF_LEVELS = [name for name in LATENT if name not in ("ppca", "pixel_vae")]
BINARY = DataSpec((1, 2, 2), 2)


def rough(name: str, spec: DataSpec = BINARY, scale: float = 0.2, **options) -> torch.nn.Module:
    """In float64, with weights that make the posterior differ from the prior."""
    model = make(name, spec, **{"hidden": 8, "latent": 2, **options}).double().eval()
    for parameter in model.parameters():
        parameter.data += scale * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("name", OF_LEVELS)
@torch.no_grad()
def test_the_weights_of_all_images_sum_to_one(name):
    """p(x) = E[w] under q(z|x), whose log q is checked by it, and under the prior's samples."""
    # Of weights so unlike the prior that few samples count, the interval would say little.
    model, images = rough(name, scale=0.1), all_images(BINARY)
    found = log_likelihood(model, images, num_samples=20000, generator=noise())
    total = found.items.exp().sum().item()
    error = (found.items.exp() * found.item_half_widths).square().sum().sqrt().item()
    assert total == pytest.approx(1.0, abs=1.5 * error) and error < 0.02
    z = model.prior().sample(torch.Size([20000, 1]), noise(1)).expand(-1, 16, -1)
    direct = (-model.reconstruction_nll(images, z)).logsumexp(0) - math.log(20000)
    assert ((direct - found.items).abs() <= 1.6 * found.item_half_widths + 0.05).all()


@pytest.mark.parametrize("name", LATENT)
@torch.no_grad()
def test_the_loss_is_the_bound_of_the_metrics(name):
    """In eval mode, and in expectation."""
    model, images = make(name).eval(), data.load("digits").splits["test"][:8]
    repeats = images.repeat_interleave(200, 0)
    losses = model(Batch(repeats), noise())
    items = model.prepare(repeats, noise(1))
    found = log_likelihood(model, items, num_samples=1, method="elbo", generator=noise(2))
    spread = found.items.view(8, 200).std(1).square().mean().sqrt().item()
    assert -losses["loss"].item() == pytest.approx(found.value, abs=6 * spread / 1600**0.5)
    parts = [value for key, value in losses.items() if key != "loss"]
    assert sum(parts).item() == pytest.approx(losses["loss"].item(), rel=1e-5)


def test_free_bits_and_beta_are_of_training_alone():
    options = {"beta": 0.5, "free_bits": 0.3}
    plain, other = make("vae"), make("vae", **options)
    batch = next(data.load("digits").batches("train", 64))
    first, second = plain.eval()(batch, noise()), other.eval()(batch, noise())
    assert all(torch.equal(first[key], second[key]) for key in first)
    train = other.train()(batch, noise())
    assert train["kl"] >= 4 * 0.3 - 1e-6 and train["kl"] > second["kl"]
    expected = train["reconstruction"] + 0.5 * train["kl"]
    torch.testing.assert_close(train["loss"], expected)


@pytest.mark.parametrize("backward", [False, True])
def test_a_step_of_the_flow_has_the_determinant_of_its_jacobian(backward):
    torch.manual_seed(0)
    step = Step(4, 12, 3, backward).double()
    z, context = torch.randn(1, 2, 4).double(), torch.randn(2, 3).double()
    out, log_det = step(z, context)
    for item in range(2):

        def moved(z: torch.Tensor, item: int = item) -> torch.Tensor:
            return step(z[None, None], context[item : item + 1])[0][0, 0]

        jacobian = torch.autograd.functional.jacobian(moved, z[0, item])
        assert jacobian.slogdet()[1].item() == pytest.approx(log_det[0, item].item(), abs=1e-12)
        order = jacobian.flip(0, 1) if backward else jacobian
        assert order.triu(1).abs().max() == 0 and order.tril(-1).abs().max() > 1e-3
    again, of_inverse = step.inverse(out, context)
    torch.testing.assert_close(again, z)
    torch.testing.assert_close(of_inverse, log_det)


@torch.no_grad()
def test_the_density_of_the_flow_is_that_of_its_samples():
    model = rough("iaf_vae", flows=3)
    q = model.encode(all_images(BINARY))
    z, log_q = q.rsample_and_log_prob(torch.Size([5]), noise())
    torch.testing.assert_close(q.log_prob(z), log_q)


@pytest.mark.parametrize("high", [1.0, 200.0])
def test_the_ladder_multiplies_two_gaussians(high):
    """In precisions; where they are far apart, the sharper one is all."""
    mu, mu_above = torch.tensor([1.0, -2.0]).double(), torch.tensor([3.0, 4.0]).double()
    logvar, above = torch.tensor([high, -high]).double(), torch.tensor([-0.5, 0.3]).double()
    u, logvar_u = relative((mu, logvar), (mu_above, above))
    first, second = torch.exp(-logvar), torch.exp(-above)
    found = mu_above + torch.exp(0.5 * above) * u
    torch.testing.assert_close(found, (mu * first + mu_above * second) / (first + second))
    torch.testing.assert_close(above + logvar_u, -(first + second).log())


def test_a_narrow_prior_of_the_ladder_loses_no_digits():
    """Of standard deviation 1e-7, which beside a mean of 5 float32 does not resolve."""
    given = torch.tensor([[1.0, -2.0], [5.0, -32.0]])
    wide = relative(*(tuple(pair.double()) for pair in given))
    found = relative(*(tuple(pair) for pair in given))
    torch.testing.assert_close(torch.stack(found).double(), torch.stack(wide), rtol=1e-5, atol=0)


def gradients(model, images, dreg: bool, seed: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.iwae_nll(images, 16, noise(seed), dreg=dreg).mean().backward()
    return {
        part: torch.cat([p.grad.flatten() for p in getattr(model, part).parameters()])
        for part in ("encoder", "decoder")
    }


def test_dreg_has_the_expectation_of_the_plain_gradient_and_less_variance():
    """With the same noise: the decoder's gradients are equal, the encoder's on the average."""
    model = rough("vae", DataSpec((1, 2, 2), 3), hidden=6)
    images = all_images(model.spec)[::9].repeat(20, 1, 1, 1)
    plain, dreg = ([gradients(model, images, kind, s) for s in range(150)] for kind in (0, 1))
    for one, other in zip(plain, dreg, strict=True):
        torch.testing.assert_close(one["decoder"], other["decoder"])
    one, other = (torch.stack([g["encoder"] for g in found]) for found in (plain, dreg))
    apart = other - one
    error = apart.std(0) / len(apart) ** 0.5
    assert (apart.mean(0).abs() <= 4.5 * error + 1e-12).all()
    assert apart.abs().max() > 1e-3  # the estimates differ, though their means do not
    assert other.var(0).sum() < 0.5 * one.var(0).sum()


def test_the_iwae_bound_is_trained_and_its_options_are_checked():
    batch = next(data.load("digits").batches("train", 16))
    for gradient in ("plain", "dreg"):
        model = make("vae", bound="iwae", num_samples=3, gradient=gradient)
        loss = model(batch, noise())["loss"]
        expected = model.iwae_nll(batch.items, 3, noise()).mean()
        torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="gradient=dreg is of bound=iwae"):
        registry.model_class("vae")(BINARY, gradient="dreg")
    with pytest.raises(ValueError, match="are of bound=elbo"):
        registry.model_class("vae")(BINARY, bound="iwae", beta=2.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_autocast_trains_200_steps_without_a_nan(dtype, bound):
    torch.manual_seed(0)
    options = {"hidden": 16, "latent": 4, "bound": bound, "num_samples": 4}
    model = build_model("vae", DataSpec((1, 8, 8), 17), options)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    batches = list(data.load("digits").batches("train", 32))
    losses = []
    for step in range(200):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = model(batches[step % len(batches)], noise(step))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert math.isfinite(losses[-1]), step
    assert all(p.isfinite().all() for p in model.parameters())
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def linear(latent: int = 2, dims: int = 6) -> tuple[PPCA, torch.Tensor]:
    """A model, and data of full rank whose first directions stand out."""
    model = PPCA(DataSpec((dims,), 4), latent=latent).double().eval()
    generator = noise(5)
    mixing = torch.randn(dims, dims, generator=generator).double() * torch.arange(dims, 0, -1)
    return model, 0.1 * torch.randn(300, dims, generator=generator).double() @ mixing.T


def exact_elbo(model: PPCA, x: torch.Tensor) -> torch.Tensor:
    """Mean ELBO: two samples per dimension average what is quadratic in z exactly."""
    latent = model.num_latent
    points = math.sqrt(latent) * torch.eye(latent, dtype=x.dtype)
    eps = torch.cat([points, -points])[:, None].expand(-1, len(x), -1)
    reconstruction, kl = model.bound(x, eps=eps)
    return -(reconstruction.mean(0) + kl).mean()


def test_ppca_trained_on_the_elbo_reaches_the_largest_likelihood():
    """The optimum of the bound is the closed form of Tipping and Bishop, to 1e-4 nats."""
    model, x = linear()
    model.solve(x)
    best = -model.exact_nll(x).mean().item()
    trained, _ = linear()
    torch.manual_seed(1)
    for parameter in trained.parameters():
        parameter.data.normal_(std=0.3)
    optimizer = torch.optim.LBFGS(
        trained.parameters(), max_iter=800, tolerance_grad=1e-8, tolerance_change=0,
        history_size=30, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -exact_elbo(trained, x)
        loss.backward()
        return loss

    optimizer.step(closure)
    elbo = exact_elbo(trained, x).item()
    assert elbo == pytest.approx(best, abs=1e-4)
    assert -trained.exact_nll(x).mean().item() == pytest.approx(elbo, abs=1e-4)


@torch.no_grad()
def test_bounds_of_ppca_meet_where_its_encoder_is_the_posterior():
    model, x = linear()
    model.solve(x)
    exact = -model.exact_nll(x)
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    weight, variance = model.linear.weight, model.logvar.exp()
    # The likelihood as Tipping and Bishop give it (eq. 4), without torch.distributions.
    c = weight @ weight.T + variance * torch.eye(6).double()
    closed = -0.5 * (6 * math.log(2 * math.pi) + c.logdet() + (c.inverse() @ covariance).trace())
    assert exact.mean().item() == pytest.approx(closed.item() + model.log_level, abs=1e-9)
    assert exact_elbo(model, x).item() == pytest.approx(exact.mean().item(), abs=1e-9)
    found = log_likelihood(model, x, num_samples=3, method="elbo", generator=noise())
    torch.testing.assert_close(found.items, exact)  # each sample has the same weight
    assert active_units(model, x, generator=noise()).count == 2


@torch.no_grad()
def test_iwae_and_ais_find_what_a_wrong_encoder_of_ppca_loses():
    model, x = linear()
    model.solve(x)
    model.logvar_z += 0.5
    model.encoder.bias += 0.2
    exact = -model.exact_nll(x[:40])
    values = [
        log_likelihood(model, x[:40].repeat(50, 1), num_samples=k, generator=noise(k)).value
        for k in (1, 4, 16, 64)
    ]
    assert all(low < high for low, high in itertools.pairwise(values))
    for method, count in (("iwae", 2000), ("ais", 50)):
        ais = AIS(temperatures=30, leapfrogs=2) if method == "ais" else None
        found = log_likelihood(
            model, x[:40], num_samples=count, method=method, ais=ais, generator=noise()
        )
        assert abs(found.value - exact.mean().item()) < 2 * found.half_width < 0.05
    gap = posterior_gap(model, x[:40], num_samples=2000, elbo_samples=500, generator=noise())
    q, posterior = model.encode(x[:40]), linear()[0]
    posterior.solve(x)
    p = posterior.encode(x[:40])
    kl = 0.5 * ((q.mu - p.mu).square() / p.logvar.exp() + (q.logvar - p.logvar).exp() - 1
                - (q.logvar - p.logvar)).sum(1)  # fmt: skip
    assert gap.value == pytest.approx(kl.mean().item(), abs=2 * gap.half_width)


def test_rate_falls_and_distortion_rises_with_beta(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rate_distortion, "BETAS", (0.1, 10.0))
    options = ["--page", str(tmp_path), "--runs", str(tmp_path / "runs"), "--steps", "30"]
    rate_distortion.main(options)
    assert (tmp_path / "pictures" / "rate_distortion-digits.png").is_file()
    assert "## Rate and distortion over beta" in (tmp_path / "README.md").read_text()
    low, high = (line.split() for line in capsys.readouterr().out.splitlines()[:2])
    assert float(low[3].strip(",")) > float(high[3].strip(","))
