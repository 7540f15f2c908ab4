"""Images of one domain made of images of another, without pairs: CycleGAN."""

import torch
import torch.nn.functional as F
from torch import nn

from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import Batch, DataSpec
from genkern.nn import GANLoss, InstanceNormAct


def normed(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, InstanceNormAct(channels, affine=True, act="relu"))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            normed(nn.Conv2d(channels, channels, 3, padding=1, bias=False), channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceNormAct(channels, affine=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def translator(inputs: int, outputs: int, channels: int, blocks: int) -> nn.Sequential:
    """Images to images: half the side, residual blocks with instance normalisation, and back."""
    wide = 2 * channels
    return nn.Sequential(
        normed(nn.Conv2d(inputs, channels, 3, padding=1, bias=False), channels),
        normed(nn.Conv2d(channels, wide, 4, 2, 1, bias=False), wide),
        *(Residual(wide) for _ in range(blocks)),
        normed(nn.ConvTranspose2d(wide, channels, 4, 2, 1, bias=False), channels),
        nn.Conv2d(channels, outputs, 3, padding=1),
        nn.Tanh(),
    )


def patches(inputs: int, channels: int) -> nn.Sequential:
    """Images to the features of patches, a fourth of the side."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 4, 2, 1, bias=False),
        networks.BiasAct(channels),
        nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
        InstanceNormAct(2 * channels, affine=True, act="lrelu"),
    )


class CycleGAN(Adversarial):
    r"""Two generators, each of which undoes the other, against a discriminator of each domain.

    .. math:: L_G = L_{GAN} + \lambda (|G_{10}(G_{01}(x)) - x| + |G_{01}(G_{10}(y)) - y|)
              + \mu (|G_{10}(x) - x| + |G_{01}(y) - y|)

    x of domain 0, y of domain 1: images of even and of odd classes. Unlike in the paper the
    discriminators see the samples of their own step only, not older ones.

    Args:
        spec: images of integer levels, with classes.
        channels: of the largest maps.
        blocks: residual blocks of a generator.
        cycle, identity: lambda and mu.

    Source: Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent adversarial
    networks", sec. 3, 5.2.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        channels: int = 16,
        blocks: int = 2,
        cycle: float = 10.0,
        identity: float = 2.0,
    ) -> None:
        C = spec.shape[0]
        generators = nn.ModuleList(translator(C, C, channels, blocks) for _ in range(2))
        judges = nn.ModuleList(
            nn.Sequential(patches(C, channels), nn.Conv2d(2 * channels, 1, 3, padding=1))
            for _ in range(2)
        )
        super().__init__(spec, generators, judges, latent=0, criterion=GANLoss("lsgan"))
        self.cycle, self.identity = cycle, identity

    def domains(self, batch: Batch) -> list[torch.Tensor]:
        """The images of both domains, in [-1, 1]."""
        assert batch.labels is not None
        scaled = self.spec.scale(batch.items, next(self.parameters()))
        found = [scaled[batch.labels % 2 == domain] for domain in (0, 1)]
        # A small batch may, once in a long while, lack one: an image of the other stands in.
        return [images if len(images) else scaled[:1] for images in found]

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "generator"
    ) -> dict[str, torch.Tensor]:
        real, judged = self.domains(batch), []
        with torch.set_grad_enabled(player == "generator" and torch.is_grad_enabled()):
            fake = [self.generator[to](real[1 - to]) for to in (0, 1)]
        if player == "discriminator":
            for judge, x, y in zip(self.discriminator, real, fake, strict=True):
                judged.append(self.criterion.discriminator(judge(x), judge(y)))
            return {"loss": judged[0] + judged[1]}
        for judge, y in zip(self.discriminator, fake, strict=True):
            judged.append(self.criterion.generator(judge(y)))
        back = [F.l1_loss(self.generator[i](fake[1 - i]), real[i]) for i in (0, 1)]
        same = [F.l1_loss(self.generator[i](real[i]), real[i]) for i in (0, 1)]
        loss = judged[0] + judged[1] + self.cycle * sum(back) + self.identity * sum(same)
        return {"loss": loss, "cycle": sum(back) / 2, "identity": sum(same) / 2}

    def given(self, batch: Batch) -> Batch:
        return batch

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0, *told: Batch
    ) -> torch.Tensor:
        """Each image of a batch in the other domain."""
        (batch,) = told
        weight = next(self.parameters())
        scaled = self.spec.scale(batch.items.to(weight.device), weight)
        first, second = (self.generator[to](scaled) for to in (0, 1))
        even = (batch.labels % 2 == 0).to(weight.device)[:, None, None, None]
        return self.spec.unscale(torch.where(even, second, first))
