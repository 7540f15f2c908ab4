"""SNGAN: a discriminator of spectrally normalised layers, with the hinge loss."""

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import DataSpec
from genkern.nn import GANLoss, SpectralNorm


class SNGAN(Adversarial):
    r"""All weights of the discriminator are divided by their largest singular value.

    .. math:: L_D = E_x[\max(0, 1 - D(x))] + E_z[\max(0, 1 + D(G(z)))], \quad L_G = -E_z[D(G(z))]

    Args:
        spec: square images of integer levels, or points.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; perceptrons have four times as many units.
        kind: loss, one of those of `genkern.gan_d_loss`.
        k: discriminator steps per generator step.

    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks".
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 32,
        kind: str = "hinge",
        k: int = 1,
    ) -> None:
        super().__init__(
            spec,
            networks.generator(spec, latent, channels),
            SpectralNorm(networks.discriminator(spec, channels)),
            latent=latent,
            criterion=GANLoss(kind),
            k=k,
        )
