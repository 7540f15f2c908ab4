"""The order of the training data: a function of the seed and the position alone."""

import numpy as np
import torch

from examples.errors import wrong
from examples.model import Batch

ORDER, NOISE = 0, 1


def stream_seed(seed: int, stream: int, index: int) -> int:
    """The seed of an independent generator: of the order of an epoch, the noise of a process."""
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)[0])


class Batches:
    """Draws shuffled batches without end; `position` is all its state.

    Epoch e visits the items in an order drawn from (seed, e); what is left of an epoch when it
    no longer fills a batch is skipped. Each process takes its share of every
    batch, so that the order does not depend on how many there are.

    Args:
        items: (N, ...).
        labels: (N,), or None.
        batch_size: items in a batch, over all processes.
        seed: of the order.
        rank, world_size: this process, and how many there are.
    """

    def __init__(
        self,
        items: torch.Tensor,
        labels: torch.Tensor | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size > len(items):
            takes = f"at most the {len(items)} items of the training data"
            raise wrong("--batch-size", takes, batch_size)
        if batch_size % world_size:
            takes = f"a multiple of the {world_size} processes"
            raise wrong("--batch-size", takes, batch_size)
        self.items, self.labels = items, labels
        self.batch_size = batch_size
        self.seed = seed
        self.share = slice(rank, None, world_size)
        self.position = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def next_indices(self) -> torch.Tensor:
        """Indices of this process's share of the next batch."""
        epoch, batch = divmod(self.position, len(self.items) // self.batch_size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, ORDER, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.items), generator=generator)
        self.position += 1
        start = batch * self.batch_size
        return self._order[start : start + self.batch_size][self.share]

    def next(self) -> Batch:
        chosen = self.next_indices()
        return Batch(self.items[chosen], None if self.labels is None else self.labels[chosen])
