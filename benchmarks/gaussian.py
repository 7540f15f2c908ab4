"""Cases of the Gaussian ops.

Work per element, an elementary function counted as one FLOP. Sampling forward: noise 4 (log,
root, cosine, product), z 4 (half, exp, product, sum); backward: noise 4, exp 2, gradient 3.
KL forward: 6 (square, expm1, difference, sum, half, row sum); backward: 5 (two products each, and
expm1); of elements without the row sum. log_prob: 4 more forward (square, two sums, row sum), 1
backward. Compulsory traffic: forward reads mu and logvar and writes z; backward reads d_z, mu and
logvar and writes d_mu and d_logvar.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.distributions import Normal, kl_divergence

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import gaussian as reference


def eager_sample(mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def eager_kl(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1)


def eager_both(mu, logvar):
    return eager_sample(mu, logvar), eager_kl(mu, logvar)


def _distribution(mu, logvar):
    return Normal(mu, torch.exp(0.5 * logvar), validate_args=False)


def library_sample(mu, logvar):
    return _distribution(mu, logvar).rsample()


def library_kl(mu, logvar):
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return kl_divergence(_distribution(mu, logvar), prior).sum(1)


def library_both(mu, logvar):
    return library_sample(mu, logvar), library_kl(mu, logvar)


def eager_elements(mu, logvar):
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())


def library_elements(mu, logvar):
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return kl_divergence(_distribution(mu, logvar), prior)


def eager_log_prob(mu, logvar):
    eps = torch.randn_like(mu)
    z = mu + torch.exp(0.5 * logvar) * eps
    return z, -0.5 * (eps.pow(2) + logvar + math.log(2 * math.pi)).sum(1)


def library_log_prob(mu, logvar):
    q = _distribution(mu, logvar)
    z = q.rsample()
    return z, q.log_prob(z).sum(1)


def reference_log_prob(mu, logvar, eps):
    return reference.rsample(mu, logvar, eps), reference.log_prob(mu, logvar, eps)


def reference_both(mu, logvar, eps):
    return reference.rsample(mu, logvar, eps), reference.kl(mu, logvar)


# With mu = 0 and logvar = 0 the sample is the noise itself.
NOISE: dict[str, Callable] = {
    "genkern": lambda mu, logvar: genkern.gaussian_rsample(
        torch.zeros_like(mu), torch.zeros_like(mu)
    ),
    "eager": lambda mu, logvar: torch.randn_like(mu),
    "library": lambda mu, logvar: library_sample(torch.zeros_like(mu), torch.zeros_like(mu)),
}


def _inputs(N: int, D: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"mu": torch.randn(N, D), "logvar": torch.randn(N, D).clamp(-3, 3)}


def both_case(N: int, D: int, **options) -> Case:
    n = float(N * D)
    return Case(
        family="gaussian",
        op="gaussian_kl_rsample",
        shape=f"{N}x{D}",
        inputs=_inputs(N, D),
        genkern=genkern.gaussian_kl_rsample,
        eager=eager_both,
        reference=reference_both,
        outputs=("z", "kl"),
        flops=(14 * n, 14 * n),
        elements=(3 * n + N, 5 * n + N),
        library=library_both,
        library_call="torch.distributions.Normal",
        terms={"kl": D},
        noise=NOISE,
        **options,
    )


def kl_case(N: int, D: int, **options) -> Case:
    n = float(N * D)
    return Case(
        family="gaussian",
        op="gaussian_kl",
        shape=f"{N}x{D}",
        inputs=_inputs(N, D),
        genkern=genkern.gaussian_kl,
        eager=eager_kl,
        reference=reference.kl,
        outputs=("kl",),
        flops=(6 * n, 5 * n),
        elements=(2 * n + N, 4 * n + N),
        library=library_kl,
        library_call="torch.distributions.kl_divergence",
        terms={"kl": D},
        **options,
    )


def elements_case(N: int, D: int, **options) -> Case:
    n = float(N * D)
    return Case(
        family="gaussian",
        op="gaussian_kl",
        shape=f"{N}x{D} elements",
        inputs=_inputs(N, D),
        genkern=partial(genkern.gaussian_kl, reduction="elements"),
        eager=eager_elements,
        reference=reference.kl_elements,
        outputs=("kl",),
        flops=(5 * n, 5 * n),
        elements=(3 * n, 5 * n),
        library=library_elements,
        library_call="torch.distributions.kl_divergence",
        **options,
    )


def log_prob_case(N: int, D: int, **options) -> Case:
    n = float(N * D)
    return Case(
        family="gaussian",
        op="gaussian_rsample_and_log_prob",
        shape=f"{N}x{D}",
        inputs=_inputs(N, D),
        genkern=genkern.gaussian_rsample_and_log_prob,
        eager=eager_log_prob,
        reference=reference_log_prob,
        outputs=("z", "log_prob"),
        flops=(12 * n, 10 * n),
        elements=(3 * n + N, 4 * n + N),
        library=library_log_prob,
        library_call="torch.distributions.Normal.log_prob",
        terms={"log_prob": D},
        noise=NOISE,
        **options,
    )


def sample_case(N: int, D: int, **options) -> Case:
    n = float(N * D)
    return Case(
        family="gaussian",
        op="gaussian_rsample",
        shape=f"{N}x{D}",
        inputs=_inputs(N, D),
        genkern=genkern.gaussian_rsample,
        eager=eager_sample,
        reference=reference.rsample,
        outputs=("z",),
        flops=(8 * n, 9 * n),
        elements=(3 * n, 4 * n),
        library=library_sample,
        library_call="torch.distributions.Normal.rsample",
        noise=NOISE,
        **options,
    )


def cases() -> list[Case]:
    def at_least(ratio: float) -> dict[str, Target]:
        return {"forward_backward": Target(ratio)}

    overhead = {"overhead": True}
    return [
        both_case(128, 20, targets=at_least(3.5), quick=True),
        both_case(1024, 512, targets=at_least(6), headline=True),
        both_case(4096, 1024, targets=at_least(5)),
        both_case(1, 17),
        both_case(13, 3),
        kl_case(1024, 512),
        sample_case(1024, 512),
        elements_case(1024, 512),
        log_prob_case(1024, 512),
        both_case(4, 4, quick=True, **overhead),
        kl_case(4, 4, **overhead),
        sample_case(4, 4, **overhead),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    sizes = [2**p for p in range(6, 13)]
    return {
        "batch": [(n, both_case(n, 512)) for n in sizes],
        "channels": [(d, both_case(512, d)) for d in sizes],
        "threads": [(0, both_case(1024, 512))],
    }
