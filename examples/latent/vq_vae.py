"""VQ-VAE. Source: van den Oord et al. 2017, "Neural discrete representation learning", sec. 3,
app. A.1 (moving averages); codes without use start anew: Dhariwal et al. 2020, "Jukebox: a
generative model for music", sec. 3.1."""

import math

import torch
import torch.nn.functional as F
from torch import nn

import genkern
from examples.latent.autoencoder import single
from examples.model import Batch, DataSpec, GenerativeModel


class Codebook(nn.Module):
    """Vectors to the nearest of K, which follow those that fall to them.

    A vector e_k is the ratio of two moving averages: the sum of the vectors that fell to k, and
    their count, where 1 is the K-th part of all. One that is hardly used takes the place of a
    vector of the batch.

    Args:
        codes: K.
        size: of a vector.
    """

    SHARE, UNUSED = 0.01, 0.05

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.randn(codes, size))
        self.register_buffer("counts", torch.ones(codes))

    @property
    def vectors(self) -> torch.Tensor:
        return self.sums / self.counts[:, None]

    def nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """(M, size) to the numbers of the nearest (M,)."""
        return torch.cdist(vectors, self.vectors).argmin(1)

    @torch.no_grad()
    def follow(self, vectors: torch.Tensor, numbers: torch.Tensor, generator: torch.Generator):
        """Moving averages of what fell to each code; then new places of those without use."""
        fell = F.one_hot(numbers, len(self.counts)).to(vectors.dtype)
        each = len(self.counts) / len(vectors)
        self.counts.lerp_(each * fell.sum(0), self.SHARE)
        self.sums.lerp_(each * (fell.T @ vectors), self.SHARE)
        size, device = self.counts.shape, vectors.device
        chosen = torch.randint(len(vectors), size, generator=generator, device=device)
        unused = self.counts < self.UNUSED
        self.sums.copy_(torch.where(unused[:, None], vectors[chosen], self.sums))
        self.counts.masked_fill_(unused, 1.0)


class VQVAE(GenerativeModel):
    r"""A map of codes between encoder and decoder; the gradient passes the codebook unchanged.

    .. math:: -\log p(x \mid e_{k(x)}) + \beta \lVert z(x) - sg[e_{k(x)}] \rVert^2, \qquad
              -\log p(x) \le -\log p(x \mid e_{k(x)}) - \log p(k(x))

    What is evaluated is the bound, with equally likely codes (M log K nats for a map of M); a
    model of the maps makes it tighter, and samples that hold together::

        python -m examples train pixel_cnn --data codes --data-dir runs/vq_vae --out runs/prior
        python -m examples sample pixel_cnn --run runs/prior

    Args:
        spec: images of integer levels.
        hidden: channels of the convolutions.
        codes: K.
        size: of a vector of the codebook.
        downs: how often the sides are halved.
        beta: weight of the commitment of the encoder to its codes.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int = 64,
        codes: int = 32,
        size: int = 16,
        downs: int = 1,
        beta: float = 0.25,
    ) -> None:
        super().__init__(spec)
        C, H, W = spec.shape
        if H % 2**downs or W % 2**downs:
            raise ValueError(f"downs must halve the sides {H}x{W} evenly; got {downs}")
        self.beta = beta
        layers: list[nn.Module] = []
        for number in range(downs):
            layers += [nn.Conv2d(hidden if number else C, hidden, 4, 2, 1), nn.ReLU()]
        layers += [nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(hidden, size, 1))
        self.codebook = Codebook(codes, size)
        layers = [nn.Conv2d(size, hidden, 3, padding=1), nn.ReLU()]
        for _ in range(downs):
            layers += [nn.ConvTranspose2d(hidden, hidden, 4, 2, 1), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(hidden, 2 * C, 3, padding=1))
        #: Of a map of codes.
        self.code_spec = DataSpec((1, H >> downs, W >> downs), codes, spec.classes)

    def encode(self, items: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H, W) to vectors (N, size, H', W'), before the codebook."""
        return single(self.encoder(self.spec.scale(items, next(self.parameters()))))

    @torch.no_grad()
    def code_maps(self, items: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H, W) to codes (N, 1, H', W'), uint8."""
        z = self.encode(items)
        numbers = self.codebook.nearest(z.movedim(1, -1).reshape(-1, z.shape[1]))
        return numbers.view(len(z), *self.code_spec.shape).to(torch.uint8)

    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors (N, size, H', W') to mean and log-scale (N, C, H, W), data in [-1, 1]."""
        mean, log_scale = single(self.decoder(z)).chunk(2, dim=1)
        return mean, log_scale.clamp(-7.0, 7.0)

    @torch.no_grad()
    def images(self, maps: torch.Tensor) -> torch.Tensor:
        """Codes (N, 1, H', W') to the means of the images, rounded to levels (N, C, H, W)."""
        vectors = self.codebook.vectors[maps[:, 0].long()].movedim(-1, 1)
        return self.spec.unscale(self.decode(vectors)[0])

    def nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(x | z) (N,), nats: z (N, size, H', W')."""
        mean, log_scale = self.decode(z)
        return genkern.discretized_logistic_nll(mean, log_scale, items, levels=self.spec.levels)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        z = self.encode(batch.items)
        flat = z.detach().movedim(1, -1).reshape(-1, z.shape[1])
        numbers = self.codebook.nearest(flat)
        found = self.codebook.vectors[numbers].view(z.movedim(1, -1).shape).movedim(-1, 1)
        reconstruction = self.nll(batch.items, z + (found - z).detach()).mean()
        commitment = (z - found).square().flatten(1).sum(1).mean()
        if self.training:
            self.codebook.follow(flat, numbers, generator)
        share = numbers.bincount(minlength=self.code_spec.levels) / len(numbers)
        of_codes = self.code_spec.dims * math.log(self.code_spec.levels)
        return {
            "loss": reconstruction + (self.beta * commitment if self.training else of_codes),
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": torch.special.entr(share).sum().exp(),
        }

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Images of codes that are drawn each alone, as often as each is used (to the power of
        1 / temperature): what a model of the maps is needed for."""
        chances = self.codebook.counts.clamp(min=0.0) ** (1.0 / temperature)
        many = num_samples * self.code_spec.dims
        numbers = torch.multinomial(chances, many, replacement=True, generator=generator)
        return self.images(numbers.view(num_samples, *self.code_spec.shape))
