"""Maps of codes of a trained VQ-VAE, as images of one channel, and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from examples import data
from examples.data.dataset import Dataset
from examples.errors import wrong
from examples.model import DataSpec
from examples.paths import CHECKPOINT

if TYPE_CHECKING:
    from examples.latent.vq_vae import VQVAE

MODEL = "vq_vae"


def codes(folder: Path | None) -> Dataset:
    """Code maps of a VQ-VAE, of the run in --data-dir; samples are decoded to whole images.

    The maps are made anew each time, from the weights and the data of the run, so that they are
    always those of the decoder.
    """
    from examples.harness import checkpoint

    model = decoder(folder)
    config = checkpoint.load(folder / CHECKPOINT)["config"]
    images = data.load(config.data, config.data_dir)
    maps = {
        split: torch.cat([model.code_maps(batch.items) for batch in images.batches(split, 256)])
        for split in images.splits
    }
    return Dataset("codes", model.code_spec, maps, images.labels, word=images.word)


def decoder(folder: Path | None) -> "VQVAE":
    from examples.harness import checkpoint

    if folder is None or not (folder / CHECKPOINT).is_file():
        takes = f"the folder of a run of {MODEL}, with its {CHECKPOINT}"
        raise wrong("--data-dir", takes, "nothing" if folder is None else str(folder))
    return checkpoint.load_model(MODEL, folder / CHECKPOINT)


def images(folder: Path | None, maps: torch.Tensor) -> tuple[torch.Tensor, DataSpec]:
    """Code maps (N, 1, H', W') to images (N, C, H, W), and what these are."""
    model = decoder(folder)
    return model.images(maps), model.spec
