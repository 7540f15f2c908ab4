"""`python -m examples compress` and `decompress`."""

import math
import time
from pathlib import Path

import numpy as np
import torch

from examples import data
from examples.autoregressive.raster import RasterModel
from examples.compression import codec, container, others
from examples.errors import UsageError, wrong
from examples.harness import checkpoint, likelihood
from examples.paths import CHECKPOINT

BATCH = 512


def opened(name: str, run: Path) -> RasterModel:
    """The model of a run, if it draws in raster order."""
    model = checkpoint.load_model(name, run / CHECKPOINT)
    assert isinstance(model, RasterModel)  # `registry.exact_entry` has seen to it
    if model.own_steps:
        raise wrong("MODEL", "a model that draws by genkern.sampling", name, "it has its own steps")
    if model.condition not in ("", "class"):
        raise wrong("MODEL", "a model of images, or of images given a class", name)
    if len(model.spec.shape) != 3 or model.spec.levels > 256:
        raise wrong("--run", "a run on images of at most 256 levels", run)
    return model


def wanted(
    model: RasterModel, run: Path, data_dir: str | None, source: Path | None, num: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Images, and their classes where the model takes them: a file's, or the test split's."""
    if source is not None:
        if model.condition:
            raise wrong("--images", "nothing where MODEL takes labels", source)
        return from_file(source, model)[:num], None
    config = checkpoint.load(run / CHECKPOINT)["config"]
    dataset = data.load(config.data, config.data_dir if data_dir is None else data_dir)
    labels = dataset.labels["test"][:num] if model.condition else None
    return dataset.splits["test"][:num], labels


def from_file(source: Path, model: RasterModel) -> torch.Tensor:
    shape, levels = model.spec.shape, model.spec.levels
    takes = f"a .npy file of uint8 (N, {', '.join(map(str, shape))}), levels 0 to {levels - 1}"
    try:
        found = np.load(source, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise wrong("--images", takes, source, str(error).partition("\n")[0]) from None
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape[1:] != shape:
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise wrong("--images", takes, source, got)
    if not found.size or found.max() >= levels:
        raise wrong("--images", takes, source, "no image, or a level beyond the last")
    return torch.from_numpy(found)


def compress(
    name: str,
    run: Path,
    out: Path,
    *,
    data_dir: str | None = None,
    source: Path | None = None,
    num: int | None = None,
    method: str = "auto",
) -> int:
    model = opened(name, run)
    images, labels = wanted(model, run, data_dir, source, num)
    started = time.perf_counter()
    words, method = codec.encode(model, images, labels, method=method, batch=BATCH)
    seconds = time.perf_counter() - started
    header = container.Header(
        method, BATCH, len(images), container.fingerprint(model), container.arithmetic(),
        container.content_sum(images),
    )  # fmt: skip
    content = container.pack(header, words)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    nats = likelihood.nats(model, images, labels).sum().item()
    if labels is not None:
        nats += len(images) * math.log(model.spec.classes)
    print(f"Wrote {out}: {len(images)} images by {name} ({method}), {seconds:.2f} s")
    report(images, len(content), nats / math.log(2) / 8)
    return 0


def report(images: torch.Tensor, size: int, ideal: float) -> None:
    """A line for each way of storing the images."""

    def line(name: str, size: int, note: str) -> None:
        print(f"  {name:22} {size:9,} bytes  {8 * size / images.numel():7.4f} bits/dim  {note}")

    line("levels as they are", images.numel(), "")
    for name, (together, alone) in others.sizes(images).items():
        line(f"{name}, one picture", together, f"{together / size:.2f}x")
        line(f"{name}, a file each", alone, f"{alone / size:.2f}x")
    over = size - ideal
    line("this file", size, f"-log p(x): {ideal:,.1f} bytes, {over:+.1f} ({over / ideal:+.2%})")


def decompress(name: str, run: Path, source: Path, out: Path) -> int:
    header, words = container.unpack(source, source.read_bytes())
    model = opened(name, run)
    container.check_model(source, header, model)
    started = time.perf_counter()
    options = {"count": header.count, "method": header.method, "batch": header.batch}
    images = codec.decode(model, words, **options)
    seconds = time.perf_counter() - started
    if container.content_sum(images) != header.content:
        raise UsageError(f"{source}: what was decoded is not what was compressed (its CRC-32)")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        np.save(file, images.numpy())
    print(f"Wrote {out}: {len(images)} images, equal to those compressed, {seconds:.2f} s")
    return 0
