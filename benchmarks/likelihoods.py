"""The likelihoods of decoders against their formulas as PyTorch code.

Work of an element, an elementary function counted as one FLOP: Bernoulli 6 forward and 6 backward,
Gaussian 7 and 9, discretized logistic 25 and 30. Compulsory traffic: forward reads every tensor,
backward reads them again and writes the gradients.
"""

import math

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import likelihoods as reference


def _target(N: int, D: int) -> torch.Tensor:
    return torch.rand(N, D, generator=torch.Generator().manual_seed(3))


def bernoulli_case(N: int, D: int, **rest) -> Case:
    target = _target(N, D)
    of = lambda t: target.to(t.device, t.dtype)  # noqa: E731
    elements = float(N * D)
    return Case(
        family="likelihoods",
        op="bernoulli_nll",
        shape=f"{N}x{D}",
        inputs=lambda: {"logits": 3 * torch.randn(N, D)},
        genkern=lambda a: genkern.bernoulli_nll(a, of(a)),
        eager=lambda a: F.binary_cross_entropy_with_logits(a, of(a), reduction="none").sum(1),
        reference=lambda a: reference.bernoulli(a, of(a), False).sum(1),
        outputs=("nats",),
        flops=(6 * elements, 6 * elements),
        elements=(2 * elements, 3 * elements),
        terms={"nats": D},
        **rest,
    )


def continuous_case(N: int, D: int, **rest) -> Case:
    target = _target(N, D)
    of = lambda t: target.to(t.device, t.dtype)  # noqa: E731
    elements = float(N * D)

    def eager(logits):
        """The usual code: the normaliser's own formula, a series where the probability is 1/2."""
        p = torch.sigmoid(logits)
        safe = torch.where((p - 0.5).abs() < 1e-2, 0.4, p)
        log_c = torch.log((2 * torch.atanh(1 - 2 * safe) / (1 - 2 * safe)).abs())
        d2 = (p - 0.5).square()
        log_c = torch.where((p - 0.5).abs() < 1e-2, math.log(2) + 4 / 3 * d2, log_c)
        bce = F.binary_cross_entropy_with_logits(logits, of(logits), reduction="none")
        return (bce - log_c).sum(1)

    return Case(
        family="likelihoods",
        op="bernoulli_nll",
        shape=f"{N}x{D} continuous",
        inputs=lambda: {"logits": 2 * torch.randn(N, D)},
        genkern=lambda a: genkern.bernoulli_nll(a, of(a), continuous=True),
        eager=eager,
        reference=lambda a: reference.bernoulli(a, of(a), True).sum(1),
        outputs=("nats",),
        flops=(12 * elements, 12 * elements),
        elements=(2 * elements, 3 * elements),
        terms={"nats": D},
        slack={"eager": 1000.0, "compile": 1000.0},  # 1 - 2 p cancels
        **rest,
    )


def gaussian_case(N: int, D: int, shared: bool = False, **rest) -> Case:
    target = torch.randn(N, D, generator=torch.Generator().manual_seed(3))
    of = lambda t: target.to(t.device, t.dtype)  # noqa: E731
    elements = float(N * D)

    def eager(mean, logvar):
        terms = (of(mean) - mean) ** 2 * torch.exp(-logvar) + logvar + math.log(2 * math.pi)
        return 0.5 * terms.sum(1)

    return Case(
        family="likelihoods",
        op="gaussian_nll",
        shape=f"{N}x{D}" + (" shared" if shared else ""),
        inputs=lambda: {
            "mean": torch.randn(N, D),
            "logvar": torch.randn(1) if shared else torch.randn(N, D),
        },
        genkern=lambda m, s: genkern.gaussian_nll(m, s, of(m)),
        eager=eager,
        reference=lambda m, s: reference.gaussian(m, s, of(m)).sum(1),
        outputs=("nats",),
        flops=(7 * elements, 9 * elements),
        elements=((2 if shared else 3) * elements, (3 if shared else 5) * elements),
        terms={"nats": D, "d_logvar": N * D if shared else 1},
        **rest,
    )


def logistic_case(N: int, D: int, **rest) -> Case:
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, 256, (N, D), generator=generator, dtype=torch.uint8)
    of = lambda t: target.to(t.device)  # noqa: E731
    elements = float(N * D)

    def eager(mean, log_scale):
        """As a careful author writes it: three log-sigmoids, the ends by `where`."""
        v = of(mean)
        inverse = torch.exp(-log_scale.clamp(min=-7))
        width = 2.0 / 255 * inverse
        centred = (v.to(mean.dtype) * (2.0 / 255) - 1.0 - mean) * inverse
        upper, lower = centred + 0.5 * width, centred - 0.5 * width
        log_p = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        log_p = torch.where(v == 0, F.logsigmoid(upper), log_p)
        return -torch.where(v == 255, F.logsigmoid(-lower), log_p).sum(1)

    return Case(
        family="likelihoods",
        op="discretized_logistic_nll",
        shape=f"{N}x{D}",
        inputs=lambda: {
            "mean": 0.5 * torch.randn(N, D),
            "log_scale": 0.6 * torch.randn(N, D) - 2.5,
        },
        genkern=lambda m, s: genkern.discretized_logistic_nll(m, s, of(m)),
        eager=eager,
        reference=lambda m, s: reference.discretized_logistic(m, s, of(m), 256).sum(1),
        outputs=("nats",),
        flops=(25 * elements, 30 * elements),
        elements=(2.25 * elements, 4 * elements),
        terms={"nats": D},
        slack={"eager": 50.0, "compile": 50.0},  # distances are rounded before they are scaled
        **rest,
    )


def cases() -> list[Case]:
    at_least = lambda ratio: {"forward_backward": Target(ratio)}  # noqa: E731
    return [
        bernoulli_case(512, 784, targets=at_least(3), quick=True),
        continuous_case(512, 784, targets=at_least(3)),
        gaussian_case(512, 784, targets=at_least(3), quick=True),
        gaussian_case(512, 784, shared=True, targets=at_least(3)),
        logistic_case(512, 784, targets=at_least(6), quick=True),
        bernoulli_case(1, 13),
        gaussian_case(2, 8, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, bernoulli_case(n, 784)) for n in (8, 32, 128, 512, 2048)],
        "channels": [(d, gaussian_case(64, d)) for d in (16, 256, 4096, 16_384)],
    }
