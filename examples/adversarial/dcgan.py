"""DCGAN and LSGAN: strided convolutions and batch normalisation in both players."""

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import DataSpec
from genkern.nn import GANLoss


class DCGAN(Adversarial):
    """Convolutions with strides and batch normalisation, by the paper's five guidelines.

    No pooling; batch normalisation in both networks but for the generator's last and the
    discriminator's first layer; no fully connected hidden layer; ReLU and a last tanh in the
    generator; leaky ReLU in the discriminator.

    Args:
        spec: square images of integer levels.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; each smaller one has twice as many.
        kind: loss, one of those of `genkern.gan_d_loss`.
        label_smoothing: the real target is 1 - label_smoothing.

    Source: Radford et al. 2016, "Unsupervised representation learning with deep convolutional
    generative adversarial networks", sec. 3.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 64,
        kind: str = "bce",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            spec,
            networks.generator(spec, latent, channels),
            networks.discriminator(spec, channels, norm=True),
            latent=latent,
            criterion=GANLoss(kind, label_smoothing=label_smoothing),
        )
        networks.initialise(self)


class LSGAN(DCGAN):
    """Least squares: the targets are 1 for real images, 0 for generated ones, 1 for the generator.

    Source: Mao et al. 2017, "Least squares generative adversarial networks", eq. 9.
    """

    def __init__(self, spec: DataSpec, *, latent: int = 32, channels: int = 64) -> None:
        super().__init__(spec, latent=latent, channels=channels, kind="lsgan")
