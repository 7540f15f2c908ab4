"""The losses of a GAN as a module that holds their options; statistics of its logits."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

from genkern import checks
from genkern.ops import gan_loss as ops

_OP = "GANLoss"


class GANStatistics(NamedTuple):
    """0-dim float32 tensors on the device of the logits; ``.item()`` them when they are printed."""

    real_mean: torch.Tensor
    fake_mean: torch.Tensor
    real_accuracy: torch.Tensor
    fake_accuracy: torch.Tensor


class _Sum(torch.autograd.Function):
    """The sum over the processes of a group; its adjoint is itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: "distributed.ProcessGroup") -> torch.Tensor:
        ctx.group = group
        found = x.clone()
        distributed.all_reduce(found, group=group)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Sum.apply(upstream[0], ctx.group), None


def _mean(logits: torch.Tensor, group: "distributed.ProcessGroup | None") -> torch.Tensor:
    """The mean over all elements, and over the processes of a group."""
    if group is None:
        return logits.mean()
    count = torch.full((), logits.numel(), dtype=logits.dtype, device=logits.device)
    total, number = _Sum.apply(torch.stack([logits.sum(), count]), group)
    return total / number


def _scales(function: Callable, *lists: ops.Logits) -> Any:
    """``function`` of the logits of each scale."""
    if all(isinstance(logits, (list, tuple)) for logits in lists):
        found = [function(*pair) for pair in zip(*lists, strict=True)]
        return [list(each) for each in zip(*found, strict=True)]
    return function(*lists)


def _flat(name: str, logits: ops.Logits) -> torch.Tensor:
    """All logits of all scales, in float32."""
    scales = [logits] if isinstance(logits, torch.Tensor) else list(logits)
    for scale in scales:
        checks.check_tensor(_OP, name, scale)
    return torch.cat([x.reshape(-1).float() for x in scales])


class GANLoss(nn.Module):
    """`genkern.gan_d_loss` and `genkern.gan_g_loss` with one set of options.

    A script that applies ``F.binary_cross_entropy`` to probabilities takes three steps: drop the
    ``torch.sigmoid`` at the end of its discriminator, drop the tensors of ones and zeros, and call
    ``discriminator(D(real), D(fake.detach()))`` and ``generator(D(fake))`` of this module.

    Args:
        kind: "bce", "hinge", "lsgan", "wgan" or "rabce".
        label_smoothing: of the real label ("bce", "lsgan", "rabce").
        real_label, fake_label: targets of the discriminator, as in `genkern.gan_d_loss`.
        target: of the generator, as in `genkern.gan_g_loss`.
        saturating: generator loss of the minimax game ("bce", "rabce").
        one_sided: of "rabce" the generator has the term of its own images alone, s(-(f - mean r)).
        process_group: the means of "rabce" are those over all its processes, such as
            ``torch.distributed.group.WORLD``; None: of this process alone. Batches of one size and
            DistributedDataParallel then give the loss and the gradients of one process with all.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError: an option is unknown, out of range or without meaning for ``kind``.

    Source: Goodfellow et al. 2014, "Generative adversarial nets", sec. 3; Jolicoeur-Martineau 2019,
    "The relativistic discriminator", sec. 4.
    """

    def __init__(
        self,
        kind: str = "bce",
        *,
        label_smoothing: float = 0.0,
        real_label: float = 1.0,
        fake_label: float = 0.0,
        target: float = 1.0,
        saturating: bool = False,
        one_sided: bool = False,
        process_group: "distributed.ProcessGroup | None" = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        ops.check_d_options(_OP, kind, label_smoothing, reduction, real_label, fake_label)
        ops.check_g_options(_OP, kind, saturating, reduction, target)
        checks.check_bool(_OP, "one_sided", one_sided)
        for name, value, default in (
            ("one_sided", one_sided, False),
            ("process_group", process_group, None),
        ):
            if value is not default and kind != "rabce":
                got = type(value).__name__ if default is None else value
                raise ValueError(f"{_OP}: {name} must be {default} for kind {kind!r}; got {got}")
        self.kind, self.reduction, self.saturating = kind, reduction, saturating
        self.label_smoothing, self.target = label_smoothing, target
        self.real_label, self.fake_label = real_label, fake_label
        self.one_sided, self.process_group = one_sided, process_group

    def _relative(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each side less the mean of the other one."""
        real, fake = checks.admit(_OP, checks.LOSS, {"real_logits": real, "fake_logits": fake})
        exact = [x.float() if x.dtype in checks.HALF else x for x in (real, fake)]
        means = [_mean(x, self.process_group) for x in exact]
        return (exact[0] - means[1]).to(real.dtype), (exact[1] - means[0]).to(fake.dtype)

    def discriminator(self, real_logits: ops.Logits, fake_logits: ops.Logits) -> torch.Tensor:
        kind, factor = self.kind, 1.0
        if self.process_group is not None:
            real_logits, fake_logits = _scales(self._relative, real_logits, fake_logits)
            kind, factor = "bce", 0.5
        loss = ops.gan_d_loss(
            real_logits,
            fake_logits,
            kind=kind,
            label_smoothing=self.label_smoothing,
            real_label=self.real_label,
            fake_label=self.fake_label,
            reduction=self.reduction,
        )
        return loss if factor == 1.0 else factor * loss

    def generator(
        self, fake_logits: ops.Logits, real_logits: ops.Logits | None = None
    ) -> torch.Tensor:
        """``real_logits`` are for kind "rabce" and only there."""
        loss = functools.partial(
            ops.gan_g_loss, saturating=self.saturating, reduction=self.reduction
        )
        relative = self.one_sided or self.process_group is not None
        if not relative or real_logits is None:
            return loss(fake_logits, real_logits, kind=self.kind, target=self.target)
        real, fake = _scales(self._relative, real_logits, fake_logits)
        of_fake = loss(fake)
        if self.one_sided:
            return of_fake
        (negative,) = _scales(lambda x: (-x,), real)
        return 0.5 * (of_fake + loss(negative))

    @staticmethod
    @torch.no_grad()
    def statistics(real_logits: ops.Logits, fake_logits: ops.Logits) -> GANStatistics:
        """Means of the logits, and the shares of real logits above and of fake ones below 0.

        Nothing is read on the host. The logits of several scales are taken together.
        """
        real, fake = _flat("real_logits", real_logits), _flat("fake_logits", fake_logits)
        right = (real > 0).float().mean(), (fake < 0).float().mean()
        return GANStatistics(real.mean(), fake.mean(), *right)

    def extra_repr(self) -> str:
        return (
            f"kind={self.kind!r}, label_smoothing={self.label_smoothing}, "
            f"saturating={self.saturating}, reduction={self.reduction!r}"
        )
