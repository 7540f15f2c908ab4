"""Autoencoders, codebooks and decoders of the latent models, and what codes are used for."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from examples import data
from examples.cli import main
from examples.errors import UsageError
from examples.harness.config import build_model
from examples.latent.uses import clusters, code_prior, few_labels, gradients, kl_share, walks
from examples.latent.uses.runs import codes_of, images_of
from examples.latent.vq_vae import Codebook
from examples.model import Batch, DataSpec
from tests.examples.test_examples import DIGITS, all_images, make, noise

F64 = torch.float64
SMALL = DataSpec((1, 2, 2), 3)


def subspace(columns: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(columns)[0]


def test_the_linear_autoencoder_spans_the_principal_components():
    """Trained to the end; all angles between the two subspaces are 0."""
    items = data.load("digits").splits["train"][:200, :, 2:6, 2:6]
    spec = DataSpec((1, 4, 4), 17)
    torch.manual_seed(0)
    model = build_model("autoencoder", spec, {"form": "linear", "latent": 3}).double()
    pixels = spec.scale(items, torch.empty(0, dtype=F64)).flatten(1)
    axes = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)[2][:3].T

    def smallest_cosine() -> float:
        spanned = subspace(model.decoder[0].weight.detach())
        return torch.linalg.svdvals(spanned.T @ axes).min().item()

    assert smallest_cosine() < 0.9
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=400, history_size=50, tolerance_grad=1e-9,
        tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = model(Batch(items), noise())["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert math.acos(min(1.0, smallest_cosine())) < 1e-3


@pytest.mark.parametrize("form", ["linear", "deep", "convolutional"])
def test_samples_of_an_autoencoder_have_the_codes_of_training(form):
    model = make("autoencoder", form=form).train()
    items = next(data.load("digits").batches("train", 64)).items
    for _ in range(400):
        model.watch(codes_of(model, items))
    codes = codes_of(model, items)
    drawn = []
    model.decode = lambda z: drawn.append(z) or torch.zeros(len(z), DIGITS.dims)
    model.sample(4000, noise())
    torch.testing.assert_close(drawn[0].mean(0), codes.mean(0), atol=0.1, rtol=0.1)
    torch.testing.assert_close(drawn[0].T.cov(), codes.T.cov(correction=0), atol=0.3, rtol=0.2)


def test_images_that_do_not_halve_are_refused():
    for name, options in (("autoencoder", {"form": "convolutional"}), ("vq_vae", {"downs": 4})):
        with pytest.raises(UsageError, match="sides"):
            build_model(name, DataSpec((1, 6, 8), 17), options)


def test_masking_noise_blanks_its_share_and_changes_nothing_else():
    model = make("denoising_autoencoder", noise=0.3)
    items = torch.randint(1, 17, (500, 1, 8, 8), generator=noise()).to(torch.uint8)
    found = model.corrupt(items, noise(1))
    blank = found == 0
    assert blank.double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(found[~blank], items[~blank])


def test_turns_of_the_adversarial_autoencoder_reach_only_their_player():
    batch = next(data.load("digits").batches("train", 16))
    for player in ("autoencoder", "discriminator", "generator"):
        model = make("adversarial_autoencoder")
        model(batch, noise(), player)["loss"].backward()
        of_encoder = any(p.grad is not None for p in model.encoder.parameters())
        assert of_encoder == (player != "discriminator")
        assert (model.decoder[0].weight.grad is not None) == (player == "autoencoder")
        assert (model.discriminator[0].weight.grad is not None) == (player != "autoencoder")


# ---- VQ-VAE ----------------------------------------------------------------------------------


def test_codes_follow_the_means_of_what_falls_to_them_and_unused_ones_start_anew():
    book = Codebook(3, 2)
    book.sums.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [-900.0, 0.0]]))
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 11.0], [11.0, 12.0]])
    numbers = book.nearest(vectors)
    assert numbers.tolist() == [0, 0, 1, 1]
    for _ in range(290):
        book.follow(vectors, numbers, noise())
    torch.testing.assert_close(book.counts[:2], torch.full((2,), 1.5), atol=0.05, rtol=0)
    for _ in range(20):  # 0.99^300 is below the bound
        book.follow(vectors, numbers, noise())
    torch.testing.assert_close(
        book.vectors[:2], torch.tensor([[0.5, 0.5], [10.0, 11.5]]), atol=0.1, rtol=0
    )
    assert any(torch.equal(book.vectors[2], v) or (book.vectors[2] - v).norm() < 1 for v in vectors)
    assert 0.5 < book.counts[2] <= 1.0


def test_the_gradient_passes_the_codebook_unchanged():
    model = make("vq_vae").eval()
    items = next(data.load("digits").batches("train", 4)).items
    given = {}

    def keep(name):
        return lambda gradient: given.__setitem__(name, gradient)

    encode, decode = model.encode, model.decode
    model.encode = lambda x: (z := encode(x), z.register_hook(keep("z")))[0]
    model.decode = lambda z: (z.register_hook(keep("codes")), decode(z))[1]
    model(Batch(items), noise())["reconstruction"].backward()
    assert torch.equal(given["z"], given["codes"])


@torch.no_grad()
def test_the_bound_of_the_codes_holds():
    """Against p(x) = sum_k p(k) p(x | k), with a map of one code."""
    model = make("vq_vae", SMALL).double().eval()
    images = all_images(SMALL)
    vectors = model.codebook.vectors[:, :, None, None]
    each = torch.stack([model.nll(images, v.expand(len(images), -1, 1, 1)) for v in vectors])
    exact = math.log(len(vectors)) - (-each).logsumexp(0)
    assert (-exact).exp().sum().item() == pytest.approx(1.0)
    bounds = torch.stack([model(Batch(image[None]), noise())["loss"] for image in images])
    assert (bounds >= exact - 1e-9).all() and (bounds < exact + 5).any()
    found = model(Batch(images), noise())
    assert 1 <= found["perplexity"] <= 16
    torch.testing.assert_close(found["loss"], bounds.mean())


def test_code_maps_are_data_and_samples_of_their_model_are_whole_images(tmp_path, capsys):
    run, prior, out = (str(tmp_path / name) for name in ("vq", "prior", "a.png"))
    small = ["--steps", "1", "--set"]
    assert main(["train", "vq_vae", "--out", run, *small, "hidden=8", "codes=9"]) == 0
    given = ["--data", "codes", "--data-dir", run, "--out", prior]
    assert main(["train", "pixel_cnn", *given, *small, "hidden=8", "blocks=1"]) == 0
    assert main(["sample", "pixel_cnn", "--run", prior, "--num", "4", "--out", out]) == 0
    picture = Image.open(out)
    assert picture.width / 17 == picture.width // 17 > 1  # two images of 8 x 8, and a line
    maps = data.load("codes", run)
    assert maps.spec == DataSpec((1, 4, 4), 9, 10) and len(maps.splits["train"]) == 1257
    model, _ = code_prior.load(tmp_path / "vq")
    items = data.load("digits").splits["test"]
    assert torch.equal(maps.splits["test"], model.code_maps(items))
    exact, _ = code_prior.load(tmp_path / "prior")
    of_pixels, of_codes = code_prior.parts(model, exact, items)
    uniform = model(Batch(items), noise())["loss"].item() - 16 * math.log(9)
    assert of_pixels.mean().item() == pytest.approx(uniform, rel=1e-5)
    assert torch.equal(of_codes, code_prior.nats(exact, maps.splits["test"]))
    capsys.readouterr()
    assert main(["train", "made", "--data", "codes", "--data-dir", prior, "--out", run + "2"]) == 2
    assert "takes a run of vq_vae; got" in capsys.readouterr().err


# ---- PixelVAE --------------------------------------------------------------------------------


@torch.no_grad()
def test_the_pixel_decoder_is_a_distribution_given_z_for_each_sample():
    model = make("pixel_vae", SMALL).double()
    images, z = all_images(SMALL), torch.randn(3, 4, generator=noise()).double()
    repeated = z[:, None].expand(3, len(images), 4)
    found = model.reconstruction_nll(images, repeated)
    torch.testing.assert_close((-found).exp().sum(1), torch.ones(3, dtype=F64))
    torch.testing.assert_close(found[1], model.reconstruction_nll(images, repeated[1]))
    assert not torch.allclose(found[0], found[1])


def test_the_parts_of_the_bound_add_up_to_the_loss():
    model, dataset = make("pixel_vae").eval(), data.load("digits")
    of_pixels, kl = kl_share.parts(model, dataset)
    found = model(Batch(dataset.splits["test"]), noise())
    assert kl.mean().item() == pytest.approx(found["kl"].item(), rel=1e-4)
    assert (of_pixels + kl).mean().item() == pytest.approx(found["loss"].item(), rel=1e-4)


# ---- uses ------------------------------------------------------------------------------------


def test_slerp_goes_along_the_circle_at_even_speed():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    t = torch.linspace(0, 1, 4)[:, None]
    found = walks.slerp(a, b, t)
    angles = torch.atan2(found[:, 1], found[:, 0])
    torch.testing.assert_close(angles, t[:, 0] * math.pi / 2)
    torch.testing.assert_close(found.norm(dim=1), 2 + 2 * t[:, 0])
    torch.testing.assert_close(walks.slerp(a, 3 * a, t), torch.lerp(a, 3 * a, t))
    assert walks.slerp(a, -a, t).isfinite().all()


def test_attributes_are_ink_and_lean_and_their_vectors_raise_them():
    lines = torch.zeros(3, 1, 7, 7, dtype=torch.uint8)
    rows = torch.arange(7)
    lines[0, 0, rows, 3], lines[1, 0, rows, 6 - rows], lines[2, 0, rows, rows] = 16, 16, 16
    found = walks.attributes(lines)
    assert found["lean"].tolist() == pytest.approx([0.0, 1.0, -1.0])
    assert found["ink"].tolist() == pytest.approx([16 / 7] * 3)
    codes = torch.arange(9.0)[:, None] * torch.tensor([2.0, 0.0])
    vector = walks.attribute_vector(codes, torch.arange(9.0))
    torch.testing.assert_close(vector, torch.tensor([12.0, 0.0]))


def test_walks_and_scatter_of_a_small_model(tmp_path):
    model, items = make("vae").eval(), data.load("digits").splits["test"]
    codes = codes_of(model, items)
    assert walks.traversals(codes).shape == (4 * 9, 4) and walks.strips(codes).shape == (8 * 9, 4)
    torch.testing.assert_close(walks.strips(codes)[::9], codes[:8])
    assert images_of(model, codes).shape == items.shape
    placed, shares = clusters.components(codes)
    assert shares.sum().item() == pytest.approx(1.0) and (shares.diff() <= 1e-9).all()
    covariance = placed.T.cov()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-6, rtol=0)


def test_purity_and_information_of_known_clusters():
    labels = torch.arange(3).repeat_interleave(20)
    apart = labels[:, None] * 10.0 + torch.rand(60, 2, generator=noise())
    assert clusters.cluster(apart, labels) == (1.0, pytest.approx(1.0))
    assert clusters.purity(torch.zeros(4).numpy(), torch.tensor([0, 1, 1, 2]).numpy()) == 0.5


def test_few_labels_are_balanced_and_the_two_starts_differ_in_their_weights_only():
    labels = data.load("digits").labels["train"]
    chosen = few_labels.labelled(labels, 50, seed=3)
    assert labels[chosen].bincount().tolist() == [5] * 10 and len(chosen.unique()) == 50
    model = make("autoencoder", form="convolutional")
    nets = [few_labels.classifier(model, 10, pretrained=p) for p in (True, False)]
    assert torch.equal(nets[0][0][0].weight, model.encoder[0].weight)
    assert not torch.equal(nets[1][0][0].weight, model.encoder[0].weight)
    assert [p.shape for p in nets[0].parameters()] == [p.shape for p in nets[1].parameters()]
    found = few_labels.compare(make("vae"), data.load("digits"), 50, seeds=2, steps=60)
    assert all(0.3 < value < 1 for values in found.values() for value in values)


def test_gradient_estimators_are_unbiased_with_the_variances_of_the_theory():
    """f = |z|^2 / 2: the pathwise gradient is z; with sigma = 1/2, its variance is 1/4 each."""
    mu, logvar = torch.tensor([[1.0, -2.0]], dtype=F64), torch.full((1, 2), math.log(0.25)).double()
    f = lambda z: 0.5 * z.square().sum(-1)  # noqa: E731
    found = gradients.estimates(f, mu, logvar, 40_000, noise())
    measured = gradients.variances(found)
    assert measured["reparameterised"] == pytest.approx(0.5, rel=0.05)
    # E[(f eps / sigma)^2] of z_i = mu_i + sigma eps_i, by moments of the normal distribution
    exact = exact_score_variance(mu[0].tolist(), 0.5)
    assert measured["score function"] == pytest.approx(exact, rel=0.05)
    assert measured["score function, baseline"] < measured["score function"]
    for g in found.values():
        error = (g.var(0) / len(g)).sqrt()
        assert ((g.mean(0) - mu).abs() < 4 * error).all()


def exact_score_variance(mu: list[float], sigma: float) -> float:
    """Of f eps_i / sigma, summed over i, by quadrature."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(20))
    weights = weights / weights.sum()
    a, b = (m + sigma * nodes for m in mu)
    f = 0.5 * (a[:, None] ** 2 + b[None, :] ** 2)
    joint = weights[:, None] * weights[None, :]
    total = 0.0
    for eps in (nodes[:, None], nodes[None, :]):
        g = f * eps / sigma
        total += ((joint * g * g).sum() - (joint * g).sum() ** 2).item()
    return total
