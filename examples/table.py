"""`python -m examples table`: trains models, and writes what came of them to a page."""

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples import data, page, registry
from examples.autoregressive.raster import RasterModel
from examples.data.dataset import Dataset
from examples.harness import checkpoint, images, likelihood, rundir
from examples.harness.config import TrainConfig
from examples.harness.sampling import draw, num_samples
from examples.harness.scores import bits, distance
from examples.harness.trainer import Trainer
from examples.model import GenerativeModel
from examples.paths import CHECKPOINT

ROWS = "table.json"


def table(
    names: Sequence[str], given: dict[str, Any], out: Path, folder: Path, *, resume: bool = False
) -> int:
    """Trains the models, one after the other, and writes the page after each.

    Args:
        names: of the models.
        given: training options.
        out: folder of the runs.
        folder: of the page: README.md, its rows and its pictures.
        resume: runs of the same options that are there go on; one that is finished is measured.
    """
    dataset = data.load(given.get("data", "digits"), given.get("data_dir"))
    page.read(folder / ROWS)  # rather refused now than after a training
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name}: training on {dataset.name}", flush=True)
        row, items = measure(name, dataset, given, out / f"{name}-{dataset.name}", resume)
        picture = folder / page.PICTURES / f"{name}-{dataset.name}.png"
        images.save(items, dataset.spec, picture, height=180)
        page.keep(folder, ROWS, row)
    print(f"Wrote {folder / 'README.md'}")
    return 0


def measure(
    name: str, dataset: Dataset, given: dict[str, Any], out: Path, resume: bool = False
) -> tuple[dict[str, Any], torch.Tensor]:
    """The row of one model, trained anew unless its run is there, and its samples."""
    config = TrainConfig.for_model(name, sample_every=0, **given)
    state = checkpoint.load(out / CHECKPOINT) if resume and (out / CHECKPOINT).is_file() else None
    if state is None or state["config"] != config:
        state = None
        rundir.clear(out)
    trainer = Trainer(config, dataset, out, resume_from=state)
    with rundir.locked(out):
        trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    model = trainer.chosen_model()
    start, count = time.perf_counter(), num_samples(dataset.spec)
    generator = torch.Generator().manual_seed(0)
    items = draw(name, model, count, generator, batch=dataset.whole("test"))
    sample_seconds = (time.perf_counter() - start) / count
    value, half_width = score(name, model, dataset)
    batches = sum(1 / model.intervals.get(turn, 1) for turn in model.schedule)
    taken, in_epoch = trainer.step, len(dataset.splits["train"]) / config.batch_size / batches
    epoch_seconds = _step_seconds(trainer) * in_epoch
    row = {
        "model": name,
        "data": dataset.name,
        "measure": "bits/dim" if model.likelihood else "distance",
        "value": value,
        "half_width": half_width,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": taken,
        "epoch_seconds": epoch_seconds,
        "sample_seconds": sample_seconds,
        "machine": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
    }
    return row, items


def score(name: str, model: GenerativeModel, dataset: Dataset) -> tuple[float, float]:
    """Bits/dim, or a distance, and half its 95 % interval."""
    if registry.entry(name).exact:
        assert isinstance(model, RasterModel)
        exact = likelihood.likelihood(model, dataset)
        return exact["bits_per_dim"], exact["bits_per_dim_half_width"]
    return bits(model, dataset) if model.likelihood else distance(name, model, dataset)


def _step_seconds(trainer: Trainer) -> float:
    """Median time of a training step, or the mean where steps differ; the model and the step of
    ``trainer`` are not those of the training afterwards."""
    seconds, intervals = [], trainer.model.intervals
    for _ in range(math.lcm(*intervals.values()) if intervals else 20):
        start = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - start)
        trainer.step += 1
    return statistics.mean(seconds) if intervals else statistics.median(seconds)
