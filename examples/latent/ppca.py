"""Probabilistic PCA as a VAE: all is linear and Gaussian, and log p(x) known."""

import math

import torch
from torch import nn

import genkern
from examples.latent.base import LatentModel
from examples.latent.posteriors import Diagonal
from examples.model import Batch, DataSpec


class PPCA(LatentModel):
    r"""Linear encoder, and x = W z + b + noise of one variance: a VAE whose gap closes.

    .. math:: p(x) = N(x; b, W W^T + \sigma^2 I), \quad
              p(z \mid x) = N(z; M^{-1} W^T (x - b), \sigma^2 M^{-1}), \quad M = W^T W + \sigma^2 I

    Where the columns of W are orthogonal, as at the optimum, the posterior is a Gaussian without
    correlations, which the encoder reaches. Levels are given uniform noise of one level, and nats
    are of the density in levels, which bounds those of the levels (Theis et al. 2016, "A note on
    the evaluation of generative models", sec. 3.1).

    Args:
        spec: items of integer levels.
        latent: dimensions of z.

    Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", sec. 3; Lucas et
    al. 2019, "Don't blame the ELBO! A linear VAE perspective on posterior collapse", sec. 4.
    """

    def __init__(self, spec: DataSpec, *, latent: int = 8) -> None:
        super().__init__(spec, latent)
        self.encoder = nn.Linear(spec.dims, latent)
        # Adam moves each weight by its learning rate, and so mu, a sum over pixels, by that times
        # their number, 30 on 3 x 32 x 32, unless the input is made short.
        self.input_scale = spec.dims**-0.5
        with torch.no_grad():
            self.encoder.weight /= self.input_scale
        self.logvar_z = nn.Parameter(torch.zeros(latent))
        self.linear = nn.Linear(latent, spec.dims)
        self.logvar = nn.Parameter(torch.full((1,), -1.0))  # about that of pixels in [-1, 1]

    def prepare(self, items: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Levels with their noise, scaled to [-1, 1]."""
        noise = torch.rand(items.shape, generator=generator, device=items.device)
        return ((items + noise) * (2.0 / self.spec.levels) - 1.0).to(self.linear.weight.dtype)

    @property
    def log_level(self) -> float:
        """log of the volume of a level, summed over the dimensions."""
        return self.spec.dims * math.log(2.0 / self.spec.levels)

    def encode(self, items: torch.Tensor) -> Diagonal:
        """Of what `prepare` returns."""
        mu = self.encoder(self.input_scale * items.flatten(1))
        return Diagonal(mu, self.logvar_z.to(mu.dtype).expand_as(mu))

    def reconstruction_nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        mean = self.linear(z)
        target, logvar = items.flatten(1).to(mean.dtype), self.logvar.to(mean.dtype)
        return genkern.gaussian_nll(mean, logvar, target) - self.log_level

    def bound(
        self,
        items: torch.Tensor,
        generator: torch.Generator | None = None,
        eps: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction (S, N) of samples by ``eps`` (S, N, latent), or one, and the KL (N,)."""
        q = self.encode(items)
        z, kl = genkern.gaussian_kl_rsample(
            q.mu, q.logvar, eps=eps, generator=generator, num_samples=1 if eps is None else len(eps)
        )
        return self.reconstruction_nll(items, z), kl

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        parts = self.bound(self.prepare(batch.items, generator), generator)
        reconstruction, kl = (part.mean() for part in parts)
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def exact_nll(self, items: torch.Tensor) -> torch.Tensor:
        """-log p(x) (N,), nats, float64: of what `prepare` returns, by the covariance."""
        weight, bias = self.linear.weight.double(), self.linear.bias.double()
        identity = torch.eye(len(bias), dtype=torch.float64, device=bias.device)
        covariance = weight @ weight.T + self.logvar.double().exp() * identity
        normal = torch.distributions.MultivariateNormal(bias, covariance)
        return -normal.log_prob(items.flatten(1).double()) - self.log_level

    @torch.no_grad()
    def solve(self, items: torch.Tensor) -> None:
        """Takes the parameters of the largest likelihood of what `prepare` returns (eq. 14, 15)."""
        x = items.flatten(1).double()
        values, vectors = torch.linalg.eigh(x.T.cov(correction=0))
        rest, kept = values[: -self.num_latent], values[-self.num_latent :]
        variance = rest.mean()
        weight = vectors[:, -self.num_latent :] * (kept - variance).sqrt()
        encoder = weight.T / kept[:, None]  # M is diagonal
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(x.mean(0))
        self.logvar.copy_(variance.log())
        self.encoder.weight.copy_(encoder / self.input_scale)
        self.encoder.bias.copy_(-encoder @ x.mean(0))
        self.logvar_z.copy_((variance / kept).log())

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        z = temperature * self.normal.sample(torch.Size([num_samples]), generator)
        levels = ((self.linear(z) + 1.0) * (self.spec.levels / 2.0)).floor()
        levels = levels.clamp(0, self.spec.levels - 1).to(torch.uint8)
        return levels.view(num_samples, *self.spec.shape)
