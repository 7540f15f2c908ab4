"""The bound of a VQ-VAE when a model of its code maps is the prior, beside equally likely codes.

-log p(x) <= -log p(x | codes) - log p(codes), each exact. RUNs: of vq_vae, and of a model with an
exact likelihood that was trained with --data codes --data-dir RUN.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.autoregressive.raster import RasterModel
from examples.errors import wrong
from examples.harness import images
from examples.harness.likelihood import mean_and_half, nats
from examples.harness.recorder import bits_per_dim
from examples.latent.uses.report import Report
from examples.latent.uses.runs import load
from examples.latent.vq_vae import VQVAE


@torch.no_grad()
def parts(
    model: VQVAE, prior: RasterModel, items: torch.Tensor, given: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p(x | codes) and -log p(codes) (N,), nats; ``given``: what the prior is told."""
    maps = model.code_maps(items)
    vectors = model.codebook.vectors[maps[:, 0].long()].movedim(-1, 1)
    return model.nll(items, vectors).double(), nats(prior, maps, given)


def main(runs: Sequence[Path], report: Report) -> None:
    if len(runs) != 2:
        raise wrong("RUN", "two runs: of vq_vae, and of the model of its codes", len(runs))
    model, dataset = load(runs[0])
    prior, maps = load(runs[1])
    if not isinstance(model, VQVAE):
        raise wrong("RUN", "a run of vq_vae first", str(runs[0]), type(model).__name__)
    if not isinstance(prior, RasterModel) or prior.spec.shape != model.code_spec.shape:
        raise wrong("RUN", "a run of an exact model of the codes, second", str(runs[1]))
    items, labels = dataset.splits["test"], dataset.labels.get("test")
    given = labels if prior.condition == "class" else None
    of_pixels, of_codes = parts(model, prior, items, given)
    uniform = model.code_spec.dims * math.log(model.code_spec.levels)
    for name, values in (
        ("pixels given codes", of_pixels),
        ("codes, by the model", of_codes),
        ("bound, by the model", of_pixels + of_codes),
        ("bound, equally likely codes", of_pixels + uniform),
    ):
        mean, half = mean_and_half(values)
        per_dim = [bits_per_dim(model.spec, value) for value in (mean, half)]
        report.say(f"{name:28} {mean:7.2f} nats, {per_dim[0]:.4f} +- {per_dim[1]:.4f} bits/dim")
    used = maps.splits["test"].flatten().long().bincount(minlength=model.code_spec.levels)
    perplexity = torch.special.entr(used / used.sum()).sum().exp().item()
    report.say(f"perplexity of the codes: {perplexity:.1f} of {model.code_spec.levels}")
    pairs = torch.stack([items[:8], model.images(model.code_maps(items[:8]))]).flatten(0, 1)
    path = report.picture("reconstructions", "Test images, and below each what its codes decode to")
    images.grid(pairs, model.spec, height=200, columns=8).save(path)
