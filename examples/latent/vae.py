"""VAE. Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 3, app. B, C."""

import math

import torch
from torch import nn

import genkern
from examples.model import Batch, DataSpec, GenerativeModel
from genkern.nn import GaussianLatent


class VAE(GenerativeModel):
    r"""Encoder q(z|x) = N(mu, e^logvar), prior N(0, I), decoder p(x|z) of independent levels.

    .. math:: -L(x) = E_{q(z|x)}[-\log p(x \mid z)] + KL(q(z \mid x) \| p(z)), \qquad
              p(x_i \mid z) = \sigma\left(\frac{x_i + d - m_i(z)}{s_i(z)}\right)
                            - \sigma\left(\frac{x_i - d - m_i(z)}{s_i(z)}\right)

    The decoder is a logistic distribution of mean m and scale s, cut into the levels (d is half
    the distance of two); the outer levels take the tails. It sums to 1 over the levels, so that
    -L bounds the bits per dimension; with two levels it is the paper's Bernoulli (app. C.1).

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers of encoder and decoder.
        latent: dimensions of z.
        beta: weight of the KL in training (1: the ELBO).
    """

    def __init__(
        self, spec: DataSpec, *, hidden: int = 256, latent: int = 8, beta: float = 1.0
    ) -> None:
        super().__init__(spec)
        self.beta = beta
        self.num_latent = latent
        self.encoder = nn.Sequential(
            nn.Linear(spec.dims, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * latent),
        )
        self.latent = GaussianLatent()
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * spec.dims),
        )

    def encode(self, items: torch.Tensor) -> torch.Tensor:
        """Items (N, ...) to [mu, logvar] (N, 2 * latent)."""
        return self.encoder(self.spec.scale(items, self.encoder[0].weight).flatten(1))

    def reconstruction_nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(x|z), nats per item: z (N, latent) to (N,), or (K, N, latent) to (K, N)."""
        mean, log_scale = self.decode(z)
        return genkern.discretized_logistic_nll(
            mean, log_scale, items.flatten(1), levels=self.spec.levels
        )

    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-scale (..., dims), data in [-1, 1]; scales from e^-7 to e^7."""
        mean, log_scale = self.decoder(z).chunk(2, dim=-1)
        if mean.dtype in (torch.bfloat16, torch.float16):
            mean, log_scale = mean.float(), log_scale.float()
        return mean, log_scale.clamp(-7.0, 7.0)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        # In eval mode the layer returns the mean; the bound is over samples there too.
        z, kl = self.latent.train()(self.encode(batch.items), generator=generator)
        reconstruction = self.reconstruction_nll(batch.items, z).mean()
        kl = kl.mean()
        beta = self.beta if self.training else 1.0  # what is evaluated is the bound
        return {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}

    def iwae_nll(
        self, items: torch.Tensor, num_samples: int, generator: torch.Generator
    ) -> torch.Tensor:
        r"""A tighter bound of -log p(x) (N,), nats: -log 1/K sum_k p(x, z_k) / q(z_k | x).

        Source: Burda et al. 2016, "Importance weighted autoencoders", eq. 8.
        """
        mu, logvar = self.encode(items).chunk(2, dim=1)
        eps = torch.randn(num_samples, *mu.shape, generator=generator, device=mu.device)
        eps = eps.to(mu.dtype)
        z = genkern.gaussian_rsample(mu, logvar, num_samples=num_samples, eps=eps)
        log_ratio = 0.5 * (eps.square() + logvar - z.square()).sum(-1)
        log_weight = log_ratio - self.reconstruction_nll(items, z)
        return math.log(num_samples) - log_weight.logsumexp(0)

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Decoder means, rounded, of z drawn from N(0, temperature^2 I)."""
        weight = self.decoder[0].weight
        z = torch.randn(num_samples, self.num_latent, generator=generator, device=weight.device)
        mean, _ = self.decode(temperature * z.to(weight.dtype))
        return self.spec.unscale(mean).view(num_samples, *self.spec.shape)
