"""What a data set is to the harness."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from examples.model import DataSpec


@dataclass(frozen=True)
class Dataset:
    """Items in memory, in three disjoint splits.

    Args:
        name: as on the command line.
        spec: shape and levels of an item.
        splits: "train", "val" and "test" to items (N, *shape): levels as uint8, or float32.
        labels: split to classes (N,), int64; empty where there are none.
        log_density: exact log p of points (N, D), nats, where it is known.
    """

    name: str
    spec: DataSpec
    splits: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    log_density: Callable[[torch.Tensor], torch.Tensor] | None = None
