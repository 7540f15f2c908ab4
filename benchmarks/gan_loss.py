"""Cases of the GAN losses.

Work per logit, an elementary function counted as one FLOP: forward 4 (exp, log1p, two sums),
backward 4 (exp, sum, division, product); hinge 3 and 2. Compulsory traffic: forward reads the
logits, backward reads them again and writes their gradients.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import gan_loss as reference


def eager_d(real, fake):
    loss_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    loss_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    return loss_real + loss_fake


def eager_g(fake):
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def library_d(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def library_g(fake):
    return F.softplus(-fake).mean()


def eager_hinge(real, fake):
    return torch.relu(1.0 - real).mean() + torch.relu(1.0 + fake).mean()


def fused_hinge(real, fake):
    return genkern.gan_d_loss(real, fake, kind="hinge")


def reference_d(kind: str) -> Callable:
    def run(real, fake):
        terms_real, terms_fake = reference.d_terms(real, fake, kind)
        return terms_real.mean() + terms_fake.mean()

    return run


def reference_g(fake):
    return reference.g_terms(fake, None, "bce")[0].mean()


def d_case(n: int, **options) -> Case:
    return Case(
        family="gan_loss",
        op="gan_d_loss",
        shape=f"n={n}",
        inputs=lambda: {"real": 3 * torch.randn(n), "fake": 3 * torch.randn(n)},
        genkern=genkern.gan_d_loss,
        eager=eager_d,
        reference=reference_d("bce"),
        outputs=("loss",),
        flops=(8.0 * n, 8.0 * n),
        elements=(2 * n + 1, 4 * n + 1),
        library=library_d,
        library_call="F.softplus",
        terms={"loss": 2 * n},
        **options,
    )


def hinge_case(n: int, **options) -> Case:
    return Case(
        family="gan_loss",
        op="gan_d_loss",
        shape=f"n={n} hinge",
        inputs=lambda: {"real": 3 * torch.randn(n), "fake": 3 * torch.randn(n)},
        genkern=fused_hinge,
        eager=eager_hinge,
        reference=reference_d("hinge"),
        outputs=("loss",),
        flops=(6.0 * n, 4.0 * n),
        elements=(2 * n + 1, 4 * n + 1),
        terms={"loss": 2 * n},
        **options,
    )


def g_case(n: int, **options) -> Case:
    return Case(
        family="gan_loss",
        op="gan_g_loss",
        shape=f"n={n}",
        inputs=lambda: {"fake": 3 * torch.randn(n)},
        genkern=genkern.gan_g_loss,
        eager=eager_g,
        reference=reference_g,
        outputs=("loss",),
        flops=(4.0 * n, 4.0 * n),
        elements=(n + 1, 2 * n + 1),
        library=library_g,
        library_call="F.softplus",
        terms={"loss": n},
        **options,
    )


def cases() -> list[Case]:
    def at_least(ratio: float) -> dict[str, Target]:
        return {"forward_backward": Target(ratio)}

    overhead = {"overhead": True}
    return [
        d_case(64, targets=at_least(1.8), quick=True),
        d_case(2**20, targets=at_least(3), headline=True),
        d_case(13),
        hinge_case(64),
        hinge_case(2**20),
        g_case(64),
        g_case(2**20),
        d_case(16, quick=True, **overhead),
        g_case(16, **overhead),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(2**p, d_case(2**p)) for p in range(10, 23, 2)],
        "threads": [(0, d_case(2**20))],
    }
