"""GAN of two perceptrons. Source: Goodfellow et al. 2014, "Generative adversarial nets"."""

from torch import nn

from examples.adversarial.base import Adversarial
from examples.model import DataSpec
from genkern.nn import GANLoss


class GAN(Adversarial):
    r"""Generator against discriminator, k discriminator steps per generator step (alg. 1).

    .. math:: \min_G \max_D E_x[\log D(x)] + E_z[\log(1 - D(G(z)))]

    The generator minimises -log D(G(z)) (non-saturating) unless ``saturating``.

    Args:
        spec: items of integer levels or real numbers.
        latent: dimensions of z ~ N(0, I).
        hidden: width of the hidden layers.
        kind: loss, one of those of `genkern.gan_d_loss`.
        saturating: the generator minimises log(1 - D(G(z))) instead.
        label_smoothing: the real target is 1 - label_smoothing.
        k: discriminator steps per generator step.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        hidden: int = 256,
        kind: str = "bce",
        saturating: bool = False,
        label_smoothing: float = 0.0,
        k: int = 1,
    ) -> None:
        criterion = GANLoss(kind, label_smoothing=label_smoothing, saturating=saturating)
        generator = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, spec.dims),
            nn.Identity() if spec.levels is None else nn.Tanh(),
        )
        discriminator = nn.Sequential(
            nn.Linear(spec.dims, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, 1),
        )
        super().__init__(spec, generator, discriminator, latent=latent, criterion=criterion, k=k)
