"""Distributions of z, as `genkern.metrics` asks for them, made of genkern's ops."""

import torch
from torch import nn

import genkern

Draw = tuple[torch.Tensor, torch.Tensor]


def log_normal(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor | float) -> torch.Tensor:
    """log N(z; mu, e^logvar): z (N, D) or (S, N, D), mu (N, D), to (N,) or (S, N)."""
    return -genkern.gaussian_nll(z, logvar, mu)


class Diagonal:
    """N(mu, e^logvar) of N items; mu and logvar (N, D)."""

    def __init__(self, mu: torch.Tensor, logvar: torch.Tensor) -> None:
        self.mu, self.logvar = mu, logvar

    def rsample_and_log_prob(
        self, shape: torch.Size, generator: torch.Generator | None = None
    ) -> Draw:
        """z (S, N, D) and log q(z) (S, N), for shape (S,)."""
        (count,) = shape
        return genkern.gaussian_rsample_and_log_prob(
            self.mu, self.logvar, num_samples=count, generator=generator
        )

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        return log_normal(z, self.mu, self.logvar)

    def detached(self) -> "Diagonal":
        """The same distribution, to whose parameters no gradient flows."""
        return Diagonal(self.mu.detach(), self.logvar.detach())


class StandardNormal(nn.Module):
    """N(0, I) of D dimensions, on the device and in the dtype of the model that it is a part of."""

    zeros: torch.Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(dims), persistent=False)

    def sample(self, shape: torch.Size, generator: torch.Generator | None = None) -> torch.Tensor:
        """z (*shape, D)."""
        like = self.zeros
        noise = torch.randn(*shape, len(like), generator=generator, device=like.device)
        return noise.to(like.dtype)

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        return log_normal(z, self.zeros.to(z.dtype).expand(z.shape[-2:]), 0.0)


class MixturePrior(nn.Module):
    r"""A mixture of M Gaussians: :math:`p(z) = \sum_m \pi_m N(z; \mu_m, e^{l_m})`."""

    def __init__(self, dims: int, components: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.randn(components, dims))
        self.logvar = nn.Parameter(torch.zeros(components, dims))
        self.logits = nn.Parameter(torch.zeros(components))

    def sample(self, shape: torch.Size, generator: torch.Generator | None = None) -> torch.Tensor:
        count, device = shape.numel(), self.mu.device
        share = self.logits.detach().float().softmax(0)
        which = torch.multinomial(share, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.mu.shape[1], generator=generator, device=device)
        std = (0.5 * self.logvar[which]).exp()
        return (self.mu[which] + std * noise.to(std)).view(*shape, -1)

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        flat = z.flatten(0, -2)
        each = log_normal(
            flat.expand(len(self.mu), *flat.shape).transpose(0, 1), self.mu, self.logvar
        )
        mixed = (each + self.logits.to(z.dtype).log_softmax(0)).logsumexp(1)
        return mixed.view(z.shape[:-1])
