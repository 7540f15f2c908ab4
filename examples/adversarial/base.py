"""What the adversarial models share: two players, noise, and the loss of each."""

import torch
import torch.distributed as dist
from torch import nn

from examples.model import Batch, DataSpec, GenerativeModel
from genkern.nn import GANLoss, GradientPenalty


def processes() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class Adversarial(GenerativeModel):
    r"""Generator against discriminator, k discriminator steps per generator step.

    A model makes the two networks, and says what is particular: the criterion, a penalty, what
    both networks are told (`told`), or a loss of its own.

    Args:
        spec: items of integer levels or real numbers.
        generator: z (N, latent), and what it is told, to items in [-1, 1].
        discriminator: items, and what it is told, to logits.
        latent: dimensions of z ~ N(0, I).
        criterion: loss of both players.
        penalty: on the gradient of the discriminator.
        k: discriminator steps per generator step.
    """

    likelihood = False
    shared_noise = True

    def __init__(
        self,
        spec: DataSpec,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        latent: int,
        criterion: GANLoss,
        penalty: GradientPenalty | None = None,
        k: int = 1,
    ) -> None:
        super().__init__(spec)
        self.generator, self.discriminator = generator, discriminator
        self.num_latent, self.k = latent, k
        self.criterion, self.penalty = criterion, penalty

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    @property
    def schedule(self) -> tuple[str, ...]:
        return ("discriminator",) * self.k + ("generator",)

    def told(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What both networks are given beside their input."""
        return ()

    def noise(self, num: int, generator: torch.Generator) -> torch.Tensor:
        """z of the dtype of the weights: the share of this process of what all draw."""
        weight = next(self.generator.parameters())
        rank, count = processes()
        shape = num * count, self.num_latent
        z = torch.randn(shape, generator=generator, device=weight.device)[rank::count]
        return z.to(weight.dtype)

    def generate(self, num: int, generator: torch.Generator, *told: torch.Tensor) -> torch.Tensor:
        return self.generator(self.noise(num, generator), *told)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "generator"
    ) -> dict[str, torch.Tensor]:
        if self.criterion.kind == "rabce" and dist.is_initialized():
            self.criterion.process_group = dist.group.WORLD  # its means are those of all processes
        told = self.told(batch)
        with torch.set_grad_enabled(player == "generator" and torch.is_grad_enabled()):
            fake = self.generate(len(batch), generator, *told)
        real = self.spec.scale(batch.items, fake).view_as(fake)
        if player == "generator":
            return self.generator_loss(real, fake, *told)
        return self.discriminator_loss(generator, real, fake, *told)

    def generator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, *told: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        fake_logits = self.discriminator(fake, *told)
        # Only the relativistic loss compares with real data.
        compared = self.discriminator(real, *told) if self.criterion.kind == "rabce" else None
        return {"loss": self.criterion.generator(fake_logits, compared)}

    def discriminator_loss(
        self,
        generator: torch.Generator,
        real: torch.Tensor,
        fake: torch.Tensor,
        *told: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        fake_logits, real_logits = self.discriminator(fake, *told), self.discriminator(real, *told)
        loss = self.criterion.discriminator(real_logits, fake_logits)
        means = {"D(x)": real_logits.mean(), "D(G(z))": fake_logits.mean()}
        if self.penalty is None:
            return {"loss": loss, **means}
        judge = lambda x: self.discriminator(x, *told)  # noqa: E731
        penalty = self.penalty(judge, real, fake, generator=generator)
        return {"loss": loss + penalty, "penalty": penalty, **means}

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        *told: torch.Tensor,
    ) -> torch.Tensor:
        """Samples of z drawn from N(0, temperature^2 I)."""
        values = self.generator(temperature * self.noise(num_samples, generator), *told)
        return self.spec.unscale(values).view(num_samples, *self.spec.shape)
