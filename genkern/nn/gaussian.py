"""The latent layer of a VAE."""

import torch
from torch import nn

from genkern import checks
from genkern.ops.gaussian import FREE_BITS_BY, SCALES, Annealed, gaussian_kl_rsample


class GaussianLatent(nn.Module):
    """Splits features into mu and the scale; returns a sample and the KL to N(0, I).

    Args:
        free_bits: floor of the KL, nats; a schedule may assign another number or a 0-dim tensor
            to the attribute.
        free_bits_by, scale: as in `genkern.gaussian_kl`.
        sample_in_eval: draw in eval mode as well; otherwise z is the mean there.

    Shape: (N, 2 D, ...), [mu, scale] along dimension 1, to z (N, D, ...) and kl (N,), nats.

    Raises:
        TypeError: the features are no dense floating-point tensor, or an option has another type.
        ValueError: the features have another shape or an odd number of channels, or an option is
            unknown or negative.

    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4 and app. B.
    """

    def __init__(
        self,
        *,
        free_bits: Annealed = 0.0,
        free_bits_by: str = "element",
        scale: str = "logvar",
        sample_in_eval: bool = False,
    ) -> None:
        super().__init__()
        op = "GaussianLatent"
        if isinstance(free_bits, torch.Tensor):
            checks.annealed(op, "free_bits", free_bits, free_bits, minimum=0)
        else:
            checks.check_number(op, "free_bits", free_bits, minimum=0)
        checks.check_option(op, "free_bits_by", free_bits_by, FREE_BITS_BY)
        checks.check_option(op, "scale", scale, SCALES)
        checks.check_bool(op, "sample_in_eval", sample_in_eval)
        self.free_bits, self.free_bits_by = free_bits, free_bits_by
        self.scale, self.sample_in_eval = scale, sample_in_eval

    def forward(
        self,
        features: torch.Tensor,
        eps: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        checks.check_tensor("GaussianLatent", "features", features)
        if features.ndim < 2 or features.shape[1] % 2:
            raise ValueError(
                "GaussianLatent: features must have shape (N, 2 D, ...), mu and logvar along "
                f"dimension 1; got {tuple(features.shape)}"
            )
        mu, logvar = features.chunk(2, dim=1)
        if not (self.training or self.sample_in_eval) and eps is None:
            eps = torch.zeros_like(mu)
        return gaussian_kl_rsample(
            mu, logvar, scale=self.scale, free_bits=self.free_bits,
            free_bits_by=self.free_bits_by, eps=eps, generator=generator,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"free_bits={self.free_bits}, free_bits_by={self.free_bits_by!r}, "
            f"scale={self.scale!r}, sample_in_eval={self.sample_in_eval}"
        )
