"""A part of the digits, for tests of what is done with data rather than of what is learned."""

import functools

from examples import data
from examples.data.dataset import Dataset

COUNTS = {"train": 150, "val": 40, "test": 48}  # of the last, `scores` makes 24 parts


@functools.cache
def few_digits() -> Dataset:
    """The first of each split, all classes among them."""
    whole = data.load("digits")
    items, labels = (
        {split: part[split][:count] for split, count in COUNTS.items()}
        for part in (whole.splits, whole.labels)
    )
    assert all(len(found.unique()) == whole.spec.classes for found in labels.values())
    return Dataset(whole.name, whole.spec, items, labels)
