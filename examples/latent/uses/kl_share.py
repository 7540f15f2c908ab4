"""How much of the bound of a VAE is its KL: what the decoder knows by itself, z need not say."""

from collections.abc import Sequence
from pathlib import Path

import torch

from examples.data.dataset import Dataset
from examples.errors import wrong
from examples.harness.likelihood import mean_and_half
from examples.harness.recorder import bits_per_dim
from examples.latent.uses.report import Report
from examples.latent.uses.runs import load
from examples.latent.vae import VAE


@torch.no_grad()
def parts(model: VAE, dataset: Dataset, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """-E[log p(x | z)], by one sample each, and the KL, nats of the test items (N,) each."""
    items, generator = dataset.splits["test"], torch.Generator().manual_seed(seed)
    z, kl = model.latent(model.features(items), generator=generator)
    return model.reconstruction_nll(items, z).double(), kl.double()


def main(runs: Sequence[Path], report: Report) -> None:
    for run in runs:
        model, dataset = load(run)
        if not isinstance(model, VAE):
            raise wrong("RUN", "runs of VAEs", str(run), type(model).__name__)
        of_pixels, kl = parts(model, dataset)
        mean, half = mean_and_half(of_pixels + kl)
        share = kl.mean().item() / mean
        bits = [bits_per_dim(model.spec, value) for value in (mean, half)]
        report.say(
            f"{run.name}: bound {bits[0]:.4f} +- {bits[1]:.4f} bits/dim; pixels "
            f"{of_pixels.mean():.2f} nats, KL {kl.mean():.2f} nats, {share:.0%} of the bound"
        )
