"""Autoencoders, codebooks and decoders of the latent models, and models of their codes."""

import math

import pytest
import torch
from PIL import Image

from examples import data
from examples.cli import main
from examples.errors import UsageError
from examples.harness.config import build_model
from examples.latent.uses import code_prior, kl_share
from examples.latent.uses.runs import codes_of
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
