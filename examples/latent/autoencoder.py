"""Autoencoders. Source: Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with
neural networks"; the linear one: Baldi and Hornik 1989, "Neural networks and principal component
analysis"."""

import torch
import torch.nn.functional as F
from torch import nn

from examples.latent.base import mlp
from examples.model import Batch, DataSpec, GenerativeModel

FORMS = ("linear", "deep", "convolutional")


def single(tensor: torch.Tensor) -> torch.Tensor:
    """At least in single precision: under autocast, networks give half."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def networks(
    form: str, spec: DataSpec, hidden: int, latent: int, outputs: int = 1
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder of images (N, C, H, W) to codes (N, latent), and decoder of codes to
    (N, outputs * C * H * W): one matrix each, three layers, or strided convolutions."""
    wide = outputs * spec.dims
    if form == "linear":
        return (
            nn.Sequential(nn.Flatten(), nn.Linear(spec.dims, latent)),
            nn.Sequential(nn.Linear(latent, wide)),
        )
    if form == "deep":
        return (
            nn.Sequential(nn.Flatten(), *mlp(spec.dims, hidden, latent)),
            mlp(latent, hidden, wide),
        )
    C, H, W = spec.shape
    if H % 4 or W % 4:
        raise ValueError(f"convolutional: the sides of images must be multiples of 4; got {H}x{W}")
    half, area = max(1, hidden // 4), (H // 4) * (W // 4)
    encoder = nn.Sequential(
        nn.Conv2d(C, half, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(half, 2 * half, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * half * area, latent),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 2 * half * area),
        nn.ReLU(),
        nn.Unflatten(1, (2 * half, H // 4, W // 4)),
        nn.ConvTranspose2d(2 * half, half, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(half, outputs * C, 4, 2, 1),
        nn.Flatten(),
    )
    return encoder, decoder


class Coder(GenerativeModel):
    """An encoder and a decoder: what the autoencoders share; ``form``, ``hidden``, ``latent`` and
    ``outputs`` are those of `networks`."""

    likelihood = False

    def __init__(
        self, spec: DataSpec, form: str, hidden: int, latent: int, outputs: int = 1
    ) -> None:
        super().__init__(spec)
        self.num_latent = latent
        self.encoder, self.decoder = networks(form, spec, hidden, latent, outputs)

    def scaled(self, items: torch.Tensor) -> torch.Tensor:
        return self.spec.scale(items, next(self.parameters()))

    def encode(self, items: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H, W) to codes (N, latent)."""
        return self.encoder(self.scaled(items))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (N, latent) to images (N, dims), data in [-1, 1]."""
        return self.decoder(codes)

    def levels(self, values: torch.Tensor) -> torch.Tensor:
        """Images (N, dims), data in [-1, 1], to the nearest levels (N, C, H, W)."""
        return self.spec.unscale(values).view(len(values), *self.spec.shape)

    def half_squares(self, items: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """1/2 |x - g(z)|^2, mean over the items."""
        target = self.scaled(items).flatten(1)
        squares = F.mse_loss(single(self.decode(codes)), target, reduction="sum")
        return 0.5 * squares / max(1, len(items))

    def normal(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        """N(0, I), (num_samples, latent)."""
        like = next(self.parameters())
        z = torch.randn(num_samples, self.num_latent, generator=generator, device=like.device)
        return z.to(like.dtype)


class Autoencoder(Coder):
    r"""The image behind a narrow code: min |x - g(f(x))|^2.

    The optimum of the linear one spans the principal components. An autoencoder is no model of
    p(x): samples are the decoded draws of a normal distribution with the mean and the covariance
    of the codes in training.

    Args:
        spec: images of integer levels.
        form: "linear", "deep" or "convolutional".
        hidden: width of the hidden layers; four times the channels of the outer convolutions.
        latent: dimensions of the code.
    """

    #: Of a new batch in the mean and the covariance of the codes.
    SHARE = 0.02

    def __init__(
        self, spec: DataSpec, *, form: str = "deep", hidden: int = 256, latent: int = 8
    ) -> None:
        super().__init__(spec, form, hidden, latent)
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_products", torch.eye(latent))  # E[z z^T]

    @torch.no_grad()
    def watch(self, codes: torch.Tensor) -> None:
        codes = codes.to(self.code_mean.dtype)
        self.code_mean.lerp_(codes.mean(0), self.SHARE)
        self.code_products.lerp_(codes.T @ codes / len(codes), self.SHARE)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        codes = self.encode(batch.items)
        if self.training:
            self.watch(codes)
        return {"loss": self.half_squares(batch.items, codes)}

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Decoded codes: their mean, and ``temperature`` times what is drawn about it."""
        mean = self.code_mean
        values, vectors = torch.linalg.eigh(self.code_products - torch.outer(mean, mean))
        spread = vectors * values.clamp(min=0.0).sqrt()
        codes = mean + temperature * self.normal(num_samples, generator) @ spread.T
        return self.levels(self.decode(codes))
