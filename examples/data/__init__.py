"""Data sets that need no network: bundled with a dependency, generated, or local files."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from examples.errors import unknown_name

if TYPE_CHECKING:
    import torch

    from examples.data.dataset import Dataset
    from examples.model import DataSpec


@dataclass(frozen=True)
class Source:
    """Where a data set is made, and what may be said of it before that (importing no torch).

    Args:
        path: "module:function".
        images: of integer levels; else points in the plane.
        labels: it has classes.
        colours: the images have three colours.
        large: they are of 28 x 28 pixels or more.
        local: it is read from files of the user's.
        images_of: "module:function" from a folder and items to the images that they stand for;
            "": they are what they are.
    """

    path: str
    images: bool
    labels: bool = False
    colours: bool = False
    large: bool = False
    local: bool = False
    images_of: str = ""


DATASETS = {
    "checkerboard": Source("examples.data.synthetic:checkerboard", images=False),
    "cifar10": Source(
        "examples.data.files:cifar10",
        images=True,
        labels=True,
        colours=True,
        large=True,
        local=True,
    ),
    "codes": Source(
        "examples.data.codes:codes",
        images=True,
        labels=True,
        local=True,
        images_of="examples.data.codes:images",
    ),
    "digits": Source("examples.data.bundled:digits", images=True, labels=True),
    "grid25": Source("examples.data.synthetic:grid25", images=False),
    "mnist": Source("examples.data.files:mnist", images=True, labels=True, large=True, local=True),
    "patches": Source("examples.data.bundled:patches", images=True, colours=True, large=True),
    "ring8": Source("examples.data.synthetic:ring8", images=False),
    "shapes": Source("examples.data.synthetic:shapes", images=True, labels=True, colours=True),
    "textures": Source("examples.data.bundled:textures", images=True, labels=True),
}


def source(name: str) -> Source:
    if name not in DATASETS:
        raise unknown_name("--data", name, DATASETS)
    return DATASETS[name]


def load(name: str, data_dir: str | None = None) -> "Dataset":
    """Loads a data set.

    Args:
        name: a key of `DATASETS`.
        data_dir: folder of the files of "mnist" and "cifar10", of the run whose "codes" are
            asked for; None: the environment variable ``GENKERN_DATA``.

    Raises:
        UsageError: an unknown name, or files that are missing or damaged.
    """
    make = _function(source(name).path)
    return make(_folder(data_dir)) if source(name).local else make()


def as_images(
    name: str, data_dir: str | None, items: "torch.Tensor", spec: "DataSpec"
) -> tuple["torch.Tensor", "DataSpec"]:
    """Items of a data set as people look at them, and what they are then: codes, decoded."""
    path = source(name).images_of
    return _function(path)(_folder(data_dir), items) if path else (items, spec)


def _function(path: str) -> Callable:
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function)


def _folder(data_dir: str | None) -> Path | None:
    folder = os.environ.get("GENKERN_DATA") if data_dir is None else data_dir
    return Path(folder) if folder else None
