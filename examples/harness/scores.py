"""How good a trained model is, with an interval: bits per dimension, or a distance of samples."""

import math
import statistics
from collections.abc import Sequence

import torch

from examples.data.dataset import Dataset
from examples.harness.recorder import bits_per_dim
from examples.harness.sampling import draw
from examples.model import Batch, GenerativeModel

#: The test split is cut into so many parts; each gives an independent estimate.
PARTS = 24
#: The 97.5 % point of Student's t distribution, by the number of values: seeds, or parts.
STUDENT = {3: 4.303, 5: 2.776, PARTS: 2.069}
#: The 97.5 % point of the normal distribution, for means of some hundred items.
NORMAL = 1.960


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


@torch.no_grad()
def bits(model: GenerativeModel, dataset: Dataset) -> tuple[float, float]:
    """Test bits per dimension (a bound where the loss is one), and half its 95 % interval."""
    generator = torch.Generator().manual_seed(0)
    size = len(dataset.splits["test"]) // PARTS
    batches = [batch for batch in dataset.batches("test", size) if len(batch) == size]
    nats = [model(batch, generator)["loss"].item() for batch in batches[:PARTS]]
    return interval([bits_per_dim(model.spec, value) for value in nats])


@torch.no_grad()
def distance(name: str, model: GenerativeModel, dataset: Dataset) -> tuple[float, float]:
    r"""Energy distance of samples to the test split, and half its 95 % interval.

    .. math:: 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    per root of the dimensions, in data scaled to [-1, 1]: 0 for equal distributions. Each part is
    compared with fresh samples; pairs of one item with itself are left out, so that the
    mean of the estimates is exact. What a model is given, images or classes, is that of another
    part: classes in turn would be less alike than independent ones. Source: Szekely and Rizzo
    2013, "Energy statistics", eq. 5.
    """
    generator = torch.Generator().manual_seed(0)
    size = len(dataset.splits["test"]) // PARTS
    like = torch.empty(0, dtype=torch.float64)
    whole = dataset.whole("test")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    parts = order[: PARTS * size].view(PARTS, size)  # neighbours in the split may be alike
    values = []
    for number, part in enumerate(parts):
        real, other = whole.items[part], parts[number - 1]
        labels = None if whole.labels is None else whole.labels[other]
        given = Batch(whole.items[other], labels)
        drawn = draw(name, model, size, generator, batch=given, classes_of=labels).cpu()
        x, y = (model.spec.scale(items, like).flatten(1) for items in (real, drawn))
        pairs = size * (size - 1)
        within = (torch.cdist(x, x).sum() + torch.cdist(y, y).sum()) / pairs
        value = 2 * torch.cdist(x, y).mean() - within
        values.append(value.item() / math.sqrt(model.spec.dims))
    return interval(values)
