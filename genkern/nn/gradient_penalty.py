"""Gradient penalties of a discriminator: the points, its gradient there, and the penalty."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from genkern import checks
from genkern.ops import gradient_penalty as ops

_OP = "GradientPenalty"
Discriminator = Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]]


def input_gradient(discriminator: Discriminator, points: torch.Tensor) -> torch.Tensor:
    """The gradient in ``points`` of the sum of all outputs; differentiable again in grad mode.

    Args:
        discriminator: from (N, ...) to logits of any shape, or to a list of them, one a scale. An
            item's logits may depend on that item alone: no batch normalisation.
        points: (N, ...); what they were made from gets no gradient.

    Returns:
        Shape and dtype of ``points``.

    Raises:
        TypeError: ``points`` is no dense floating-point tensor; ``discriminator`` cannot be called,
            or returns anything else than logits or a list of them.
        ValueError: it returns none, or some that do not depend on the points.
    """
    return _input_gradient("input_gradient", discriminator, points)


def _input_gradient(op: str, discriminator: Discriminator, points: torch.Tensor) -> torch.Tensor:
    checks.check_tensor(op, "points", points)
    if not callable(discriminator):
        raise TypeError(f"{op}: discriminator must be callable; got {type(discriminator).__name__}")
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = points.detach().requires_grad_()
        scales = _scales(op, discriminator(x))
        ones = [torch.ones((), dtype=y.dtype, device=y.device).expand_as(y) for y in scales]
    (gradient,) = torch.autograd.grad(scales, x, ones, create_graph=create_graph, allow_unused=True)
    if gradient is None:
        raise _unused(op)
    return gradient


def _scales(op: str, found: object) -> list[torch.Tensor]:
    """The logits of each scale, of what a discriminator returned."""
    scales = found if isinstance(found, (list, tuple)) else [found]
    got = type(found).__name__
    for y in scales:
        if not isinstance(y, torch.Tensor):
            inside = "" if y is found else f" with {type(y).__name__}"
            text = f"{op}: discriminator must return logits, or a list of them"
            raise TypeError(f"{text}; got {got}{inside}")
        checks.check_tensor(op, "discriminator(points)", y)
        if not y.requires_grad:
            raise _unused(op)
    if not scales:
        raise ValueError(f"{op}: discriminator must return logits; got an empty {got}")
    return list(scales)


def _unused(op: str) -> ValueError:
    return ValueError(
        f"{op}: discriminator must return logits that depend on the points; got some that do not"
    )


class GradientPenalty(nn.Module):
    r"""`genkern.gradient_penalty` of a discriminator, at the points of its kind.

        penalty = genkern.nn.GradientPenalty("r1", weight=10.0)
        loss = genkern.gan_d_loss(D(real), D(fake)) + penalty(D, real)

    The points, with real images x and generated ones y:

    - "wgan_gp": a x + (1 - a) y, a uniform in [0, 1], one for each pair;
    - "r1": x; "r2": y;
    - "dragan": x + d, d normal with the standard deviation ``noise`` times that of all of x.

    A discriminator with labels is ``lambda x: D(x, labels)``. The generator gets no gradient. Lazy
    regularisation, every k-th step, takes k times the weight. In half precision scale the loss of
    the discriminator, as for any loss; the penalty itself is summed in double precision.

    Args:
        kind: "wgan_gp", "r1", "r2" or "dragan".
        weight, target, one_sided, reduction: as in `genkern.gradient_penalty`.
        noise: of "dragan", at least 0.

    Raises:
        TypeError, ValueError: an option is unknown, out of range or without meaning for ``kind``.

    Source: as for `genkern.gradient_penalty`.
    """

    def __init__(
        self,
        kind: str = "wgan_gp",
        *,
        weight: float = 10.0,
        target: float = 1.0,
        one_sided: bool = False,
        noise: float = 0.5,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        ops.check_options(_OP, kind, target, weight, one_sided, reduction)
        self.kind, self.weight, self.target = kind, weight, target
        self.one_sided, self.reduction = one_sided, reduction
        self.noise = checks.check_number(_OP, "noise", noise, minimum=0.0)

    def points(
        self,
        real: torch.Tensor | None = None,
        fake: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Where the gradient is taken, without a graph."""
        needed = {"wgan_gp": (True, True), "r2": (False, True)}.get(self.kind, (True, False))
        for name, tensor, need in zip(("real", "fake"), (real, fake), needed, strict=True):
            if need:
                checks.check_tensor(_OP, name, tensor)  # type: ignore[arg-type]
                if tensor.ndim == 0:  # type: ignore[union-attr]
                    raise ValueError(f"{_OP}: {name} must have shape (N, ...); got ()")
        if self.kind == "r2":
            return fake.detach()  # type: ignore[union-attr]
        assert real is not None
        real = real.detach()
        if self.kind == "r1":
            return real
        if self.kind == "wgan_gp":
            assert fake is not None
            checks.check_shape(_OP, "fake", fake, real.shape, "real.shape")
            shape = (real.shape[0], *[1] * (real.ndim - 1))
            share = torch.rand(shape, dtype=real.dtype, device=real.device, generator=generator)
            return torch.lerp(fake.detach().to(real), real, share)
        draw = torch.empty_like(real).normal_(generator=generator)
        return real + self.noise * real.float().std(correction=0).to(real) * draw

    def forward(
        self,
        discriminator: Discriminator,
        real: torch.Tensor | None = None,
        fake: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The penalty of ``discriminator`` as `input_gradient` takes one; ``real`` and ``fake``
        where the kind needs them."""
        points = self.points(real, fake, generator=generator)
        gradient = _input_gradient(_OP, discriminator, points)
        return ops.gradient_penalty(
            gradient,
            kind=self.kind,
            target=self.target,
            weight=self.weight,
            one_sided=self.one_sided,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        noise = f", noise={self.noise}" if self.kind == "dragan" else ""
        return (
            f"kind={self.kind!r}, weight={self.weight}, target={self.target}, "
            f"one_sided={self.one_sided}{noise}, reduction={self.reduction!r}"
        )
