"""What the ops of the discretized logistic mixture mean, in plain PyTorch.

Shapes: params (N, 10K, H, W) for RGB, (N, 3K, H, W) for grey; target, sample (N, C, H, W).
"""

import math

import torch
import torch.nn.functional as F

from genkern import spec

MIN_LOG_SCALE = -7.0
PARAMETERS = {1: 3, 3: 10}  # of a component, by the number of colours


def unpack(params: torch.Tensor, colours: int) -> tuple[torch.Tensor, ...]:
    """Logits (N, K, H, W); means, log-scales, coefficients (N, C, K, H, W)."""
    logits, *rest = params.unflatten(1, (PARAMETERS[colours], -1)).unbind(1)
    each = len(rest) // colours
    means, log_scales = torch.stack(rest[0::each], 1), torch.stack(rest[1::each], 1)
    coefficients = torch.tanh(torch.stack(rest[2::each], 1)) if colours == 3 else means
    return logits, means, log_scales.clamp(min=MIN_LOG_SCALE), coefficients


def on_the_grid(values: torch.Tensor, levels: int) -> torch.Tensor:
    """Integers 0 .. levels - 1 to [-1, 1]."""
    return (2 * values - (levels - 1)) / (levels - 1)


def shift(means, coefficients, x, c: int) -> torch.Tensor:
    """The mean (N, K, H, W) of colour c, given the colours x (N, C, H, W) before it."""
    mean = means[:, c]
    for i in range(c):  # green takes coefficient 0, blue 1 and 2
        mean = mean + coefficients[:, i + max(0, c - 1)] * x[:, i : i + 1]
    return mean


def log_probability(mean, log_scale, target, levels: int) -> torch.Tensor:
    """log P(target) of one discretized logistic: log of a difference of sigmoids, exactly.

    sigmoid(p) - sigmoid(q) = sigmoid(p) sigmoid(-q) (1 - e^-d), d = p - q.
    """
    centred = on_the_grid(target.to(mean.dtype), levels) - mean
    inverse, half = torch.exp(-log_scale), 1 / (levels - 1)
    above, below = (
        F.logsigmoid(inverse * (centred + half)),
        F.logsigmoid(inverse * (half - centred)),
    )
    width = (2 * half * inverse).clamp(min=1e-12)
    log_width = math.log(2 * half) - log_scale
    inner = above + below + log_width + torch.log(-torch.expm1(-width) / width)
    return torch.where(target == 0, above, torch.where(target == levels - 1, below, inner))


def nll(params: torch.Tensor, target: torch.Tensor, levels: int) -> torch.Tensor:
    """(N,), nats; NaN for an image with a target outside of 0 .. levels - 1."""
    colours = target.shape[1]
    values = params.to(spec.accumulation(params.dtype))
    logits, means, log_scales, coefficients = unpack(values, colours)
    target = target.to(torch.int64)
    valid = ((target >= 0) & (target < levels)).flatten(1).all(1)
    x = on_the_grid(target.to(values.dtype), levels)
    joint = logits
    for c in range(colours):
        mean = shift(means, coefficients, x, c)
        joint = joint + log_probability(mean, log_scales[:, c], target[:, c : c + 1], levels)
    nats = torch.logsumexp(logits, 1) - torch.logsumexp(joint, 1)
    return torch.where(valid, nats.flatten(1).sum(1), torch.nan).to(params.dtype)


def sample(
    params: torch.Tensor, noise: torch.Tensor, levels: int, colours: int, temperature: float
) -> torch.Tensor:
    """Integers (N, C, H, W), int64; noise (N, 1 + C, H, W), uniform: of component and colours."""
    values = params.to(noise.dtype)
    logits, means, log_scales, coefficients = unpack(values, colours)
    largest = logits.amax(1, keepdim=True)
    cumulative = torch.exp((logits - largest) / max(temperature, 1e-30)).cumsum(1)
    chosen = (cumulative[:, :-1] <= noise[:, :1] * cumulative[:, -1:]).sum(1, keepdim=True)
    pick = lambda t: t.gather(2, chosen[:, None].expand(-1, t.shape[1], -1, -1, -1))  # noqa: E731
    means, log_scales, coefficients = pick(means), pick(log_scales), pick(coefficients)
    u = noise[:, 1:].clamp(2.0**-32, 1 - 2.0**-24)
    x = values.new_empty(values.shape[0], 0, *values.shape[2:])
    found = []
    for c in range(colours):
        logistic = torch.log(u[:, c : c + 1]) - torch.log1p(-u[:, c : c + 1])
        spread = temperature * torch.exp(log_scales[:, c]) * logistic
        real = shift(means, coefficients, x, c) + spread
        found.append(((real + 1) * (levels - 1) / 2).clamp(0, levels - 1).add(0.5).floor())
        x = torch.cat([x, on_the_grid(found[-1], levels)], 1)
    return torch.cat(found, 1).to(torch.int64)
