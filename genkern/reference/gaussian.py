"""What the Gaussian ops mean, in plain PyTorch. Shapes: mu, logvar (N, ...), kl (N,)."""

import torch


def _expm1(x: torch.Tensor) -> torch.Tensor:
    if not torch.jit.is_tracing():
        return torch.expm1(x)
    t = torch.tanh(0.5 * x)  # traced programs can be exported to ONNX, but for expm1
    return torch.where(x.abs() < 0.5, 2.0 * t / (1.0 - t), torch.exp(x) - 1.0)


def _expm1_minus_x(x: torch.Tensor) -> torch.Tensor:
    """e^x - 1 - x; the clamp makes the value at +inf its limit, +inf, and not inf - inf."""
    return _expm1(x) - x.clamp(max=torch.finfo(x.dtype).max)


def kl(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None = None,
    prior_logvar: torch.Tensor | None = None,
    free_bits: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    if prior_mu is None or prior_logvar is None:
        kl = 0.5 * (mu.square() + _expm1_minus_x(logvar))
    else:
        delta = logvar - prior_logvar
        scaled = (mu - prior_mu) * torch.exp(-0.5 * prior_logvar)
        kl = 0.5 * (scaled.square() + _expm1_minus_x(delta))
    if isinstance(free_bits, torch.Tensor):  # whose value is not looked at
        kl = torch.where(free_bits > 0, kl.clamp(min=free_bits.to(kl.dtype)), kl)
    elif free_bits > 0:
        kl = kl.clamp(min=free_bits)
    return kl.flatten(1).sum(1) if kl.ndim > 1 else kl


def rsample(mu: torch.Tensor, logvar: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """eps (N, ...) or (num_samples, N, ...); the result has its shape."""
    return mu + torch.exp(0.5 * logvar) * eps
