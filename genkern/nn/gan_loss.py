"""The losses of a GAN as a module that holds their options."""

import torch
from torch import nn

from genkern.ops import gan_loss as ops


class GANLoss(nn.Module):
    """`genkern.gan_d_loss` and `genkern.gan_g_loss` with one set of options.

    Args:
        kind: "bce", "hinge", "lsgan", "wgan" or "rabce".
        label_smoothing: the real target is 1 - label_smoothing ("bce", "lsgan", "rabce").
        saturating: generator loss of the minimax game ("bce", "rabce").
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError: an option is unknown, out of range or without meaning for ``kind``.

    Source: Goodfellow et al. 2014, "Generative adversarial nets", sec. 3.
    """

    def __init__(
        self,
        kind: str = "bce",
        *,
        label_smoothing: float = 0.0,
        saturating: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        ops.check_d_options("GANLoss", kind, label_smoothing, reduction)
        ops.check_g_options("GANLoss", kind, saturating, reduction)
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.saturating = saturating
        self.reduction = reduction

    def discriminator(self, real_logits: ops.Logits, fake_logits: ops.Logits) -> torch.Tensor:
        return ops.gan_d_loss(
            real_logits,
            fake_logits,
            kind=self.kind,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )

    def generator(
        self, fake_logits: ops.Logits, real_logits: ops.Logits | None = None
    ) -> torch.Tensor:
        """``real_logits`` are for kind "rabce" and only there."""
        return ops.gan_g_loss(
            fake_logits,
            real_logits,
            kind=self.kind,
            saturating=self.saturating,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return (
            f"kind={self.kind!r}, label_smoothing={self.label_smoothing}, "
            f"saturating={self.saturating}, reduction={self.reduction!r}"
        )
