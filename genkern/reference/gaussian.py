"""What the Gaussian ops mean, in plain PyTorch. Shapes: mu (N, ...), kl (N,); the scale and the
prior have the shape of mu or broadcast to it."""

import math

import torch
from torch.nn import functional as F

SCALES = ("logvar", "log_std", "softplus")
_LOG_2_PI = math.log(2.0 * math.pi)


def to_logvar(value: torch.Tensor, scale: str) -> torch.Tensor:
    """The logarithm of the variance: l, 2 log sigma, or 2 log(log(1 + e^s))."""
    if scale == "logvar":
        return value
    if scale == "log_std":
        return 2.0 * value
    # log(1 + e^s) = e^s (1 - e^s / 2 ...): below -40 its logarithm is s, to 2e-18.
    log_std = torch.log(-F.logsigmoid(-value.clamp(min=-40.0)))
    return 2.0 * torch.where(value < -40.0, value, log_std)


def _expm1(x: torch.Tensor) -> torch.Tensor:
    if not torch.jit.is_tracing():
        return torch.expm1(x)
    t = torch.tanh(0.5 * x)  # traced programs can be exported to ONNX, but for expm1
    return torch.where(x.abs() < 0.5, 2.0 * t / (1.0 - t), torch.exp(x) - 1.0)


def _expm1_minus_x(x: torch.Tensor) -> torch.Tensor:
    """e^x - 1 - x; the clamp makes the value at +inf its limit, +inf, and not inf - inf."""
    return _expm1(x) - x.clamp(max=torch.finfo(x.dtype).max)


def sum_rows(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def kl_elements(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None = None,
    prior_logvar: torch.Tensor | None = None,
    free_bits: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    """max(KL, free_bits) of each element of mu."""
    if prior_mu is None or prior_logvar is None:
        kl = 0.5 * (mu.square() + _expm1_minus_x(logvar))
    else:
        delta = logvar - prior_logvar
        scaled = (mu - prior_mu) * torch.exp(-0.5 * prior_logvar)
        kl = 0.5 * (scaled.square() + _expm1_minus_x(delta))
    if isinstance(free_bits, torch.Tensor):  # whose value is not looked at
        return torch.where(free_bits > 0, kl.clamp(min=free_bits.to(kl.dtype)), kl)
    return kl.clamp(min=free_bits) if free_bits > 0 else kl


def kl(mu, logvar, prior_mu=None, prior_logvar=None, free_bits=0.0) -> torch.Tensor:
    return sum_rows(kl_elements(mu, logvar, prior_mu, prior_logvar, free_bits))


def floor_groups(kl: torch.Tensor, free_bits: float | torch.Tensor, by: str) -> torch.Tensor:
    """Free bits of rows, max(KL_n, f), or of dimensions, max(mean_n KL_nj, f). Where a group is
    below its floor, its elements share it evenly, so that every reduction agrees."""
    if by == "dimension":  # kl: elements
        return torch.where(kl.mean(0, keepdim=True) < free_bits, free_bits, kl)
    if by == "row":  # kl: rows or elements
        rows = sum_rows(kl)
        each = free_bits * (rows.numel() / max(1, kl.numel()))
        return torch.where(rows.view(-1, *[1] * (kl.ndim - 1)) < free_bits, each, kl)
    return kl


def rsample(mu: torch.Tensor, logvar: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """eps (N, ...) or (num_samples, N, ...); the result has its shape."""
    return mu + torch.exp(0.5 * logvar) * eps


def log_prob(mu: torch.Tensor, logvar: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """log q of z = mu + e^{logvar / 2} eps: (N,) or (num_samples, N)."""
    elements = -0.5 * (eps.square() + logvar + _LOG_2_PI)
    return elements.sum(tuple(range(1 - mu.ndim, 0))) if mu.ndim > 1 else elements


def forward(mu, logvar, prior_mu, prior_logvar, eps, free_bits, scale, elements):
    """z, KL of elements or rows, and log_prob; without noise the KL alone."""
    logvar = to_logvar(logvar, scale)
    if prior_logvar is not None:
        prior_logvar = to_logvar(prior_logvar, scale)
    formula = kl_elements if elements else kl
    divergence = formula(mu, logvar, prior_mu, prior_logvar, free_bits)
    if eps is None:
        return None, divergence, None
    return rsample(mu, logvar, eps), divergence, log_prob(mu, logvar, eps)
