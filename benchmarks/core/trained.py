"""A training step of a whole network, by genkern and by others: what `training` times."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.core.case import Case, Target
from examples.model import DataSpec

OP, PHASE = "training", "step"


@dataclass(frozen=True)
class Trained(ABC):
    """A step on ``batch`` items of ``spec``."""

    name: str
    batch: int
    spec: DataSpec

    def images(self, count: int | None = None) -> torch.Tensor:
        """``count`` items, or ``batch``: random levels, or normal numbers."""
        shape = (count or self.batch, *self.spec.shape)
        if self.spec.levels is None:
            return torch.randn(shape)
        return torch.randint(self.spec.levels, shape, dtype=torch.uint8)

    @abstractmethod
    def built(self) -> dict[str, tuple[nn.Module, Callable]]:
        """Each implementation's network, and from images to its loss."""

    @abstractmethod
    def case(self) -> Case:
        """What a record says of it."""

    def notes(self, steps: Mapping[str, Callable]) -> list[str]:
        """Lines to print beside the times."""
        return []

    def record(
        self,
        network: nn.Module,
        flops: tuple[float, float],
        targets: Mapping[str, Target],
        **others: Any,
    ) -> Case:
        size = float(sum(p.numel() for p in network.parameters()))
        nothing: Callable = lambda *_: torch.empty(0)  # noqa: E731
        return Case(
            family=OP,
            op=OP,
            shape=self.name,
            inputs=dict,
            genkern=nothing,
            eager=nothing,
            reference=nothing,
            outputs=("loss",),
            flops=flops,
            elements=(size, 8 * size),  # Adam reads four and writes three
            phases=(PHASE,),
            targets=dict(targets),
            **others,
        )
