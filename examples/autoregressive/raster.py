"""The likelihood and the sampling that all raster-order models share."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch

import genkern
from examples.model import Batch, GenerativeModel
from genkern import sampling
from genkern.nn import MaskedConv2d

#: (row, col, colour)
Place = tuple[int, int, int]


class RasterModel(GenerativeModel):
    r"""A model of images pixel by pixel, colour by colour, with a softmax over the levels.

    .. math:: p(x) = \prod_{i,c} p(x_{i,c} \mid x_{<i}, x_{i,<c})

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 2.
    """

    #: What it is given, in words: "class", or of what image; "": it models p(x).
    condition: ClassVar[str] = ""
    #: It draws by its own `steps`: they carry a state, or come in another order than the raster.
    own_steps: ClassVar[bool] = False

    @property
    def distribution(self) -> sampling.Output:
        """What `features` means, for `genkern.sampling.sample`."""
        return sampling.Categorical(self.spec.levels)

    @abstractmethod
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] to the head's output (N, C * levels, H, W).

        A model with a ``condition`` takes what `encode` made of it after the images.
        """

    def given(self, batch: Batch) -> torch.Tensor | None:
        """What the model is told of a batch: classes (N,), an image (N, C', H, W), or nothing."""
        return batch.labels if self.condition == "class" else None

    def encode(self, given: torch.Tensor | None) -> torch.Tensor | None:
        """What `features` takes of the condition: made once for a whole image."""
        return given

    def logits(self, images: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """Levels (N, C, H, W) to logits (N, levels, C, H, W): each pixel's sees only its past."""
        return self.logits_of(images, self.encode(given))

    def logits_of(self, images: torch.Tensor, encoded: torch.Tensor | None) -> torch.Tensor:
        """`logits`, given what `encode` made of the condition."""
        scaled = self.spec.scale(images, next(self.parameters()))
        features = self.features(scaled, encoded) if self.condition else self.features(scaled)
        return features.unflatten(1, (-1, self.spec.levels)).transpose(1, 2)

    def split(self) -> tuple[Callable[..., torch.Tensor], MaskedConv2d] | None:
        """`features` in two, where the last layer is 1 x 1: all before it, and that layer."""
        return None

    def nll(self, images: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """Exact negative log-likelihood (N,), nats per image."""
        C, parts = images.shape[1], self.split()
        if parts is None:
            return genkern.pixel_cross_entropy(self.logits(images, given), images, data_channels=C)
        trunk, head = parts  # the logits, which are larger than all features, are never stored
        scaled = self.spec.scale(images, next(self.parameters()))
        features = trunk(scaled, self.encode(given)) if self.condition else trunk(scaled)
        return genkern.pixel_cross_entropy(
            features, images, head.weight, head.bias, data_channels=C, masked=True
        )

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        return {"loss": self.nll(batch.items, self.given(batch)).mean()}

    def places(self) -> list[Place]:
        """In the order of the factors."""
        C, H, W = self.spec.shape
        return list(itertools.product(range(H), range(W), range(C)))

    def steps(
        self, images: torch.Tensor, given: torch.Tensor | None = None
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        """Each place and its logits (N, levels), once ``images`` hold all places before it.

        One full forward pass each; a model that can carry a state does better.
        """
        encoded = self.encode(given)
        for row, col, colour in self.places():
            yield (row, col, colour), self.logits_of(images, encoded)[:, :, colour, row, col]

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        given: torch.Tensor | None = None,
        partial: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ancestral sampling: `genkern.sampling.sample`, or the model's own steps.

        Args:
            temperature: divides the logits; below 1 favours likely levels, 0 takes the likeliest.
            given: of a model with a condition: as `given` has it, one for each sample.
            partial: levels (num_samples, C, H, W), -1 where they are to be drawn. The samples
                follow p(rest | given) where what is given comes first in the order of `places`.
        """
        device = next(self.parameters()).device
        given = None if given is None else given.to(device)
        if not self.own_steps:
            return sampling.sample(
                self.features,
                num_samples,
                shape=self.spec.shape,
                output=self.distribution,
                condition=self.encode(given) if self.condition else None,
                partial=partial,
                temperature=temperature,
                generator=generator,
            )
        images = torch.zeros(num_samples, *self.spec.shape, dtype=torch.uint8, device=device)
        if partial is None:
            self.draw_images(images, generator, temperature, given)
        else:
            self.fill(images, self.steps(images, given), generator, temperature, partial)
        return images

    def draw_images(
        self,
        images: torch.Tensor,
        generator: torch.Generator,
        temperature: float,
        given: torch.Tensor | None,
    ) -> None:
        """Draws all of ``images``, zeros: place by place, unless a model has a better way."""
        self.fill(images, self.steps(images, given), generator, temperature)

    def fill(
        self,
        images: torch.Tensor,
        steps: Iterator[tuple[Place, torch.Tensor]],
        generator: torch.Generator,
        temperature: float,
        partial: torch.Tensor | None = None,
    ) -> None:
        """Draws the places one after the other into ``images``, which the steps read."""
        for (row, col, colour), logits in steps:
            if temperature == 0:
                level = logits.argmax(1)
            else:
                scaled = logits.float() / temperature
                level = torch.multinomial(scaled.softmax(dim=1), 1, generator=generator)[:, 0]
            if partial is not None:
                given = partial[:, colour, row, col].to(level)
                level = torch.where(given >= 0, given, level)
            images[:, colour, row, col] = level.to(torch.uint8)
