"""VAE. Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 3, app. B, C."""

import torch

from examples.latent.base import LatentModel, mlp
from examples.latent.posteriors import Diagonal
from examples.model import Batch, DataSpec
from genkern.nn import GaussianLatent

BOUNDS, GRADIENTS = ("elbo", "iwae"), ("plain", "dreg")


class VAE(LatentModel):
    r"""Encoder q(z|x) = N(mu, e^logvar), prior N(0, I), decoder p(x|z) of independent levels.

    .. math:: -L(x) = E_{q(z|x)}[-\log p(x \mid z)] + KL(q(z \mid x) \| p(z))

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers of encoder and decoder.
        latent: dimensions of z.
        beta: weight of the KL in training (1: the ELBO). Source: Higgins et al. 2017, "beta-VAE".
        free_bits: nats of each dimension, in the mean over the batch, that cost nothing in
            training. Source: Kingma et al. 2016, "Improving variational inference with inverse
            autoregressive flow", app. C.8.
        bound: "elbo", or "iwae" of ``num_samples`` (`iwae_nll`).
        num_samples: K of "iwae".
        gradient: "plain", or "dreg": of the encoder, with "iwae".
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int = 256,
        latent: int = 8,
        beta: float = 1.0,
        free_bits: float = 0.0,
        bound: str = "elbo",
        num_samples: int = 8,
        gradient: str = "plain",
    ) -> None:
        super().__init__(spec, latent)
        if bound == "iwae" and (beta != 1.0 or free_bits != 0.0):
            raise ValueError("beta and free_bits are of bound=elbo")
        if bound == "elbo" and gradient != "plain":
            raise ValueError("gradient=dreg is of bound=iwae")
        self.beta, self.free_bits = beta, free_bits
        self.bound, self.num_samples, self.gradient = bound, num_samples, gradient
        self.encoder = mlp(spec.dims, hidden, 2 * latent)
        self.latent = GaussianLatent(free_bits_by="dimension", sample_in_eval=True)
        self.decoder = mlp(latent, hidden, 2 * spec.dims)

    def features(self, items: torch.Tensor) -> torch.Tensor:
        """Items (N, ...) to [mu, logvar] (N, 2 * latent)."""
        return self.encoder(self.scaled(items, self.encoder[0]))

    def encode(self, items: torch.Tensor) -> Diagonal:
        return Diagonal(*self.features(items).chunk(2, dim=1))

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        if self.bound == "iwae":
            dreg = self.gradient == "dreg"
            nll = self.iwae_nll(batch.items, self.num_samples, generator, dreg=dreg)
            return {"loss": nll.mean()}
        # What is evaluated is the bound.
        self.latent.free_bits = self.free_bits if self.training else 0.0
        beta = self.beta if self.training else 1.0
        z, kl = self.latent(self.features(batch.items), generator=generator)
        reconstruction, kl = self.reconstruction_nll(batch.items, z).mean(), kl.mean()
        return {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}
