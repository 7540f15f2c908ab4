"""`python -m examples evaluate` and `complete`: what a model with an exact likelihood can tell."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from examples import data
from examples.autoregressive.raster import RasterModel
from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.harness import checkpoint, images, likelihood
from examples.harness.recorder import bits_per_dim
from examples.paths import CHECKPOINT

COMPLETIONS = 6
REPORT = "evaluation.json"


def opened(name: str, run: Path, data_dir: str | None) -> tuple[RasterModel, Dataset]:
    """The model of a run and the data that it was trained on."""
    state = checkpoint.load(run / CHECKPOINT)
    model = checkpoint.load_model(name, run / CHECKPOINT)
    config = state["config"]
    dataset = data.load(config.data, config.data_dir if data_dir is None else data_dir)
    if dataset.digest() != state["data"]:
        raise UsageError(f"--data-dir: the data of {config.data} are not those of the run")
    assert isinstance(model, RasterModel)  # `registry.exact_entry` has seen to it
    return model, dataset


def evaluate(name: str, run: Path, data_dir: str | None) -> int:
    """Prints likelihood, outlier detection and classification; writes them to the run."""
    model, dataset = opened(name, run, data_dir)
    exact = likelihood.likelihood(model, dataset)
    print(f"{name} on {dataset.name}, {len(dataset.splits['test'])} test images")
    print(
        f"  {exact['nats']:.2f} +- {exact['nats_half_width']:.2f} nats"
        f"{' given the class' if model.conditional else ''}, {exact['bits_per_dim']:.4f} +- "
        f"{exact['bits_per_dim_half_width']:.4f} bits/dim (95 %), perplexity "
        f"{exact['perplexity']:.3f}"
    )
    found: dict[str, Any] = {"model": name, "data": dataset.name, "likelihood": exact}
    if model.conditional:
        classes = likelihood.classes(model, dataset)
        found["classes"] = dataclasses.asdict(classes)
        print_classes(classes)
    kinds = likelihood.detect(model, dataset)
    found["outliers"] = {kind: dataclasses.asdict(each) for kind, each in kinds.items()}
    print("  outliers          bits/dim   AUROC of low p(x)   of untypical p(x)")
    for kind, each in kinds.items():
        bits = bits_per_dim(dataset.spec, each.nats)
        wrong = "  (likelier than the data)" if each.low < 0.5 else ""
        print(f"  {kind:17} {bits:8.3f}   {each.low:17.3f}   {each.untypical:17.3f}{wrong}")
    (run / REPORT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {run / REPORT}")
    return 0


def print_classes(classes: likelihood.Classes) -> None:
    right, half = classes.accuracy
    others = ", ".join(f"{name} {value:.3f}" for name, value in classes.others.items())
    print(
        f"  p(y | x) by Bayes' rule: {right:.3f} +- {half:.3f} right, {classes.nats:.3f} nats; "
        f"trained on p(y | x): {others}"
    )


def complete(
    name: str,
    run: Path,
    data_dir: str | None,
    out: Path,
    *,
    num: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
) -> int:
    """A row for each test image: the image, its upper half, and completions of that."""
    model, dataset = opened(name, run, data_dir)
    items, labels = dataset.splits["test"], dataset.labels.get("test")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(items), generator=generator)[:num]
    rows = completions(
        model,
        items[chosen],
        None if labels is None or not model.conditional else labels[chosen],
        generator,
        temperature,
    )
    picture = images.grid(rows.flatten(0, 1), dataset.spec, columns=rows.shape[1])
    try:
        picture.save(out)
    except ValueError as error:
        raise UsageError(f"--num {num}: {error}") from None
    print(f"Wrote {out}: {len(rows)} images, their upper halves, {COMPLETIONS} completions of each")
    return 0


def completions(
    model: RasterModel,
    items: torch.Tensor,
    labels: torch.Tensor | None,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Levels (N, 2 + COMPLETIONS, C, H, W): the items, their upper halves on grey, completions."""
    partial = items.long()
    partial[:, :, items.shape[2] // 2 :] = -1
    times = {"repeats": COMPLETIONS, "dim": 0}
    drawn = model.sample(
        len(items) * COMPLETIONS,
        generator,
        temperature,
        labels=None if labels is None else labels.repeat_interleave(**times),
        partial=partial.repeat_interleave(**times),
    )
    grey = torch.full_like(items, model.spec.levels // 2)
    upper = torch.where(partial >= 0, items, grey)
    rows = [items[:, None], upper[:, None], drawn.unflatten(0, (len(items), COMPLETIONS))]
    return torch.cat(rows, dim=1)
