"""The data sets of the examples: contents, splits, and the errors about local files."""

import gzip
import math
import re
import struct
from functools import partial
from pathlib import Path

import pytest
import torch

from examples import data, registry
from examples.cli import main
from examples.data import files
from examples.data.bundled import digits, patches
from examples.data.dataset import Dataset
from examples.data.files import cifar10, mnist
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.paths import CHECKPOINT

TRAIN, TEST = 24, 6
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def idx_contents() -> list[bytes]:
    contents = []
    for count in (TRAIN, TEST):
        pixels = bytes(i % 251 for i in range(count * 784))
        contents.append(struct.pack(">4I", 0x803, count, 28, 28) + pixels)
        contents.append(struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count)))
    return contents


def write_mnist(folder: Path, *, compress: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(MNIST_FILES, idx_contents(), strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def write_cifar(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(CIFAR_FILES):
        record = bytes([number]) + b"\x01" * 1024 + b"\x02" * 1024 + b"\x03" * 1024
        (folder / name).write_bytes(record * count)


def small_mnist(folder: Path | None) -> Dataset:
    return mnist(folder, train_count=TRAIN, test_count=TEST)


def test_digits_split_is_fixed_stratified_and_disjoint():
    first, second = digits(), digits()
    assert [len(first.splits[s]) for s in ("train", "val", "test")] == [1257, 180, 360]
    for split in first.splits:
        assert torch.equal(first.splits[split], second.splits[split])
    images = torch.cat([first.splits[s] for s in ("train", "val", "test")])
    assert images.dtype == torch.uint8
    assert images.max() == first.spec.levels - 1 == 16
    counts = first.labels["test"].bincount(minlength=10)
    assert counts.max() - counts.min() <= 3


def test_patches_of_the_splits_never_overlap():
    dataset = patches()
    assert dataset.spec.shape == (3, 32, 32)
    splits = dict(dataset.splits)
    # At a stride of 8, the last 8 columns of the tiles are all columns beyond the first 24.
    splits["train"] = splits["train"][..., -8:]
    columns = {name: set(_columns(items)) for name, items in splits.items()}
    assert not columns["train"] & columns["test"]
    assert not columns["val"] & columns["test"]
    assert not columns["train"] & columns["val"]


def _columns(items: torch.Tensor) -> list[bytes]:
    """Every vertical line of pixels that is not of one colour: its place in a picture."""
    lines = items.permute(0, 3, 1, 2).flatten(0, 1).flatten(1)
    textured = lines.float().std(dim=1) > 8
    return [line.numpy().tobytes() for line in lines[textured]]


@pytest.mark.parametrize("name", ["ring8", "grid25", "checkerboard"])
def test_synthetic_density_integrates_to_one(name):
    dataset = data.load(name)
    step = 0.02
    axis = torch.arange(-5.0, 5.0, step, dtype=torch.float64) + step / 2
    grid = torch.cartesian_prod(axis, axis)
    total = sum(dataset.log_density(part).exp().sum().item() for part in grid.split(100_000))
    assert total * step**2 == pytest.approx(1.0, abs=1e-6)
    assert dataset.log_density(dataset.splits["test"]).isfinite().all()


def test_synthetic_samples_have_the_entropy_of_their_density():
    """Of K far Gaussians: log K + log(2 pi e std^2) nats, within 5 standard errors."""
    for name, components, std in (("ring8", 8, 0.02), ("grid25", 25, 0.05)):
        points = data.load(name).splits["train"]
        found = -data.load(name).log_density(points)
        expected = math.log(components) + math.log(2 * math.pi * math.e * std**2)
        assert found.mean().item() == pytest.approx(
            expected, abs=5 * found.std().item() / math.sqrt(len(points))
        )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
def test_mnist_reads_plain_and_compressed_files(tmp_path, compress, sub):
    write_mnist(tmp_path / sub, compress=compress)
    dataset = small_mnist(tmp_path)
    assert dataset.splits["train"].shape == (TRAIN - 2, 1, 28, 28)
    assert dataset.splits["val"].shape == (2, 1, 28, 28)
    assert dataset.splits["test"].flatten()[300].item() == 300 % 251
    assert dataset.labels["test"].tolist() == list(range(TEST))


def test_mnist_error_lists_every_missing_file_with_its_size():
    with pytest.raises(UsageError) as error:
        mnist(Path("/nowhere"))
    for text in (*MNIST_FILES, "47,040,016 bytes", "60,008", "7,840,016", "10,008", "/nowhere"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        (MNIST_FILES[0], lambda c: c[:-1], "expected 18,832 bytes; found 18,831"),
        (MNIST_FILES[1], lambda c: c + b"\0", "expected 32 bytes; found 33"),
        (MNIST_FILES[2], lambda c: b"\1" + c[1:], "has the header [16779267, 6, 28, 28]"),
        (MNIST_FILES[3], lambda c: c[:-1] + b"\x0b", "has the label 11"),
    ],
)
def test_mnist_error_says_what_is_damaged(tmp_path, name, damage, text):
    write_mnist(tmp_path, compress=False)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(UsageError, match="1 of 4 files") as error:
        small_mnist(tmp_path)
    assert text in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-20], lambda c: b"no gzip", lambda c: c[:12] + b"\xff" * 9 + c[21:]]
)
def test_damaged_gzip_is_an_error_not_a_traceback(tmp_path, damage):
    write_mnist(tmp_path, compress=True)
    path = tmp_path / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=r"cannot be read|found"):
        small_mnist(tmp_path)


