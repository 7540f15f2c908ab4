"""`python -m examples table`: trains models, and writes what came of them to a page."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples import data
from examples.data.dataset import Dataset
from examples.errors import UsageError, wrong
from examples.harness import images, rundir
from examples.harness.config import TrainConfig
from examples.harness.sampling import draw
from examples.harness.scores import bits, distance
from examples.harness.trainer import Trainer

NUM_SAMPLES = 64
ROWS, PICTURES = "table.json", "pictures"
#: What a row holds, and the types of each.
FIELDS: dict[str, type] = {
    "model": str,
    "data": str,
    "measure": str,
    "value": float,
    "half_width": float,
    "parameters": int,
    "steps": int,
    "epoch_seconds": float,
    "sample_seconds": float,
    "machine": str,
}
HEAD = """# What the reference models reach

Made by `python -m examples table`. Bits/dim of the test split (a bound where the model has only
one; given the class where it takes labels), or the energy distance of samples to it
(`examples/harness/scores.py`; 0: equal), each with its 95 % interval; seconds on the machine named.

| model | data | test | | parameters | steps | s / epoch | ms / sample | machine | samples |
|---|---|---|---|---|---|---|---|---|---|
"""


def table(names: Sequence[str], given: dict[str, Any], out: Path, page: Path) -> int:
    """Trains the models, one after the other, and writes the page after each.

    Args:
        names: of the models.
        given: training options.
        out: folder of the runs.
        page: folder of README.md, its rows and its pictures.
    """
    dataset = data.load(given.get("data", "digits"), given.get("data_dir"))
    rows = read_rows(page / ROWS)
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name}: training on {dataset.name}", flush=True)
        row, items = measure(name, dataset, given, out / f"{name}-{dataset.name}")
        images.save(items, dataset.spec, page / PICTURES / f"{name}-{dataset.name}.png", height=180)
        kept = [r for r in rows if (r["model"], r["data"]) != (name, dataset.name)]
        rows = sorted([*kept, row], key=lambda r: (r["data"], r["model"]))
        (page / ROWS).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (page / "README.md").write_text(HEAD + "".join(map(line, rows)), encoding="utf-8")
    print(f"Wrote {page / 'README.md'}")
    return 0


def measure(
    name: str, dataset: Dataset, given: dict[str, Any], out: Path
) -> tuple[dict[str, Any], torch.Tensor]:
    """The row of one model, trained anew, and its samples."""
    rundir.clear(out)
    trainer = Trainer(TrainConfig.for_model(name, sample_every=0, **given), dataset, out)
    with rundir.locked(out):
        trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    model = trainer.chosen_model()
    start = time.perf_counter()
    items = draw(name, model, NUM_SAMPLES, torch.Generator().manual_seed(0))
    sample_seconds = (time.perf_counter() - start) / NUM_SAMPLES
    value, half_width = bits(model, dataset) if model.likelihood else distance(name, model, dataset)
    epoch_seconds = (
        _step_seconds(trainer)
        * len(dataset.splits["train"])
        / trainer.config.batch_size
        / len(model.schedule)
    )
    row = {
        "model": name,
        "data": dataset.name,
        "measure": "bits/dim" if model.likelihood else "distance",
        "value": value,
        "half_width": half_width,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trainer.step,
        "epoch_seconds": epoch_seconds,
        "sample_seconds": sample_seconds,
        "machine": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
    }
    return row, items


def _step_seconds(trainer: Trainer) -> float:
    """Median time of a training step; the model is not the trained one afterwards."""
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def line(row: dict[str, Any]) -> str:
    picture = f"![{row['model']}]({PICTURES}/{row['model']}-{row['data']}.png)"
    cells = (
        f"`{row['model']}`",
        row["data"],
        f"{row['value']:.4f} +- {row['half_width']:.4f}",
        row["measure"],
        f"{row['parameters']:,}",
        f"{row['steps']:,}",
        f"{row['epoch_seconds']:.2f}",
        f"{1e3 * row['sample_seconds']:.2f}",
        row["machine"],
        picture,
    )
    return f"| {' | '.join(cells)} |\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of earlier runs.

    Raises:
        UsageError: the file is not one of rows; it is left as it is.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}); mend it or move it away") from None
    for row in rows if isinstance(rows, list) else [rows]:
        fits = isinstance(row, dict) and set(row) == set(FIELDS)
        if not (fits and all(isinstance(row[name], kind) for name, kind in FIELDS.items())):
            raise wrong(str(path), "rows of " + ", ".join(FIELDS), row)
    return rows
