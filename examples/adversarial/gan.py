"""GAN of two perceptrons. Source: Goodfellow et al. 2014, "Generative adversarial nets"."""

import torch
from torch import nn

from examples.model import Batch, DataSpec, GenerativeModel
from genkern.nn import GANLoss


class GAN(GenerativeModel):
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

    likelihood = False

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
        super().__init__(spec)
        self.num_latent = latent
        self.k = k
        self.criterion = GANLoss(kind, label_smoothing=label_smoothing, saturating=saturating)
        self.generator = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, spec.dims),
            nn.Identity() if spec.levels is None else nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(spec.dims, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(hidden, 1),
        )

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    @property
    def schedule(self) -> tuple[str, ...]:
        return ("discriminator",) * self.k + ("generator",)

    def generate(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        weight = self.generator[0].weight
        z = torch.randn(num_samples, self.num_latent, generator=generator, device=weight.device)
        return self.generator(z.to(weight.dtype))

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "generator"
    ) -> dict[str, torch.Tensor]:
        with torch.set_grad_enabled(player == "generator" and torch.is_grad_enabled()):
            fake = self.generate(len(batch), generator)
        fake_logits = self.discriminator(fake)
        real = self.spec.scale(batch.items, fake).flatten(1)
        if player == "generator":  # only the relativistic loss compares with real data
            real_logits = self.discriminator(real) if self.criterion.kind == "rabce" else None
            return {"loss": self.criterion.generator(fake_logits, real_logits)}
        real_logits = self.discriminator(real)
        loss = self.criterion.discriminator(real_logits, fake_logits)
        return {"loss": loss, "D(x)": real_logits.mean(), "D(G(z))": fake_logits.mean()}

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Samples of z drawn from N(0, temperature^2 I)."""
        weight = self.generator[0].weight
        z = torch.randn(num_samples, self.num_latent, generator=generator, device=weight.device)
        values = self.generator(temperature * z.to(weight.dtype))
        return self.spec.unscale(values).view(num_samples, *self.spec.shape)
