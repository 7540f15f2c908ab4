"""Data sets that need no network: bundled with a dependency, generated, or local files."""

import os
from collections.abc import Callable
from pathlib import Path

from examples.data.bundled import digits, patches
from examples.data.dataset import Dataset
from examples.data.files import cifar10, mnist
from examples.data.synthetic import checkerboard, grid25, ring8
from examples.errors import unknown_name

__all__ = ["DATASETS", "Dataset", "load"]

BUNDLED: dict[str, Callable[[], Dataset]] = {
    "checkerboard": checkerboard,
    "digits": digits,
    "grid25": grid25,
    "patches": patches,
    "ring8": ring8,
}
LOCAL: dict[str, Callable[[Path | None], Dataset]] = {"cifar10": cifar10, "mnist": mnist}
DATASETS = {**BUNDLED, **LOCAL}


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Loads a data set.

    Args:
        name: a key of `DATASETS`.
        data_dir: folder of the files of "mnist" and "cifar10"; None: the environment variable
            ``GENKERN_DATA``.

    Raises:
        UsageError: an unknown name, or files that are missing or damaged.
    """
    if name in BUNDLED:
        return BUNDLED[name]()
    if name not in LOCAL:
        raise unknown_name("data set", name, sorted(DATASETS))
    folder = os.environ.get("GENKERN_DATA") if data_dir is None else data_dir
    return LOCAL[name](Path(folder) if folder else None)
