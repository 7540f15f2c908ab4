"""The models that `python -m examples` knows: one entry each. Imports no torch."""

import importlib
from typing import TYPE_CHECKING

from examples import described
from examples.adversarial import entries as adversarial
from examples.entry import LARGE, Entry
from examples.errors import unknown_name, wrong
from examples.latent import entries as latent
from examples.options import OF_MODEL, Number, Takes, Value

if TYPE_CHECKING:
    from examples.model import GenerativeModel


AUTOREGRESSIVE = {
    "fvsbn": Entry(
        "examples.autoregressive.fvsbn:FVSBN",
        *(6000, 1e-3, 64),
        small={},
        exact=True,
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
        colours=True,
        large={"steps": 600, **LARGE},
        exact=True,
    ),
    "made": Entry(
        "examples.autoregressive.made:MADE",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "orders": 2},
        exact=True,
        limits={"orders": Number(int, 1, 1000), "layers": Number(int, 1, 100)},
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
}
MODELS = dict(sorted({**AUTOREGRESSIVE, **latent.MODELS, **adversarial.MODELS}.items()))


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
    if wanted.colours and not colours:
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
