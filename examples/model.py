"""What every model of `examples` offers, and all that the harness knows about one."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn


@dataclass(frozen=True)
class DataSpec:
    """What a model is told about its data.

    Args:
        shape: of one item: (C, H, W) for images, (D,) for points.
        levels: items are integers 0 .. levels - 1; None: real numbers.
        classes: labels are 0 .. classes - 1; None: there are none.
    """

    shape: tuple[int, ...]
    levels: int | None
    classes: int | None = None

    @property
    def dims(self) -> int:
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    def scale(self, items: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Levels 0 .. levels - 1 to [-1, 1], in the dtype of ``like``; real numbers unchanged."""
        items = items.to(like.dtype)
        return items if self.levels is None else items * (2.0 / (self.levels - 1)) - 1.0

    def unscale(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `scale`, rounded to the nearest level."""
        if self.levels is None:
            return values
        levels = ((values + 1.0) * ((self.levels - 1) / 2.0)).round()
        return levels.clamp(0, self.levels - 1).to(torch.uint8)


@dataclass(frozen=True)
class Batch:
    """What a loss is computed on.

    Args:
        items: (N, *shape): levels as uint8, or real numbers.
        labels: (N,) int64; None where the data have none.
    """

    items: torch.Tensor
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: torch.device) -> "Batch":
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(self.items.to(device), labels)


class GenerativeModel(nn.Module, ABC):
    """Base of the models: a loss to minimise, and samples.

    A model is trained by its players in turn (`players`, `schedule`); most have one, a GAN has
    two. Calling the model computes a loss, so that wrappers such as DDP see every forward pass.

    A turn is the name of a player, or "PLAYER REGULARISER": that player's optimiser minimises what
    `loss` gives for the whole name, which with `intervals` may come less often (lazy
    regularisation).
    """

    #: The loss is a negative log-likelihood (or a bound on it) in nats per item.
    likelihood: ClassVar[bool] = True
    #: All processes draw the same noise, and each takes its share: several train as one.
    shared_noise: ClassVar[bool] = False

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def players(self) -> dict[str, nn.Module]:
        """The parts that have an optimiser each."""
        return {"model": self}

    @property
    def schedule(self) -> tuple[str, ...]:
        """The turns of one training step; each takes a fresh batch."""
        return ("model",)

    @property
    def intervals(self) -> dict[str, int]:
        """Of a turn that comes only every so many steps, from the first on: how many."""
        return {}

    def turns(self, step: int) -> list[str]:
        """The turns of the training step behind ``step`` others."""
        return [turn for turn in self.schedule if step % self.intervals.get(turn, 1) == 0]

    @abstractmethod
    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        """Scalars to log; the one named "loss" is minimised by the player."""

    @abstractmethod
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Draws items (num_samples, *spec.shape): levels as uint8, or real numbers.

        A model whose entry says ``labels=True`` takes labels (num_samples,) as a fourth argument.
        """

    def forward(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        return self.loss(batch, generator, player)
