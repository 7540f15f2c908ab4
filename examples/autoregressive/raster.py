"""The likelihood and the sampling that all raster-order models share."""

from abc import abstractmethod

import torch
import torch.nn.functional as F

from examples.model import Batch, GenerativeModel


class RasterModel(GenerativeModel):
    r"""A model of images pixel by pixel, colour by colour, with a softmax over the levels.

    .. math:: p(x) = \prod_{i,c} p(x_{i,c} \mid x_{<i}, x_{i,<c})

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 2.
    """

    @abstractmethod
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] to the head's output (N, C * levels, H, W)."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H, W) to logits (N, levels, C, H, W): each pixel's sees only its past."""
        scaled = self.spec.scale(images, next(self.parameters()))
        C, H, W = self.spec.shape
        return self.features(scaled).view(-1, C, self.spec.levels, H, W).transpose(1, 2)

    def nll(self, images: torch.Tensor) -> torch.Tensor:
        """Exact negative log-likelihood (N,), nats per image."""
        return F.cross_entropy(self.logits(images), images.long(), reduction="none").sum((1, 2, 3))

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        return {"loss": self.nll(batch.items).mean()}

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Ancestral sampling with one full forward pass per pixel and colour.

        Args:
            temperature: divides the logits; below 1 favours likely levels.
        """
        C, H, W = self.spec.shape
        device = next(self.parameters()).device
        images = torch.zeros(num_samples, C, H, W, dtype=torch.uint8, device=device)
        for row in range(H):
            for col in range(W):
                for colour in range(C):
                    logits = self.logits(images)[:, :, colour, row, col].float() / temperature
                    level = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)
                    images[:, colour, row, col] = level[:, 0].to(torch.uint8)
        return images
