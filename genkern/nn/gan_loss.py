"""The losses of a GAN as a module that holds their options."""

import torch
from torch import nn

from genkern.ops.gan_loss import gan_d_loss, gan_g_loss


class GANLoss(nn.Module):
    """`genkern.gan_d_loss` and `genkern.gan_g_loss` with one set of options.

    Args:
        kind: "bce", "hinge", "lsgan", "wgan" or "rabce".
        label_smoothing: the real target is 1 - label_smoothing ("bce", "lsgan", "rabce").
        saturating: generator loss of the minimax game ("bce", "rabce").

    Source: Goodfellow et al. 2014, "Generative adversarial nets", sec. 3.
    """

    def __init__(
        self, kind: str = "bce", *, label_smoothing: float = 0.0, saturating: bool = False
    ) -> None:
        super().__init__()
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.saturating = saturating

    def discriminator(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        return gan_d_loss(
            real_logits, fake_logits, kind=self.kind, label_smoothing=self.label_smoothing
        )

    def generator(
        self, fake_logits: torch.Tensor, real_logits: torch.Tensor | None = None
    ) -> torch.Tensor:
        return gan_g_loss(fake_logits, real_logits, kind=self.kind, saturating=self.saturating)

    def extra_repr(self) -> str:
        return (
            f"kind={self.kind!r}, label_smoothing={self.label_smoothing}, "
            f"saturating={self.saturating}"
        )
