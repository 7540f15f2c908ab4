"""The models that `python -m examples` knows: one entry each. Imports no torch."""

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from examples import described
from examples.errors import unknown_name, wrong
from examples.options import OF_MODEL, Choice, Number, Takes, Value

if TYPE_CHECKING:
    from examples.model import GenerativeModel


@dataclass(frozen=True)
class Entry:
    """Where a model is, and all that suits it.

    Args:
        path: "module:class".
        steps, lr, batch_size, beta1, beta2, ema_decay: training options for the digits.
        large: training options that differ for images of 28 x 28 pixels and more.
        players: options of one player alone, by its name; the keys of `options.PLAYER`.
        small: options of a model that the tests can train in a second.
        needs: "images" or "levels" (integers), or "anything".
        labels: it is trained on labels, and samples by them.
        pictures: it is given a part of what is in an image of three colours, and draws the rest.
        exact: it has an exact likelihood, and completes images (`RasterModel`).
        bounds: it bounds its likelihood by an encoder (`LatentModel`).
        limits: what an option takes, where that is closer than `options.OF_MODEL`.
    """

    path: str
    steps: int
    lr: float
    batch_size: int
    small: dict[str, Value]
    beta1: float = 0.9
    beta2: float = 0.999
    ema_decay: float = 0.99
    players: dict[str, dict[str, float]] = field(default_factory=dict)
    needs: str = "images"
    labels: bool = False
    pictures: bool = False
    large: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    bounds: bool = False
    limits: dict[str, Takes] = field(default_factory=dict)


#: The steps beside it take about a minute on two cores: too few for more than a first look.
LARGE = {"batch_size": 4, "eval_every": 100}
FORM = {"form": Choice(("linear", "deep", "convolutional"))}
MODELS = {
    "adversarial_autoencoder": Entry(
        "examples.latent.adversarial_autoencoder:AdversarialAutoencoder",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "latent": 4},
        limits=FORM,
        players={"discriminator": {"beta1": 0.5}, "generator": {"beta1": 0.5, "lr": 3e-4}},
    ),
    "autoencoder": Entry(
        "examples.latent.autoencoder:Autoencoder",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "latent": 4},
        limits=FORM,
    ),
    "denoising_autoencoder": Entry(
        "examples.latent.denoising_autoencoder:DenoisingAutoencoder",
        *(5000, 1e-3, 64),
        small={"hidden": 32, "walk": 3},
        limits=FORM | {"noise": Number(float, 0, 1)},
    ),
    "fvsbn": Entry(
        "examples.autoregressive.fvsbn:FVSBN",
        *(6000, 1e-3, 64),
        small={},
        exact=True,
    ),
    "gan": Entry(
        "examples.adversarial.gan:GAN",
        *(3000, 1e-3, 64),
        small={"hidden": 32, "latent": 8, "k": 2},
        beta1=0.5,
        ema_decay=0.995,
        needs="anything",
        limits={
            "kind": Choice(("bce", "hinge", "lsgan", "wgan", "rabce")),
            "label_smoothing": Number(float, 0, 1),
            "k": Number(int, 1, 100),
        },
    ),
    "gated_pixel_cnn": Entry(
        "examples.autoregressive.gated_pixel_cnn:GatedPixelCNN",
        *(2000, 2e-3, 64),
        small={"hidden": 8, "layers": 2},
        large={"steps": 600, **LARGE},
        exact=True,
    ),
    "gated_pixel_cnn_class": Entry(
        "examples.autoregressive.gated_pixel_cnn:ClassGatedPixelCNN",
        *(2000, 2e-3, 64),
        small={"hidden": 8, "layers": 2},
        labels=True,
        large={"steps": 600, **LARGE},
        exact=True,
    ),
    "gated_pixel_cnn_colour": Entry(
        "examples.autoregressive.gated_pixel_cnn:ColourGatedPixelCNN",
        *(600, 2e-3, 4),
        small={"hidden": 8, "layers": 2},
        pictures=True,
        large={"steps": 600, **LARGE},
        exact=True,
    ),
    "iaf_vae": Entry(
        "examples.latent.iaf_vae:IAFVAE",
        *(2000, 1e-3, 64),
        small={"hidden": 32, "latent": 4, "flows": 2, "width": 16, "context": 4},
        needs="levels",
        bounds=True,
        limits={"flows": Number(int, 0, 100)},
    ),
    "ladder_vae": Entry(
        "examples.latent.ladder_vae:LadderVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "top": 2},
        needs="levels",
        bounds=True,
    ),
    "made": Entry(
        "examples.autoregressive.made:MADE",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "orders": 2},
        exact=True,
        limits={"orders": Number(int, 1, 1000), "layers": Number(int, 1, 100)},
    ),
    "mixture_prior_vae": Entry(
        "examples.latent.mixture_prior:MixturePriorVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "components": 4},
        needs="levels",
        bounds=True,
    ),
    "multi_scale": Entry(
        "examples.autoregressive.multi_scale:MultiScalePixelRNN",
        *(800, 2e-3, 64),
        small={"hidden": 8, "layers": 1, "condition": 8},
        large={"steps": 400, **LARGE},
        exact=True,
    ),
    "nade": Entry(
        "examples.autoregressive.nade:NADE",
        *(4000, 2e-3, 64),
        small={"hidden": 16},
        exact=True,
    ),
    "pixel_cnn": Entry(
        "examples.autoregressive.pixel_cnn:PixelCNN",
        *(2000, 2e-3, 64),
        small={"hidden": 8, "blocks": 2},
        large={"steps": 600, **LARGE},
        exact=True,
    ),
    "pixel_cnn_pp": Entry(
        "examples.autoregressive.pixel_cnn_pp:PixelCNNPP",
        *(600, 2e-3, 64),
        small={"hidden": 8, "components": 2},
        large={"steps": 400, **LARGE},
        exact=True,
        limits={"scales": Number(int, 1, 10), "dropout": Number(float, 0, 1, below=True)},
    ),
    "pixel_lstm": Entry(
        "examples.autoregressive.pixel_lstm:PixelLSTM",
        *(2000, 3e-3, 64),
        small={"hidden": 16, "position": 4},
        large={"steps": 200, **LARGE},
        exact=True,
    ),
    "pixel_rnn": Entry(
        "examples.autoregressive.pixel_rnn:PixelRNN",
        *(2000, 2e-3, 64),
        small={"hidden": 8, "layers": 2},
        large={"steps": 500, **LARGE},
        exact=True,
    ),
    "pixel_rnn_diagonal": Entry(
        "examples.autoregressive.pixel_rnn:DiagonalPixelRNN",
        *(1200, 2e-3, 64),
        small={"hidden": 8, "layers": 2},
        large={"steps": 500, **LARGE},
        exact=True,
    ),
    "pixel_vae": Entry(
        "examples.latent.pixel_vae:PixelVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "channels": 8},
        large={"steps": 600, **LARGE},
        bounds=True,
    ),
    "ppca": Entry(
        "examples.latent.ppca:PPCA",
        *(2000, 1e-2, 64),
        small={"latent": 4},
        needs="levels",
        bounds=True,
    ),
    "vae": Entry(
        "examples.latent.vae:VAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4},
        needs="levels",
        bounds=True,
        limits={"bound": Choice(("elbo", "iwae")), "gradient": Choice(("plain", "dreg"))},
    ),
    "vq_vae": Entry(
        "examples.latent.vq_vae:VQVAE",
        *(3000, 2e-3, 64),
        small={"hidden": 8, "codes": 16},
        limits={"codes": Number(int, 2, 256), "downs": Number(int, 1, 5)},
    ),
}


