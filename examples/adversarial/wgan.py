"""Wasserstein GANs, by clipped weights and by a gradient penalty, and DRAGAN."""

import torch

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import Batch, DataSpec
from genkern.nn import GANLoss, GradientPenalty


class WGAN(Adversarial):
    r"""Wasserstein distance by a critic whose weights are clipped.

    .. math:: \min_G \max_{|w| \le c} E_x[f_w(x)] - E_z[f_w(G(z))]

    The weights are clipped before each use; the paper clips behind each step, which is the same.

    Args:
        spec: square images of integer levels, or points.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; perceptrons have four times as many units.
        clip: c.
        k: critic steps per generator step.

    Source: Arjovsky et al. 2017, "Wasserstein generative adversarial networks", alg. 1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 32,
        clip: float = 0.05,
        k: int = 3,
    ) -> None:
        super().__init__(
            spec,
            networks.generator(spec, latent, channels),
            networks.discriminator(spec, channels),
            latent=latent,
            criterion=GANLoss("wgan"),
            k=k,
        )
        self.clip = clip

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "generator"
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-self.clip, self.clip)
        return super().loss(batch, generator, player)


class WGANGP(Adversarial):
    r"""Wasserstein distance by a critic whose gradient has norm 1 between the data and the samples.

    .. math:: E_z[f(G(z))] - E_x[f(x)] + \lambda E[(\|\nabla f(\hat x)\| - 1)^2]

    The critic has no batch normalisation: an item's gradient is that of its own value.

    Args:
        spec: square images of integer levels, or points.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; perceptrons have four times as many units.
        weight: lambda.
        one_sided: only norms above 1 are penalised.
        k: critic steps per generator step.
        signs: so many of the latent dimensions are 1 or -1, the signs of z.

    Source: Gulrajani et al. 2017, "Improved training of Wasserstein GANs", alg. 1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 32,
        weight: float = 10.0,
        one_sided: bool = False,
        k: int = 3,
        signs: int = 0,
    ) -> None:
        super().__init__(
            spec,
            networks.generator(spec, latent, channels, signs),
            networks.discriminator(spec, channels),
            latent=latent,
            criterion=GANLoss("wgan"),
            penalty=GradientPenalty("wgan_gp", weight=weight, one_sided=one_sided),
            k=k,
        )


class DRAGAN(Adversarial):
    r"""The cross-entropy loss with the gradient of norm 1 around the data.

    .. math:: + \lambda E[(\|\nabla D(x + \delta)\| - 1)^2], \quad \delta \sim N(0, c^2 s^2 I)

    s: the standard deviation of the batch. D is the logit, as in public code; the paper has the
    probability there.

    Args:
        spec: square images of integer levels, or points.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; perceptrons have four times as many units.
        weight: lambda.
        noise: c.

    Source: Kodali et al. 2017, "On convergence and stability of GANs", sec. 3.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 32,
        weight: float = 10.0,
        noise: float = 0.5,
    ) -> None:
        super().__init__(
            spec,
            networks.generator(spec, latent, channels),
            networks.discriminator(spec, channels),
            latent=latent,
            criterion=GANLoss("bce"),
            penalty=GradientPenalty("dragan", weight=weight, noise=noise),
        )
