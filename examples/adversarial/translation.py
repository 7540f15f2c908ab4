"""Images made of images, in pairs: colours of grey (pix2pix), and twice the pixels (SRGAN)."""

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.data.luminance import luminance
from examples.model import Batch, DataSpec
from genkern.nn import GANLoss


class Paired(Adversarial):
    """The generator makes an image of what it is given of it, and stays near the image.

    .. math:: L_G = a L_{GAN} + |x - G(y)|

    Its loss against the discriminator has the weight ``adversarial``; 0: a regression.
    """

    #: What it is given, in words.
    condition: ClassVar[str]
    #: The discriminator sees what the generator was given.
    judges_pairs: ClassVar[bool] = False

    def __init__(
        self,
        spec: DataSpec,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        kind: str,
        adversarial: float,
    ) -> None:
        super().__init__(spec, generator, discriminator, latent=0, criterion=GANLoss(kind))
        self.adversarial = adversarial

    @abstractmethod
    def given(self, batch: Batch) -> torch.Tensor:
        """What the generator is given of the items: levels (N, ...)."""

    def told(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return (self.spec.scale(self.given(batch), next(self.parameters())),)

    def generate(self, num: int, generator: torch.Generator, *told: torch.Tensor) -> torch.Tensor:
        return self.generator(*told)

    def discriminator_loss(
        self,
        generator: torch.Generator,
        real: torch.Tensor,
        fake: torch.Tensor,
        *told: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        beside = told if self.judges_pairs else ()
        return super().discriminator_loss(generator, real, fake, *beside)

    def generator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, *told: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        beside = told if self.judges_pairs else ()
        found = super().generator_loss(real, fake, *beside)["loss"]
        error = F.l1_loss(fake.float(), real.float())
        return {"loss": self.adversarial * found + error, "GAN": found, "L1": error}

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        *told: torch.Tensor,
    ) -> torch.Tensor:
        """What is made of what `given` gave; there is no noise, and nothing else to draw."""
        (given,) = told
        weight = next(self.generator.parameters())
        values = self.generator(self.spec.scale(given.to(weight.device), weight))
        return self.spec.unscale(values)


class UNet(nn.Module):
    """Halved maps and doubled ones, each of which also sees the map of its size on the way down."""

    def __init__(self, inputs: int, outputs: int, channels: int, halvings: int) -> None:
        super().__init__()
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        width = inputs
        for number in range(halvings):
            wider = channels * 2**number
            norm = nn.BatchNorm2d(wider) if number else nn.Identity()
            conv = nn.Conv2d(width, wider, 4, 2, 1, bias=not number)
            self.downs.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
            width = wider
        for number in reversed(range(halvings)):
            narrower = channels * 2 ** (number - 1) if number else channels
            conv = nn.ConvTranspose2d(width, narrower, 4, 2, 1, bias=False)
            self.ups.append(nn.Sequential(conv, nn.BatchNorm2d(narrower), nn.ReLU()))
            width = 2 * narrower if number else narrower + inputs
        self.head = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [x]
        for down in self.downs:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up in self.ups:
            x = torch.cat([up(x), maps.pop()], 1)
        return self.head(x).tanh()


class PatchDiscriminator(nn.Module):
    """Logits of patches (N, 1, h, w), of an image beside what it was made of."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels, 4, 2, 1, bias=False),
            networks.BiasAct(channels),
            nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 1, 3, padding=1),
        )

    def forward(self, x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([x, *(g.to(x.dtype) for g in given)], 1))


class Pix2Pix(Paired):
    """Colours of a picture, by a U-Net, of its luminance; the discriminator judges patches.

    Unlike in the paper the noise is not drawn again by dropout: there is none.

    Args:
        spec: square images of integer levels, of three colours.
        channels: of the largest maps of both networks.
        adversarial: weight of the discriminator's word beside the error (the paper: 1 / 100).

    Source: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks".
    """

    condition = "luminance"
    judges_pairs = True

    def __init__(self, spec: DataSpec, *, channels: int = 16, adversarial: float = 0.01) -> None:
        C = spec.shape[0]
        unet = UNet(1, C, channels, len(networks.sizes(spec)) - 1)
        judge = PatchDiscriminator(1 + C, channels)
        super().__init__(spec, unet, judge, kind="bce", adversarial=adversarial)

    def given(self, batch: Batch) -> torch.Tensor:
        return luminance(batch.items)


class Enlarger(nn.Module):
    """Twice the pixels: bicubic interpolation, and what residual blocks add to it."""

    def __init__(self, colours: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(colours, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                networks.BiasAct(channels),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Sequential(
            nn.Conv2d(channels, 4 * colours, 3, padding=1), nn.PixelShuffle(2)
        )
        nn.init.zeros_(self.last[0].weight)
        nn.init.zeros_(self.last[0].bias)

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        x = self.first(small)
        for block in self.blocks:
            x = x + block(x)
        bicubic = F.interpolate(small.float(), scale_factor=2, mode="bicubic")
        return bicubic + self.last(x)


class SRGAN(Paired):
    """Twice the pixels along each side, of means of 2 x 2 pixels.

    The error is that of pixels: the features of the paper's are those of a network trained on
    images that are not here.

    Args:
        spec: square images of integer levels.
        channels: of the residual blocks, and of the discriminator's largest maps.
        blocks: residual blocks.
        adversarial: weight of the discriminator's word beside the error.

    Source: Ledig et al. 2017, "Photo-realistic single image super-resolution using a generative
    adversarial network", sec. 2; Lim et al. 2017 (no batch normalisation, the L1 error).
    """

    condition = "small image"

    def __init__(
        self,
        spec: DataSpec,
        *,
        channels: int = 24,
        blocks: int = 3,
        adversarial: float = 0.01,
    ) -> None:
        enlarger = Enlarger(spec.shape[0], channels, blocks)
        judge = networks.discriminator(spec, channels)
        super().__init__(spec, enlarger, judge, kind="bce", adversarial=adversarial)

    def given(self, batch: Batch) -> torch.Tensor:
        means = F.avg_pool2d(batch.items.float(), 2)
        return means.round().to(batch.items.dtype)
