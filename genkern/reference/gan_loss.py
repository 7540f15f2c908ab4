"""What the GAN losses mean, in plain PyTorch: one term per logit, then one reduction."""

import torch
import torch.nn.functional as F


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x), without the switch to the identity of F.softplus.

    Its second derivative is finite everywhere; that of ``torch.logaddexp(x, 0)`` is NaN where
    e^|x| overflows.
    """
    return -F.logsigmoid(-x)


def cross_entropy(logits: torch.Tensor, target: float | torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of logits with a constant target: finite wherever the limit is."""
    if isinstance(target, torch.Tensor):  # whose value is not looked at
        of_one, of_zero = target * softplus(-logits), (1.0 - target) * softplus(logits)
        return torch.where(target == 0.0, 0.0, of_one) + torch.where(target == 1.0, 0.0, of_zero)
    if target == 1.0:
        return softplus(-logits)
    if target == 0.0:
        return softplus(logits)
    return target * softplus(-logits) + (1.0 - target) * softplus(logits)


def d_terms(
    real: torch.Tensor,
    fake: torch.Tensor,
    kind: str,
    label_smoothing: float | torch.Tensor = 0.0,
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    target = real_label - label_smoothing
    if kind == "bce":
        return cross_entropy(real, target), cross_entropy(fake, fake_label)
    if kind == "hinge":
        return torch.relu(1.0 - real), torch.relu(1.0 + fake)
    if kind == "lsgan":
        return 0.5 * (real - target).square(), 0.5 * (fake - fake_label).square()
    if kind == "wgan":
        return -real, fake
    if kind == "rabce":
        u, v = real - fake.mean(), fake - real.mean()
        return 0.5 * cross_entropy(u, target), 0.5 * cross_entropy(v, fake_label)
    raise ValueError(f"kind {kind!r}")


def g_terms(
    fake: torch.Tensor,
    real: torch.Tensor | None,
    kind: str,
    saturating: bool = False,
    target: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Terms of the fake logits and, for the relativistic kind, of the real ones."""
    if kind == "bce":
        return (-softplus(fake) if saturating else cross_entropy(fake, target)), None
    if kind in ("hinge", "wgan"):
        return -fake, None
    if kind == "lsgan":
        return 0.5 * (fake - target).square(), None
    if kind == "rabce" and real is not None:
        u, v = real - fake.mean(), fake - real.mean()
        if saturating:
            return -0.5 * softplus(v), -0.5 * softplus(-u)
        return 0.5 * softplus(-v), 0.5 * softplus(u)
    raise ValueError(f"kind {kind!r}")


def reduce(terms: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return terms.mean()
    return terms.sum() if reduction == "sum" else terms


def d_loss(
    real: torch.Tensor,
    fake: torch.Tensor,
    kind: str = "bce",
    label_smoothing: float | torch.Tensor = 0.0,
    reduction: str = "mean",
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> torch.Tensor:
    of_real, of_fake = d_terms(real, fake, kind, label_smoothing, real_label, fake_label)
    return reduce(of_real, reduction) + reduce(of_fake, reduction)


def g_loss(
    fake: torch.Tensor,
    real: torch.Tensor | None = None,
    kind: str = "bce",
    saturating: bool = False,
    reduction: str = "mean",
    target: float = 1.0,
) -> torch.Tensor:
    of_fake, of_real = g_terms(fake, real, kind, saturating, target)
    loss = reduce(of_fake, reduction)
    return loss if of_real is None else loss + reduce(of_real, reduction)
