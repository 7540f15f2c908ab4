"""Adversarial autoencoder. Source: Makhzani et al. 2015, "Adversarial autoencoders", sec. 2."""

import torch
from torch import nn

from examples.latent.autoencoder import Coder
from examples.latent.base import mlp
from examples.model import Batch, DataSpec
from genkern.nn import GANLoss


class AdversarialAutoencoder(Coder):
    r"""An autoencoder whose codes a discriminator cannot tell from N(0, I).

    Three turns a step: encoder and decoder minimise |x - g(f(x))|^2, the discriminator tells draws
    of N(0, I) from codes, and the encoder, as the generator of codes, makes it take them for
    draws. The encoder is deterministic.

    Args:
        spec: images of integer levels.
        form, hidden, latent: as of the autoencoder.
    """

    def __init__(
        self, spec: DataSpec, *, form: str = "deep", hidden: int = 256, latent: int = 8
    ) -> None:
        super().__init__(spec, form, hidden, latent)
        self.discriminator = mlp(latent, hidden, 1)
        self.criterion = GANLoss()

    @property
    def players(self) -> dict[str, nn.Module]:
        return {
            "autoencoder": nn.ModuleList([self.encoder, self.decoder]),
            "discriminator": self.discriminator,
            "generator": self.encoder,
        }

    @property
    def schedule(self) -> tuple[str, ...]:
        return ("autoencoder", "discriminator", "generator")

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "autoencoder"
    ) -> dict[str, torch.Tensor]:
        with torch.set_grad_enabled(player != "discriminator" and torch.is_grad_enabled()):
            codes = self.encode(batch.items)
        if player == "autoencoder":
            return {"loss": self.half_squares(batch.items, codes)}
        of_codes = self.discriminator(codes)
        if player == "generator":
            return {"loss": self.criterion.generator(of_codes)}
        of_prior = self.discriminator(self.normal(len(batch), generator))
        loss = self.criterion.discriminator(of_prior, of_codes)
        return {"loss": loss, "D(z)": of_prior.mean(), "D(f(x))": of_codes.mean()}

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Decoded z of N(0, temperature^2 I)."""
        return self.levels(self.decode(temperature * self.normal(num_samples, generator)))
