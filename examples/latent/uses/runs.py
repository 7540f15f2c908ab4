"""A trained model with codes and the data it was trained on; codes to images and back."""

from pathlib import Path

import torch

from examples import data
from examples.data.dataset import Dataset
from examples.errors import wrong
from examples.harness import checkpoint
from examples.latent.autoencoder import Coder
from examples.latent.pixel_vae import PixelVAE
from examples.latent.vae import VAE
from examples.model import GenerativeModel
from examples.paths import CHECKPOINT, run_to_read

#: Models with a code of a few numbers, and an image for each.
Coded = VAE | Coder


def load(folder: Path) -> tuple[GenerativeModel, Dataset]:
    """The model of a run and its data.

    Raises:
        UsageError: there is no such run, or it is damaged.
    """
    path = run_to_read("RUN", str(folder)) / CHECKPOINT
    config = checkpoint.load(path)["config"]
    return checkpoint.load_model(config.model, path), data.load(config.data, config.data_dir)


def coded(folder: Path, *, labels: bool = True) -> tuple[Coded, Dataset]:
    """`load`, of a model with codes that decode at once, on data with labels."""
    model, dataset = load(folder)
    if not isinstance(model, Coded) or isinstance(model, PixelVAE):
        raise wrong("RUN", "a run of a VAE or an autoencoder", str(folder), type(model).__name__)
    if labels and not dataset.labels:
        raise wrong("RUN", "a run on data with labels", str(folder), dataset.name)
    return model.eval(), dataset


@torch.no_grad()
def codes_of(model: Coded, items: torch.Tensor) -> torch.Tensor:
    """Levels (N, C, H, W) to codes (N, latent): of a VAE, the means of q(z | x)."""
    found = model.features(items) if isinstance(model, VAE) else model.encode(items)
    return found[:, : model.num_latent]


@torch.no_grad()
def images_of(model: Coded, codes: torch.Tensor) -> torch.Tensor:
    """Codes (N, latent) to levels (N, C, H, W): of a distribution, its mean, rounded."""
    found = model.decode(codes)
    mean = found[0] if isinstance(found, tuple) else found[:, : model.spec.dims]
    return model.spec.unscale(mean).view(len(codes), *model.spec.shape)


def pixels(model: Coded, items: torch.Tensor) -> torch.Tensor:
    """Levels (N, C, H, W) to (N, dims) in [-1, 1]."""
    return model.spec.scale(items, torch.empty(0)).flatten(1)
