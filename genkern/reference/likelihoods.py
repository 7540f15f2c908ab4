"""What the likelihoods mean, in plain PyTorch: nats of each element, then a sum over each item.

Shapes: location and scale (N, ...) or (S, N, ...), target and mask (N, ...); the sums (N,) or
(S, N).
"""

import math

import torch

from genkern import spec
from genkern.reference.discretized_logistic_mixture import MIN_LOG_SCALE, log_probability

# log(sinh(y / 2) / (y / 2)) = sum over n of B_2n / (2n (2n)!) y^2n, Bernoulli's numbers B.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)
SERIES = tuple(b / (2 * n * math.factorial(2 * n)) for n, b in enumerate(_BERNOULLI, 1))


def _log_mean_decay(y: torch.Tensor) -> torch.Tensor:
    """log((1 - e^-y) / y) for y >= 0, by its Taylor series below 1."""
    near = y < 1
    far = torch.where(near, 1.0, y)
    small = torch.where(near, y, 0.0)
    series = torch.zeros_like(y)
    for coefficient in reversed(SERIES):
        series = (series + coefficient) * small.square()
    return torch.where(near, series - 0.5 * small, torch.log1p(-torch.exp(-far)) - torch.log(far))


def bernoulli(logits: torch.Tensor, target: torch.Tensor, continuous: bool) -> torch.Tensor:
    """log(1 + e^a) - x a, and for the continuous Bernoulli log((e^a - 1) / a) - x a."""
    positive = logits > 0
    size = torch.where(positive, logits, -logits)  # whose slope at 0 is -1, that of this side
    wrong = torch.where(positive, 1.0 - target, target)
    if continuous:
        return wrong * size + _log_mean_decay(size)
    return wrong * size + torch.log1p(torch.exp(-size))


def gaussian(mean: torch.Tensor, logvar: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    scaled = (target - mean) * torch.exp(-0.5 * logvar)
    return 0.5 * (scaled.square() + logvar + math.log(2 * math.pi))


def discretized_logistic(
    mean: torch.Tensor, log_scale: torch.Tensor, target: torch.Tensor, levels: int
) -> torch.Tensor:
    """NaN for a target outside of 0 .. levels - 1."""
    target = target.to(torch.int64)  # 256 levels are one more than uint8 compares with
    log_p = log_probability(mean, log_scale.clamp(min=MIN_LOG_SCALE), target, levels)
    return torch.where((target >= 0) & (target < levels), -log_p, torch.nan)


def per_item(
    function, location: torch.Tensor, scale: torch.Tensor | None, target: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Sums of ``function(location, scale, target)`` over each item; nothing leaks past the mask."""
    dtype, batch = location.dtype, location.ndim - target.ndim + 1
    if dtype in spec.HALF:  # in single precision, rounded once
        location, scale = location.float(), None if scale is None else scale.float()
        target = target.float() if target.dtype in spec.HALF else target
    if mask is not None:
        location, target = torch.where(mask, location, 0.0), torch.where(mask, target, 0)
        scale = None if scale is None else torch.where(mask, scale, 0.0)
    nats = function(location, scale, target)
    if mask is not None:
        nats = torch.where(mask, nats, 0.0)
    return (nats.flatten(batch).sum(batch) if nats.ndim > batch else nats).to(dtype)


def optimal_logvar(
    mean: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """log of the mean squared error: the shared logvar of the smallest Gaussian nll."""
    if mask is None:
        return torch.log((target - mean).square().mean())
    error = torch.where(mask, target, 0.0) - torch.where(mask, mean, 0.0)
    return torch.log(error.square().sum() / mask.expand_as(error).sum())
