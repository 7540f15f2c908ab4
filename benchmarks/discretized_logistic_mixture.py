"""The discretized logistic mixture against the loss of PixelCNN++ as PyTorch code.

`eager` is the usual loss: float targets in [-1, 1], a difference of sigmoids, and where that is
below 1e-5 a density in its place. The gate compares at log-scales where the two agree. Work, an
elementary function counted as one FLOP: of a component and colour forward 5 functions and 25 sums
and products, backward these again and 30 more. Compulsory traffic: forward reads the parameters,
backward reads them and writes their gradients. Equivalent library call: none.
"""

import math

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import discretized_logistic_mixture as reference


def log_softmax(x):
    m = x.max(-1, keepdim=True).values
    return x - m - torch.log(torch.sum(torch.exp(x - m), -1, keepdim=True))


def log_sum_exp(x):
    m = x.max(-1).values
    return m + torch.log(torch.sum(torch.exp(x - m.unsqueeze(-1)), -1))


def eager_nll(params, target, levels=256):
    """Channels last, masks as numbers, every step a tensor: as ports of the first code have it."""
    x = (2 * target.to(params.dtype) / (levels - 1) - 1).permute(0, 2, 3, 1)
    last = params.permute(0, 2, 3, 1)
    K = last.shape[-1] // 10
    logits, rest = last[..., :K], last[..., K:].reshape(*x.shape, 3 * K)
    means, log_scales = rest[..., :K], torch.clamp(rest[..., K : 2 * K], min=-7.0)
    coefficients = torch.tanh(rest[..., 2 * K :])
    x = x.unsqueeze(-1) + torch.zeros_like(means)
    green = means[..., 1, :] + coefficients[..., 0, :] * x[..., 0, :]
    blue = means[..., 2, :] + coefficients[..., 1, :] * x[..., 0, :]
    blue = blue + coefficients[..., 2, :] * x[..., 1, :]
    means = torch.stack([means[..., 0, :], green, blue], 3)
    centred, inverse = x - means, torch.exp(-log_scales)
    plus = inverse * (centred + 1 / (levels - 1))
    minus = inverse * (centred - 1 / (levels - 1))
    delta = torch.sigmoid(plus) - torch.sigmoid(minus)
    log_plus, log_minus = plus - F.softplus(plus), -F.softplus(minus)
    middle = inverse * centred
    density = middle - log_scales - 2 * F.softplus(middle) - math.log((levels - 1) / 2)
    is_wide, is_last, is_first = ((c).to(x.dtype) for c in (delta > 1e-5, x > 0.999, x < -0.999))
    inner = is_wide * torch.log(delta.clamp(min=1e-12)) + (1 - is_wide) * density
    log_p = is_last * log_minus + (1 - is_last) * inner
    log_p = is_first * log_plus + (1 - is_first) * log_p
    joint = torch.sum(log_p, 3) + log_softmax(logits)
    return -torch.sum(log_sum_exp(joint), (1, 2))


def _shaped(N: int, K: int, side: int):
    """Parameters as of a trained model: means over the range, log-scales around -2.5."""

    def inputs():
        params = torch.randn(N, 10, K, side, side) * 0.5
        params[:, 2::3] = params[:, 2::3] * 0.6 - 2.5
        return {"params": params.flatten(1, 2)}

    return inputs


def nll_case(N: int, K: int, side: int, **rest) -> Case:
    generator = torch.Generator().manual_seed(3)
    # Between the edges: there the usual loss takes 0.999 for the last level.
    target = torch.randint(1, 255, (N, 3, side, side), generator=generator, dtype=torch.uint8)
    of = lambda params: target.to(params.device)  # noqa: E731
    components, pixels = N * K * side * side, side * side
    return Case(
        family="discretized_logistic_mixture",
        op="discretized_logistic_mixture_nll",
        shape=f"N{N} {side}x{side} RGB, {K} mixtures",
        inputs=_shaped(N, K, side),
        genkern=lambda p: genkern.discretized_logistic_mixture_nll(p, of(p)),
        eager=lambda p: eager_nll(p, of(p)),
        reference=lambda p: reference.nll(p, of(p), 256),
        outputs=("nll",),
        flops=(90.0 * components, 180.0 * components),
        elements=(10.0 * components, 20.0 * components),
        terms={"nll": 3 * pixels, "d_params": 3 * K},
        # A difference of sigmoids: its gradients are wrong from the second or third digit on.
        slack={"eager": 200.0, "compile": 200.0},
        **rest,
    )


def cases() -> list[Case]:
    return [
        nll_case(16, 10, 32, targets={"forward_backward": Target(8)}, quick=True, headline=True),
        nll_case(4, 5, 13),
        nll_case(1, 1, 2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, nll_case(n, 10, 32)) for n in (1, 2, 4, 8, 16, 32)],
        "channels": [(10 * k, nll_case(16, k, 16)) for k in (1, 2, 5, 10, 20)],
    }
