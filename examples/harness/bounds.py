"""How tight the bounds of a model with a latent variable are: ELBO, IWAE, AIS, active units."""

from dataclasses import dataclass

import torch

from examples.data.dataset import Dataset
from examples.harness.recorder import bits_per_dim
from examples.latent.base import LatentModel
from examples.latent.pixel_vae import PixelVAE
from genkern.metrics import AIS, Estimate, active_units, log_likelihood

ELBO_SAMPLES, IWAE_SAMPLES, CHAINS = 64, 64, 8
ANNEALED = AIS(temperatures=100, leapfrogs=4)
#: Where a gradient of log p(x|z) goes through convolutions. A longer path finds no more (50 and 4:
#: -79.04 +- 0.05 nats for 24 images; this one: -79.06 +- 0.06), since z says less.
SHORT = AIS(temperatures=25, leapfrogs=2)


@dataclass(frozen=True)
class Bounds:
    """Of the test split, nats.

    Args:
        elbo, iwae, ais: bounds of log p(x), loosest first.
        gap: the last less the first, image by image: KL(q(z|x) to p(z|x)), or less.
        exact: log p(x), of a model in which it is known, else None.
        active, latent: dimensions of z that follow x, and how many there are.
    """

    elbo: Estimate
    iwae: Estimate
    ais: Estimate
    exact: torch.Tensor | None
    active: int
    latent: int

    @property
    def gap(self) -> Estimate:
        return self.ais - self.elbo


def prepared(model: LatentModel, dataset: Dataset) -> torch.Tensor:
    """The test split as `encode` takes it; what noise there is, is always the same."""
    model.eval()
    items = dataset.splits["test"].to(next(model.parameters()).device)
    return model.prepare(items, torch.Generator(items.device).manual_seed(0))


def annealing(model: LatentModel) -> AIS:
    return SHORT if isinstance(model, PixelVAE) else ANNEALED


def estimate(model: LatentModel, items: torch.Tensor, method: str, seed: int = 0) -> Estimate:
    counts = {"elbo": ELBO_SAMPLES, "iwae": IWAE_SAMPLES, "ais": CHAINS}
    return log_likelihood(
        model,
        items,
        num_samples=counts[method],
        method=method,
        ais=annealing(model) if method == "ais" else None,
        generator=torch.Generator().manual_seed(seed),
    )


def bounds(model: LatentModel, dataset: Dataset) -> Bounds:
    items = prepared(model, dataset)
    found = {name: estimate(model, items, name, seed) for seed, name in enumerate(METHODS)}
    exact = -model.exact_nll(items) if hasattr(model, "exact_nll") else None
    units = active_units(model, items, generator=torch.Generator().manual_seed(len(METHODS)))
    return Bounds(**found, exact=exact, active=units.count, latent=len(units.variances))


METHODS = ("elbo", "iwae", "ais")
NAMES = {"elbo": "ELBO", "iwae": f"IWAE-{IWAE_SAMPLES}", "ais": "AIS"}


def row(name: str, dataset: Dataset, found: Bounds) -> dict:
    """What the page says of it: values, and half their intervals for these images."""
    pairs = {key: getattr(found, key) for key in (*METHODS, "gap")}
    return {
        "model": name,
        "data": dataset.name,
        **{key: [each.value, each.half_width] for key, each in pairs.items()},
        "over_images": found.ais.half_width_over_items,
        "exact": [] if found.exact is None else [found.exact.mean().item()],
        "bits_per_dim": -bits_per_dim(dataset.spec, found.ais.value),
        "active": [found.active, found.latent],
        "acceptance": found.ais.acceptance,
        "effective": [found.iwae.effective_samples.median().item(),
                      found.ais.effective_samples.median().item()],
    }  # fmt: skip


def lines(row: dict) -> list[str]:
    """The row as the terminal shows it."""
    told = [f"  {NAMES[key]:8} {row[key][0]:9.3f} +- {row[key][1]:.3f} nats" for key in METHODS]
    told[-1] += f" (+- {row['over_images']:.2f} over images), {row['bits_per_dim']:.4f} bits/dim"
    told += [f"  exact    {value:9.3f} nats" for value in row["exact"]]
    active, latent = row["active"]
    return [
        *told,
        f"  gap      {row['gap'][0]:9.3f} +- {row['gap'][1]:.3f} nats",
        f"  active   {active} of {latent} dimensions",
        f"  acceptance of HMC {row['acceptance']:.2f}; effective samples, the median image: "
        f"{row['effective'][0]:.1f} of {IWAE_SAMPLES} (IWAE), {row['effective'][1]:.1f} of "
        f"{CHAINS} chains (AIS)",
    ]
