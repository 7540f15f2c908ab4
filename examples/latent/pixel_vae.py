"""PixelVAE. Source: Gulrajani et al. 2016, "PixelVAE: a latent variable model for natural
images", sec. 3."""

import torch
from torch import nn

import genkern
from examples.autoregressive.raster import RasterModel
from examples.latent.vae import VAE
from examples.model import DataSpec
from genkern.nn import MaskedConv2d


class LatentPixelCNN(RasterModel):
    r"""p(x | z) = prod_i p(x_i | x_{<i}, z): a few gated masked convolutions over the pixels, and
    a map of features that a perceptron makes of z in the activation of each (fig. 1).

    Args:
        spec: images of integer levels.
        hidden: channels of the convolutions and of the map.
        layers: convolutions, 3 x 3; few, so that z has to say what is far away.
        width: of the perceptron.
        latent: dimensions of z.
    """

    condition = "latent"

    def __init__(self, spec: DataSpec, hidden: int, layers: int, width: int, latent: int) -> None:
        super().__init__(spec)
        C, H, W = spec.shape
        self.map = nn.Sequential(
            nn.Linear(latent, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, hidden * H * W),
            nn.Unflatten(1, (hidden, H, W)),
        )
        self.convolutions = nn.ModuleList(
            MaskedConv2d(
                hidden if i else C,
                2 * hidden,
                3,
                mask_type="B" if i else "A",
                data_channels=C,
                parts=2,
            )
            for i in range(layers)
        )
        self.conditions = nn.ModuleList(nn.Conv2d(hidden, 2 * hidden, 1) for _ in range(layers))
        self.head = MaskedConv2d(hidden, spec.levels * C, 1, data_channels=C)

    def encode(self, given: torch.Tensor | None) -> torch.Tensor | None:
        """z (N, latent) to its map (N, hidden, H, W)."""
        return self.map(given)

    def features(self, images: torch.Tensor, encoded: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.trunk(images, encoded))

    def trunk(self, images: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        x = images
        layers = zip(self.convolutions, self.conditions, strict=True)
        for number, (convolution, condition) in enumerate(layers):
            gated = genkern.gated_activation(convolution(x), condition(encoded))
            x = x + gated if number else gated
        return x

    def split(self) -> tuple[nn.Module, MaskedConv2d]:
        return self.trunk, self.head


class PixelVAE(VAE):
    """A VAE whose decoder draws the pixels one after the other: KL and masked convolutions.

    What neighbours tell, the decoder learns from them, and z is left with the rest: the KL is a
    smaller share of the bound than a VAE's (`python -m examples.latent.uses kl_share RUN RUN`).

    Args:
        spec: images of integer levels.
        hidden: width of the hidden layers of encoder and decoder.
        latent: dimensions of z.
        channels, layers: of the masked convolutions.
        beta: weight of the KL in training (1: the ELBO).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int = 256,
        latent: int = 8,
        channels: int = 32,
        layers: int = 2,
        beta: float = 1.0,
    ) -> None:
        super().__init__(spec, hidden=hidden, latent=latent, beta=beta)
        self.decoder = LatentPixelCNN(spec, channels, layers, hidden, latent)

    def reconstruction_nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        rows = z.reshape(-1, z.shape[-1])
        repeated = items.expand(len(rows) // max(1, len(items)), *items.shape).flatten(0, 1)
        return self.decoder.nll(repeated, rows).view(z.shape[:-1])

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """z of N(0, I), then the pixels one after the other, their logits over ``temperature``."""
        z = self.prior().sample(torch.Size([num_samples]), generator)
        return self.decoder.sample(num_samples, generator, temperature, z)
