"""Data inside the wheels of scikit-learn and scikit-image."""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.model import DataSpec

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
PATCH = 32


def digits() -> Dataset:
    """scikit-learn's 1797 handwritten digits: 8x8, 17 levels; test 360, validation 180.

    The split is stratified by class and fixed.
    """
    from sklearn.model_selection import train_test_split

    images, classes = _digits()
    x, x_test, y, y_test = train_test_split(
        images, classes, test_size=360, stratify=classes, random_state=0
    )
    x_train, x_val, y_train, y_val = train_test_split(
        x, y, test_size=180, stratify=y, random_state=0
    )
    return Dataset(
        "digits",
        DataSpec((1, 8, 8), 17, 10),
        {k: torch.from_numpy(v) for k, v in _splits(x_train, x_val, x_test).items()},
        {k: torch.from_numpy(v).long() for k, v in _splits(y_train, y_val, y_test).items()},
    )


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Levels (1797, 1, 8, 8) and classes: read once, from text, which takes the longest."""
    from sklearn.datasets import load_digits

    source = load_digits()
    return source.images.astype(np.uint8)[:, None], source.target


def patches() -> Dataset:
    """32x32 RGB patches of scikit-image's photographs, split by area so that none overlap.

    The left 70 % of each picture is for training (patches overlap, stride 8), the next 10 % for
    validation, the right 20 % for testing (both without overlap).
    """
    found = {"train": [], "val": [], "test": []}
    for picture in _pictures():
        width = picture.shape[2]
        bounds = {"train": (0.0, 0.7, 8), "val": (0.7, 0.8, PATCH), "test": (0.8, 1.0, PATCH)}
        for split, (left, right, stride) in bounds.items():
            area = picture[:, :, round(left * width) : round(right * width)]
            tiles = area.unfold(1, PATCH, stride).unfold(2, PATCH, stride)
            found[split].append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, PATCH, PATCH))
    splits = {split: torch.cat(tiles) for split, tiles in found.items()}
    return Dataset("patches", DataSpec((3, PATCH, PATCH), 256), splits, {})


def textures() -> Dataset:
    """16x16 patches of brick (class 0) and gravel (1), grey, at a third of scikit-image's scale.

    Split by area as `patches`; those of one area overlap.
    """
    bounds = {"train": (0.0, 0.7, 2), "val": (0.7, 0.8, 4), "test": (0.8, 1.0, 4)}
    found, labels = {split: [] for split in bounds}, {split: [] for split in bounds}
    for label, picture in enumerate(_pictures(("brick.png", "gravel.png"))):
        grey = picture[:1].float()
        grey = torch.nn.functional.avg_pool2d(grey, 3).round().to(torch.uint8)
        width = grey.shape[2]
        for split, (left, right, stride) in bounds.items():
            area = grey[:, :, round(left * width) : round(right * width)]
            tiles = area.unfold(1, 16, stride).unfold(2, 16, stride)
            found[split].append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 1, 16, 16))
            labels[split].append(torch.full((len(found[split][-1]),), label))
    splits, classes = ({k: torch.cat(v) for k, v in part.items()} for part in (found, labels))
    return Dataset("textures", DataSpec((1, 16, 16), 256, 2), splits, classes)


def _splits(train: np.ndarray, val: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    return {"train": train, "val": val, "test": test}


def _pictures(names: tuple[str, ...] = PICTURES) -> list[torch.Tensor]:
    # The files are opened directly: skimage.data would download a picture that it lacks.
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    missing = [str(folder / name) for name in names if not (folder / name).is_file()]
    if missing:
        raise UsageError("patches: scikit-image lacks its pictures: " + ", ".join(missing))
    opened = (Image.open(folder / name).convert("RGB") for name in names)
    return [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in opened]
