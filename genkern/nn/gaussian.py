"""The latent layer of a VAE."""

import torch
from torch import nn

from genkern.ops.gaussian import gaussian_kl_rsample


class GaussianLatent(nn.Module):
    """Splits features into mu and logvar; returns a sample and the KL to N(0, I).

    Args:
        free_bits: lower bound of the KL of each latent dimension, nats.

    Shape: (N, 2 D, ...), [mu, logvar] along dimension 1, to z (N, D, ...) and kl (N,), nats.
    In eval mode z is the mean, mu.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4 and app. B.
    """

    def __init__(self, *, free_bits: float = 0.0) -> None:
        super().__init__()
        self.free_bits = free_bits

    def forward(
        self,
        features: torch.Tensor,
        *,
        eps: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = features.chunk(2, dim=1)
        if not self.training and eps is None:
            eps = torch.zeros_like(mu)
        return gaussian_kl_rsample(
            mu, logvar, free_bits=self.free_bits, eps=eps, generator=generator
        )

    def extra_repr(self) -> str:
        return f"free_bits={self.free_bits}"
