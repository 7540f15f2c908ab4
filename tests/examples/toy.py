"""A class-conditional model, as one short file: the VAE, with its label one-hot beside z."""

import torch
import torch.nn.functional as F
from torch import nn

from examples.entry import Entry
from examples.latent.vae import VAE
from examples.model import Batch, DataSpec
from examples.options import Value


class ConditionalVAE(VAE):
    """p(x | z, y): the decoder sees the class.

    Source: Sohn et al. 2015, "Learning structured output representation", sec. 3.
    """

    def __init__(self, spec: DataSpec, *, hidden: int = 32, latent: int = 4) -> None:
        super().__init__(spec, hidden=hidden, latent=latent)
        self.decoder[0] = nn.Linear(latent + spec.classes, hidden)

    def beside(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, F.one_hot(labels, self.spec.classes).to(z.dtype)], dim=-1)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        z, kl = self.latent(self.features(batch.items), generator=generator)
        nll = self.reconstruction_nll(batch.items, self.beside(z, batch.labels))
        return {"loss": (nll + kl).mean()}

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        z = temperature * torch.randn(num_samples, self.num_latent, generator=generator)
        mean, _ = self.decode(self.beside(z, labels))
        return self.spec.unscale(mean).view(num_samples, *self.spec.shape)


SMALL: dict[str, Value] = {"hidden": 32, "latent": 4}
ENTRY = Entry(
    "tests.examples.toy:ConditionalVAE", 300, 5e-3, 64, small=SMALL, needs="levels", labels=True
)