def test_cifar10_reads_colour_planes_in_order(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-bin", 4)
    dataset = cifar10(tmp_path, count=4)
    assert dataset.splits["train"].shape == (18, 3, 32, 32)
    assert dataset.splits["val"].shape == (2, 3, 32, 32)
    assert dataset.splits["test"][0, :, 0, 0].tolist() == [1, 2, 3]
    assert dataset.labels["train"].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2


def test_cifar10_error_counts_missing_and_damaged_files(tmp_path):
    write_cifar(tmp_path, 4)
    (tmp_path / "data_batch_2.bin").unlink()
    (tmp_path / "test_batch.bin").write_bytes(b"\x0c" * 3073 * 4)
    with pytest.raises(UsageError, match="2 of 6 files") as error:
        cifar10(tmp_path, count=4)
    assert "data_batch_2.bin: expected 12,292 bytes; found no such file" in str(error.value)
    assert "has the label 12" in str(error.value)


SEQUENCES = ("fvsbn", "made", "nade")  # a matrix for each place: for small images
TRAINED = [
    (name, source)
    for source in ("mnist", "cifar10")
    for name, entry in registry.MODELS.items()
    if name not in SEQUENCES
    and not (entry.colours and source == "mnist")
    # Of the adversarial models, which have the same shapes inside, each trains on one of the two.
    and not (entry.path.startswith("examples.adversarial") and entry.colours == (source == "mnist"))
]


@pytest.mark.parametrize(("name", "source"), [*TRAINED, ("nade", "mnist")])
def test_every_model_trains_on_local_files(tmp_path, capsys, monkeypatch, name, source):
    write_mnist(tmp_path, compress=False)
    write_cifar(tmp_path, 4)
    small = {"mnist": partial(mnist, train_count=TRAIN, test_count=TEST)}
    small["cifar10"] = partial(cifar10, count=4)
    monkeypatch.setattr(files, source, small[source])
    options = [f"{key}={value}" for key, value in registry.entry(name).small.items()]
    given = ["--data", source, "--data-dir", str(tmp_path), "--steps", "1", "--batch-size", "6"]
    run = tmp_path / "run"
    assert main(["train", name, *given, "--out", str(run), "--set", *options]) == 0
    state = checkpoint.load(run / CHECKPOINT)
    assert (state["step"], state["config"].data) == (1, source)
    out = capsys.readouterr().out
    if registry.model_class(name).likelihood:
        assert 0 < float(re.search(r"Test: .* nats, (\S+) bits/dim", out)[1]) < 20


@pytest.mark.parametrize("name", ["fvsbn", "made"])
def test_models_of_small_images_refuse_cifar10_with_their_size(tmp_path, capsys, monkeypatch, name):
    write_cifar(tmp_path, 4)
    monkeypatch.setattr(files, "cifar10", partial(cifar10, count=4))
    given = ["--data", "cifar10", "--data-dir", str(tmp_path), "--batch-size", "6"]
    assert main(["train", name, *given, "--out", str(tmp_path / "run")]) == 2
    assert "it is for small images" in capsys.readouterr().err


def test_missing_data_exits_with_code_2_and_no_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GENKERN_DATA", str(tmp_path))
    assert main(["train", "vae", "--data", "cifar10", "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "6 of 6 files are missing or damaged" in message
    assert str(tmp_path) in message
    assert "30,730,000 bytes" in message
    assert not (tmp_path / "run").exists()


def test_misspelt_data_set_lists_the_valid_names():
    with pytest.raises(UsageError, match=r"did you mean digits\?") as error:
        data.load("digit")
    for name in data.DATASETS:
        assert name in str(error.value)
