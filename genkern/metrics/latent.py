"""log p(x) of models with a latent variable, what the bound loses, and which dimensions live."""

import math
from dataclasses import dataclass

import torch

from genkern import checks
from genkern.metrics.annealing import AIS, annealed
from genkern.metrics.estimate import Estimate, Weights
from genkern.metrics.protocol import (
    LatentModel,
    check_count,
    check_generator,
    check_model,
    draw,
    log_joint,
    seeded,
)

METHODS = ("elbo", "iwae", "ais")
CHUNK = 2**15


def log_likelihood(
    model: LatentModel,
    x: torch.Tensor,
    *,
    num_samples: int,
    method: str = "iwae",
    ais: AIS | None = None,
    chunk_size: int = CHUNK,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Estimates log p(x) of a model with a latent variable from below, with an interval; nats.

    .. math:: \log \frac1K \sum_k w_k, \quad E[w_k] = p(x)

    "iwae": :math:`w_k = p(x, z_k) / q(z_k \mid x)` of samples of the encoder, equivalent to
    ``(model.log_joint(x, z) - q.log_prob(z)).logsumexp(0) - math.log(K)``, in chunks. "ais":
    weights of chains that go from a distribution that is known to the posterior, by moves of HMC
    along :math:`p_0(z)^{1 - \beta_t} p(x, z)^{\beta_t}`:

    .. math:: \log w = \sum_t (\beta_t - \beta_{t-1}) \, [\log p(x, z_t) - \log p_0(z_t)]

    "elbo": the mean of the log-weights of "iwae". By Jensen's inequality the expectation of all
    three is at most log p(x); of the first two it rises to it with K.

    Args:
        model: with ``encode`` and ``log_joint``, see `LatentModel`; it runs in the mode it is in,
            so that dropout is to be turned off by ``model.eval()``.
        x: (N, ...), items as the model takes them.
        num_samples: K, samples of each item, or chains of "ais".
        method: "elbo", "iwae" or "ais".
        ais: temperatures, leapfrogs and start of "ais"; default `AIS()`.
        chunk_size: latent vectors that the model sees at once. Memory is that of one call with so
            many, and O(N); of "ais" at least those of the chains of one item.
        generator: seeds torch's own generators for the time of the call, so that a model which
            knows no generator draws the same again; default: they go on from where they are.

    Returns:
        Estimate: mean over the items, each item, and 95 % intervals by the delta method. These are
        of the noise of the samples: what an estimate loses where `effective_samples` is near 1 is
        not in them.

    Raises:
        TypeError: the model lacks a method, or an argument has another type.
        ValueError: a method returns another shape, or an option is unknown or out of range.

    Not differentiable.
    Source: Burda et al. 2016, "Importance weighted autoencoders", eq. 8; Neal 2001, "Annealed
    importance sampling"; Wu et al. 2017, "On the quantitative analysis of decoder-based
    generative models", sec. 3.
    """
    op = "log_likelihood"
    check_model(op, model, x)
    num_samples = check_count(op, "num_samples", num_samples)
    checks.check_option(op, "method", method, METHODS)
    if ais is not None and method != "ais":
        raise ValueError(f"{op}: ais must be None where method is {method!r}; got options")
    if ais is not None and not isinstance(ais, AIS):
        raise TypeError(f"{op}: ais must be an AIS; got {type(ais).__name__}")
    chunk_size = check_count(op, "chunk_size", chunk_size)
    check_generator(op, generator)
    per_item = num_samples if method == "ais" else 1
    size = max(1, chunk_size // per_item)
    parts: list[Weights] = []
    accepted: list[float] = []
    with torch.no_grad(), seeded(generator, x.device):
        for block in x.split(size):
            weights = Weights(len(block), x.device)
            if method == "ais":
                rate = annealed(op, model, block, num_samples, ais or AIS(), weights)
                accepted.append(rate * len(block) / len(x))
            else:
                _importance(op, model, block, num_samples, chunk_size, weights)
            parts.append(weights)
    if method == "elbo":
        pairs = [part.mean() for part in parts]
        items, halves = (torch.cat(c) for c in zip(*pairs, strict=True))
        return Estimate.of(items, halves, method, num_samples)
    triples = [part.log_mean() for part in parts]
    items, halves, effective = (torch.cat(c) for c in zip(*triples, strict=True))
    rate_of = math.fsum(accepted) if method == "ais" else None
    return Estimate.of(items, halves, method, num_samples, effective, rate_of)


def _importance(
    op: str, model: LatentModel, x: torch.Tensor, count: int, chunk_size: int, weights: Weights
) -> None:
    posterior = model.encode(x)
    size = max(1, chunk_size // len(x))
    for start in range(0, count, size):
        z, log_q = draw(op, posterior, min(size, count - start), len(x))
        weights.add(log_joint(op, model, x, z).double() - log_q.double())


def posterior_gap(
    model: LatentModel,
    x: torch.Tensor,
    *,
    num_samples: int,
    method: str = "iwae",
    elbo_samples: int = 64,
    ais: AIS | None = None,
    chunk_size: int = CHUNK,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""What the bound loses by its encoder: log p(x) - ELBO(x) = KL(q(z | x) to p(z | x)), nats.

    Equivalent to ``log_likelihood(...) - log_likelihood(..., method="elbo")``, item by item. Since
    log p(x) is estimated from below, so is the gap.

    Args:
        num_samples, method, ais: of log p(x); "iwae" or "ais".
        elbo_samples: samples of the ELBO.
        model, x, chunk_size, generator: as in `log_likelihood`.

    Returns, Raises: as `log_likelihood`.
    Source: Cremer et al. 2018, "Inference suboptimality in variational autoencoders", sec. 3.
    """
    checks.check_option("posterior_gap", "method", method, METHODS[1:])
    log_p = log_likelihood(
        model, x, num_samples=num_samples, method=method, ais=ais, chunk_size=chunk_size,
        generator=generator,
    )  # fmt: skip
    return log_p - log_likelihood(
        model, x, num_samples=elbo_samples, method="elbo", chunk_size=chunk_size,
        generator=generator,
    )  # fmt: skip


@dataclass(frozen=True)
class ActiveUnits:
    """How many dimensions of z follow x, and var_x E[z | x] of each."""

    count: int
    variances: torch.Tensor


def active_units(
    model: LatentModel,
    x: torch.Tensor,
    *,
    threshold: float = 0.01,
    num_samples: int = 128,
    chunk_size: int = CHUNK,
    generator: torch.Generator | None = None,
) -> ActiveUnits:
    r"""Dimensions u of z that say something of x: those with

    .. math:: A_u = \operatorname{Var}_x \left( E_{q(z \mid x)}[z_u] \right) > \text{threshold}

    The expectation is a mean of samples; the variance is the covariance over x of the means of two
    halves of them, which their noise does not raise.

    Args:
        model, x, chunk_size, generator: as in `log_likelihood`; at least two items.
        threshold: the paper's.
        num_samples: of each item, at least 2.

    Returns:
        ActiveUnits: the count, and A_u in the shape of z of one item, float64.

    Raises:
        TypeError, ValueError: as in `log_likelihood`.

    Source: Burda et al. 2016, "Importance weighted autoencoders", sec. 5.1.
    """
    op = "active_units"
    check_model(op, model, x)
    num_samples = check_count(op, "num_samples", num_samples, minimum=2)
    threshold = checks.check_number(op, "threshold", threshold, minimum=0)
    chunk_size = check_count(op, "chunk_size", chunk_size)
    check_generator(op, generator)
    if len(x) < 2:
        raise ValueError(f"{op}: x must have at least two items; got {len(x)}")
    half = num_samples // 2
    means: list[torch.Tensor] = []
    with torch.no_grad(), seeded(generator, x.device):
        for block in x.split(max(1, chunk_size // num_samples)):
            z, _ = draw(op, model.encode(block), 2 * half, len(block))
            means.append(z.double().unflatten(0, (2, half)).mean(1))
    first, second = torch.cat(means, 1)
    apart = (first - first.mean(0)) * (second - second.mean(0))
    variances = apart.sum(0) / (len(x) - 1)
    return ActiveUnits(int((variances > threshold).sum()), variances)
