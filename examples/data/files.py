"""MNIST (IDX) and CIFAR-10 (binary version) from local files; every defect in one error.

Neither format can tell a changed pixel; ``SHA256SUMS`` beside the files (`sha256sum`) can.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.model import DataSpec

Reader = Callable[[Path, int], np.ndarray]
SUMS = "SHA256SUMS"


class Damaged(Exception):
    """What is wrong with one file."""


def mnist(folder: Path | None, *, train_count: int = 60000, test_count: int = 10000) -> Dataset:
    """MNIST, or any set with its four file names: 28x28, 256 levels.

    The last twelfth of the training images is the validation split.

    Args:
        folder: holds the IDX files, each plain or as .gz.
        train_count, test_count: images in the two parts.

    Raises:
        UsageError: names each file that is missing or damaged.
    """
    wanted: list[tuple[str, int, Reader]] = []
    for part, count in (("train", train_count), ("t10k", test_count)):
        wanted.append((f"{part}-images-idx3-ubyte", 16 + count * 784, _idx_images))
        wanted.append((f"{part}-labels-idx1-ubyte", 8 + count, _idx_labels))
    folders = ("", "mnist", "MNIST", "MNIST/raw")
    (x, y, x_test, y_test), word = _read_all("mnist", folder, folders, wanted)
    return _dataset("mnist", x, y, x_test, y_test, validation=train_count // 12, word=word)


def cifar10(folder: Path | None, *, count: int = 10000) -> Dataset:
    """CIFAR-10, binary version: 32x32 RGB, 256 levels; the last 5,000 for validation.

    Args:
        folder: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.
        count: images in each file.

    Raises:
        UsageError: names each file that is missing or damaged.
    """
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    wanted: list[tuple[str, int, Reader]] = [(n, count * 3073, _cifar_records) for n in names]
    folders = ("", "cifar10", "cifar-10-batches-bin")
    records, word = _read_all("cifar10", folder, folders, wanted)
    train, test = np.concatenate(records[:5]), records[5]
    parts = [part for r in (train, test) for part in (r[:, 1:].reshape(-1, 3, 32, 32), r[:, 0])]
    return _dataset("cifar10", *parts, validation=count // 2, word=word)


def _dataset(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    *,
    validation: int,
    word: str,
) -> Dataset:
    images = {"train": x[:-validation], "val": x[-validation:], "test": x_test}
    labels = {"train": y[:-validation], "val": y[-validation:], "test": y_test}
    return Dataset(
        name,
        DataSpec(tuple(x.shape[1:]), 256, 10),
        {split: torch.from_numpy(a) for split, a in images.items()},
        {split: torch.from_numpy(a.astype(np.int64)) for split, a in labels.items()},
        word=word,
    )


def _read_all(
    name: str, folder: Path | None, subfolders: Sequence[str], wanted: list[tuple[str, int, Reader]]
) -> tuple[list[np.ndarray], str]:
    """Reads every file, or raises one error that lists all that are missing or damaged.

    Also returns what to tell the user, if a file could not be checked.
    """
    arrays, problems, word = [], [], ""
    for file_name, size, reader in wanted:
        try:
            path = _find(folder, subfolders, file_name)
            arrays.append(reader(path, size))
        except Damaged as error:
            problems.append(f"{file_name}: expected {size:,} bytes; {error}")
        else:
            if path.suffix != ".gz" and not (path.parent / SUMS).is_file():
                make = f"cd {path.parent} && sha256sum *-ubyte *.bin > {SUMS}"
                word = f"{name}: a changed byte in its files would not be seen ({make})"
    if problems:
        where = "no folder was given" if folder is None else f"looked in {folder}"
        raise UsageError(
            f"--data-dir takes the folder of {name}, or choose --data digits; {len(problems)} of "
            f"{len(wanted)} files are missing or damaged ({where}): " + "; ".join(problems)
        )
    return arrays, word


def _find(folder: Path | None, subfolders: Sequence[str], file_name: str) -> Path:
    for sub in subfolders if folder is not None else ():
        for suffix in ("", ".gz"):
            path = folder / sub / (file_name + suffix)
            if path.is_file():
                return path
    raise Damaged("found no such file, plain or .gz")


def _read(path: Path, size: int) -> bytes:
    try:
        content = path.read_bytes()
        _check_sum(path, content)
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"{path} cannot be read ({error})") from None
    if len(content) != size:
        raise Damaged(f"found {len(content):,} in {path}")
    return content


def _check_sum(path: Path, content: bytes) -> None:
    """Against the lines of `sha256sum`, "HASH  NAME", if that file is there."""
    sums = path.parent / SUMS
    if not sums.is_file():
        return
    lines = (line.split() for line in sums.read_text("utf-8", errors="replace").splitlines())
    known = {line[1].lstrip("*"): line[0] for line in lines if len(line) == 2}
    if known.get(path.name) != hashlib.sha256(content).hexdigest():
        raise Damaged(f"{path} has another SHA-256 than the one in {sums}")


def _idx(path: Path, size: int, header: Sequence[int]) -> np.ndarray:
    """IDX: big-endian 32-bit magic number and dimensions, then unsigned bytes."""
    content = _read(path, size)
    found = np.frombuffer(content, ">u4", len(header)).tolist()
    if found != list(header):
        raise Damaged(f"{path} has the header {found} instead of {list(header)}")
    return np.frombuffer(content, np.uint8, offset=4 * len(header)).copy()


def _idx_images(path: Path, size: int) -> np.ndarray:
    count = (size - 16) // 784
    return _idx(path, size, (0x803, count, 28, 28)).reshape(count, 1, 28, 28)


def _idx_labels(path: Path, size: int) -> np.ndarray:
    return _checked_labels(path, _idx(path, size, (0x801, size - 8)))


def _cifar_records(path: Path, size: int) -> np.ndarray:
    """Records of one label and 3072 bytes: the R, G and B planes, row-major."""
    records = np.frombuffer(_read(path, size), np.uint8).reshape(-1, 3073).copy()
    _checked_labels(path, records[:, 0])
    return records


def _checked_labels(path: Path, labels: np.ndarray) -> np.ndarray:
    if labels.max() > 9:
        raise Damaged(f"{path} has the label {labels.max()}; labels are 0 to 9")
    return labels