def entry(name: str) -> Entry:
    if name not in MODELS:
        raise unknown_name("MODEL", name, MODELS)
    return MODELS[name]


def model_class(name: str) -> type["GenerativeModel"]:
    module, _, attribute = entry(name).path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def refusal(
    name: str, *, images: bool, levels: bool, labels: bool, colours: bool = True
) -> str | None:
    """Why a model cannot be trained on data of such a kind, or None."""
    wanted = entry(name)
    if wanted.needs == "images" and not images:
        return "it needs images"
    if wanted.needs != "anything" and not levels:
        return "it needs integer levels"
    if wanted.pictures and not colours:
        return "it needs images of three colours"
    return "it needs labels" if wanted.labels and not labels else None


def exact_entry(name: str) -> Entry:
    """The entry of a model with an exact likelihood."""
    return _known(name, ("exact",), "it has no exact likelihood")


def likelihood_entry(name: str) -> Entry:
    """The entry of a model whose likelihood is exact, or bounded by an encoder."""
    return _known(name, ("exact", "bounds"), "it has no likelihood")


def _known(name: str, kinds: tuple[str, ...], why: str) -> Entry:
    if not any(getattr(entry(name), kind) for kind in kinds):
        models = [n for n, found in MODELS.items() if any(getattr(found, k) for k in kinds)]
        raise wrong("MODEL", ", ".join(models), name, why)
    return entry(name)


def model_options(name: str) -> dict[str, Value]:
    """The keyword options of a model and their defaults."""
    return described.keyword_options(entry(name).path)


def takes(name: str, option: str, source: str = "--set") -> Takes:
    """What an option of a model takes."""
    known = model_options(name)
    if option not in known:
        raise unknown_name(source, option, known)
    return entry(name).limits.get(option) or OF_MODEL[type(known[option])]
