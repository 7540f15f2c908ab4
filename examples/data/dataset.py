"""What a data set is to the harness."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from examples.model import Batch, DataSpec


@dataclass(frozen=True)
class Dataset:
    """Items in memory, in three disjoint splits.

    Args:
        name: as on the command line.
        spec: shape and levels of an item, and the number of classes.
        splits: "train", "val" and "test" to items (N, *shape): levels as uint8, or float32.
        labels: split to classes (N,), int64; empty where there are none.
        log_density: exact log p of points (N, D), nats, where it is known.
        word: what the user is to be told about the files.
    """

    name: str
    spec: DataSpec
    splits: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    log_density: Callable[[torch.Tensor], torch.Tensor] | None = None
    word: str = ""

    def batches(self, split: str, size: int) -> Iterator[Batch]:
        """A split in its own order; the last batch may be smaller."""
        items, labels = self.splits[split], self.labels.get(split)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            yield Batch(items[part], None if labels is None else labels[part])

    def whole(self, split: str) -> Batch:
        return Batch(self.splits[split], self.labels.get(split))

    def digest(self) -> str:
        """SHA-256 of every item and label."""
        content = hashlib.sha256()
        for part in (self.splits, self.labels):
            for split in sorted(part):
                content.update(part[split].contiguous().numpy().tobytes())
        return content.hexdigest()
