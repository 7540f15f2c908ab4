"""Denoising autoencoder. Source: Vincent et al. 2008, "Extracting and composing robust features
with denoising autoencoders", sec. 2.3; samples: Bengio et al. 2013, "Generalized denoising
auto-encoders as generative models", alg. 1."""

import torch

import genkern
from examples.latent.autoencoder import Coder, single
from examples.model import Batch, DataSpec


class DenoisingAutoencoder(Coder):
    r"""The image from one in which some elements are blank: min E[-log p(x | x')].

    x' is x with each element blank (level 0) with probability ``noise``. p(x | x') is a logistic
    distribution for each element, cut into the levels. In turn, blanking and drawing from p(x | x')
    walk through images that resemble the data; samples are where the walks end.

    Args:
        spec: images of integer levels.
        form, hidden, latent: as of the autoencoder; the code may be wide.
        noise: probability that an element is blank.
        walk: steps from blank images to samples.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        form: str = "deep",
        hidden: int = 256,
        latent: int = 64,
        noise: float = 0.4,
        walk: int = 50,
    ) -> None:
        super().__init__(spec, form, hidden, latent, outputs=2)
        self.noise, self.walk = noise, walk

    def corrupt(self, items: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        chance = torch.rand(items.shape, generator=generator, device=items.device)
        return items.masked_fill(chance < self.noise, 0)

    def denoise(self, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-scale of p(x | x') (N, dims), data in [-1, 1]; scales from e^-7 to e^7."""
        mean, log_scale = single(self.decode(self.encode(items))).chunk(2, dim=1)
        return mean, log_scale.clamp(-7.0, 7.0)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        mean, log_scale = self.denoise(self.corrupt(batch.items, generator))
        nats = genkern.discretized_logistic_nll(
            mean, log_scale, batch.items.flatten(1), levels=self.spec.levels, reduction="mean"
        )
        return {"loss": nats}

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """The mean, rounded, where walks from blank images end; scales times ``temperature``."""
        device = next(self.parameters()).device
        items = torch.zeros(num_samples, *self.spec.shape, dtype=torch.uint8, device=device)
        for _ in range(self.walk):
            mean, log_scale = self.denoise(self.corrupt(items, generator))
            chance = torch.rand(mean.shape, generator=generator, device=device)
            # Rounded to a level, a logistic variable has the probabilities of the loss.
            items = self.levels(mean + temperature * log_scale.exp() * chance.logit(1e-6))
        return self.levels(mean)
