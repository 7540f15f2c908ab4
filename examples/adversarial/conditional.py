"""GANs of labelled images: projection discriminator, and auxiliary classifier."""

import torch
import torch.nn.functional as F
from torch import nn

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import Batch, DataSpec
from genkern.nn import ConditionalBatchNorm2d, GANLoss, SpectralNorm


class ConditionalGenerator(nn.Module):
    """z and a class to images: `networks.generator`, whose normalisations know the class."""

    def __init__(self, spec: DataSpec, latent: int, channels: int) -> None:
        super().__init__()
        sides, classes = networks.sizes(spec), spec.classes
        width = networks.width(spec, channels)
        self.first = nn.ConvTranspose2d(latent, width, sides[0], bias=False)
        self.norms, self.ups = nn.ModuleList(), nn.ModuleList()
        for _ in sides[1:]:
            self.norms.append(ConditionalBatchNorm2d(width, classes or 0, act="relu"))
            self.ups.append(nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False))
            width //= 2
        self.ups[-1] = nn.ConvTranspose2d(2 * width, spec.shape[0], 4, 2, 1)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.first(z[:, :, None, None])
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(norm(x, labels))
        return x.tanh()


class ProjectionDiscriminator(nn.Module):
    """D(x, y) = <e_y, sum of phi(x)> + psi(phi(x)): phi are features, e an embedding."""

    def __init__(self, spec: DataSpec, channels: int) -> None:
        super().__init__()
        width = networks.width(spec, channels)
        self.features = networks.features(spec, channels)
        self.head = nn.Conv2d(width, 1, networks.sizes(spec)[0])
        self.classes = nn.Embedding(spec.classes or 0, width)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found = self.features(x)
        return self.head(found).flatten() + (self.classes(labels) * found.sum((2, 3))).sum(1)


class ConditionalGAN(Adversarial):
    """Images of a class: conditional batch normalisation against a projection discriminator.

    Args:
        spec: square images of integer levels, with classes.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; each smaller one has twice as many.
        orthogonal: weight of BigGAN's regularisation, the sum of the squares of the products of
            different rows of each of the generator's weights.

    Source: Mirza and Osindero 2014, "Conditional generative adversarial nets"; Miyato and Koyama
    2018, "cGANs with projection discriminator", sec. 3; Brock et al. 2019, "Large scale GAN
    training", eq. 3.
    """

    def __init__(
        self, spec: DataSpec, *, latent: int = 32, channels: int = 32, orthogonal: float = 0.0
    ) -> None:
        super().__init__(
            spec,
            ConditionalGenerator(spec, latent, channels),
            SpectralNorm(ProjectionDiscriminator(spec, channels)),
            latent=latent,
            criterion=GANLoss("hinge"),
        )
        self.orthogonal = orthogonal

    def told(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        assert batch.labels is not None
        return (batch.labels,)

    def generator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, *told: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        found = super().generator_loss(real, fake, *told)
        if self.orthogonal > 0:
            found["loss"] = found["loss"] + self.orthogonal * products_of_rows(self.generator)
        return found


def products_of_rows(network: nn.Module) -> torch.Tensor:
    r""":math:`\sum_W \|W W^T - \mathrm{diag}(W W^T)\|_F^2`; a row is an output of a convolution."""
    total = torch.zeros((), device=next(network.parameters()).device)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            rows = (layer.weight.transpose(0, 1) if transposed else layer.weight).flatten(1)
            product = rows @ rows.T
            total = total + (product - product.diagonal().diag()).square().sum()
    return total


class LabelledGenerator(nn.Module):
    """z times an embedding of the class, through `networks.generator`."""

    def __init__(self, spec: DataSpec, latent: int, channels: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(spec.classes or 0, latent)
        self.images = networks.generator(spec, latent, channels)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.images(z * self.classes(labels))


class AuxiliaryDiscriminator(nn.Module):
    """Images to a logit (N,) and to logits of the classes (N, classes)."""

    def __init__(self, spec: DataSpec, channels: int) -> None:
        super().__init__()
        self.features = networks.features(spec, channels)
        outputs = 1 + (spec.classes or 0)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Conv2d(networks.width(spec, channels), outputs, networks.sizes(spec)[0])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.head(self.dropout(self.features(x))).flatten(1)
        return found[:, 0], found[:, 1:]


class ACGAN(Adversarial):
    r"""The discriminator tells the class too; both players want it right.

    .. math:: L_D = L_{source} - \tfrac12 (E[\log p(y \mid x)] + E[\log p(y \mid G(z, y))]), \quad
              L_G = L_{source} - E[\log p(y \mid G(z, y))]

    Args:
        spec: square images of integer levels, with classes.
        latent: dimensions of z ~ N(0, I).
        channels: of the largest hidden maps; each smaller one has twice as many.

    Source: Odena et al. 2017, "Conditional image synthesis with auxiliary classifier GANs", sec. 3.
    """

    def __init__(self, spec: DataSpec, *, latent: int = 32, channels: int = 32) -> None:
        super().__init__(
            spec,
            LabelledGenerator(spec, latent, channels),
            AuxiliaryDiscriminator(spec, channels),
            latent=latent,
            criterion=GANLoss("bce"),
        )

    def told(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        assert batch.labels is not None
        return (batch.labels,)

    def generator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, *told: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        logits, classes = self.discriminator(fake)
        wrong = F.cross_entropy(classes.float(), *told)
        return {"loss": self.criterion.generator(logits) + wrong, "class nats": wrong}

    def discriminator_loss(
        self,
        generator: torch.Generator,
        real: torch.Tensor,
        fake: torch.Tensor,
        *told: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        (fake_logits, fakes), (real_logits, reals) = map(self.discriminator, (fake, real))
        source = self.criterion.discriminator(real_logits, fake_logits)
        wrong = F.cross_entropy(reals.float(), *told)
        both = 0.5 * (wrong + F.cross_entropy(fakes.float(), *told))
        means = {"D(x)": real_logits.mean(), "D(G(z))": fake_logits.mean()}
        return {"loss": source + both, "class nats": wrong, **means}
