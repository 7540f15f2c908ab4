"""What the Gaussian ops mean, in plain PyTorch. Shapes: mu, logvar (N, ...), kl (N,)."""

import torch


def kl(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None = None,
    prior_logvar: torch.Tensor | None = None,
    free_bits: float = 0.0,
) -> torch.Tensor:
    if prior_mu is None or prior_logvar is None:
        kl = 0.5 * (mu.square() + torch.expm1(logvar) - logvar)
    else:
        delta = logvar - prior_logvar
        scaled = (mu - prior_mu).square() * torch.exp(-prior_logvar)
        kl = 0.5 * (scaled + torch.expm1(delta) - delta)
    if free_bits > 0:
        kl = kl.clamp(min=free_bits)
    return kl.flatten(1).sum(1) if kl.ndim > 1 else kl


def rsample(mu: torch.Tensor, logvar: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """eps (N, ...) or (num_samples, N, ...); the result has its shape."""
    return mu + torch.exp(0.5 * logvar) * eps
