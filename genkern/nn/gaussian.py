"""The latent layer of a VAE."""

import torch
from torch import nn

from genkern import checks
from genkern.ops.gaussian import FreeBits, gaussian_kl_rsample


class GaussianLatent(nn.Module):
    """Splits features into mu and logvar; returns a sample and the KL to N(0, I).

    Args:
        free_bits: lower bound of the KL of each latent dimension, nats; a schedule may assign
            another number or a 0-dim tensor to the attribute.

    Shape: (N, 2 D, ...), [mu, logvar] along dimension 1, to z (N, D, ...) and kl (N,), nats.
    In eval mode z is the mean, mu.

    Raises:
        TypeError: the features are no dense floating-point tensor, or ``free_bits`` no number.
        ValueError: the features have another shape or an odd number of channels.

    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4 and app. B.
    """

    def __init__(self, *, free_bits: FreeBits = 0.0) -> None:
        super().__init__()
        if isinstance(free_bits, torch.Tensor):
            checks.annealed("GaussianLatent", "free_bits", free_bits, free_bits, minimum=0)
        else:
            checks.check_number("GaussianLatent", "free_bits", free_bits, minimum=0)
        self.free_bits = free_bits

    def forward(
        self,
        features: torch.Tensor,
        eps: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        checks.check_tensor("GaussianLatent", "features", features)
        if features.ndim < 2 or features.shape[1] % 2:
            raise ValueError(
                "GaussianLatent: features must have shape (N, 2 D, ...), mu and logvar along "
                f"dimension 1; got {tuple(features.shape)}"
            )
        mu, logvar = features.chunk(2, dim=1)
        if not self.training and eps is None:
            eps = torch.zeros_like(mu)
        return gaussian_kl_rsample(
            mu, logvar, free_bits=self.free_bits, eps=eps, generator=generator
        )

    def extra_repr(self) -> str:
        return f"free_bits={self.free_bits}"
