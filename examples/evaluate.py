"""`python -m examples evaluate`, `compare` and `complete`: what a likelihood can tell."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples import data, page, registry
from examples.autoregressive.raster import RasterModel
from examples.data.dataset import Dataset
from examples.errors import UsageError, wrong
from examples.harness import bounds, checkpoint, images, likelihood
from examples.harness.recorder import bits_per_dim
from examples.latent.base import LatentModel
from examples.model import Batch, GenerativeModel
from examples.paths import CHECKPOINT

COMPLETIONS = 6
REPORT = "evaluation.json"


def opened(
    name: str | None, run: Path, data_dir: str | None
) -> tuple[GenerativeModel, Dataset, dict[str, Any]]:
    """The model of a run, the data that it was trained on, and the state that the run left."""
    state = checkpoint.load(run / CHECKPOINT)
    config = state["config"]
    name = config.model if name is None else name
    registry.likelihood_entry(name)
    model = checkpoint.load_model(name, run / CHECKPOINT)
    dataset = data.load(config.data, config.data_dir if data_dir is None else data_dir)
    if dataset.digest() != state["data"]:
        raise UsageError(f"--data-dir: the data of {config.data} are not those of the run")
    return model, dataset, state


def evaluate_bounds(
    name: str, run: Path, model: LatentModel, dataset: Dataset, folder: Path | None
) -> int:
    """Prints the bounds of log p(x) and what is between them; writes them to the run and page."""
    row = bounds.row(name, dataset, bounds.bounds(model, dataset))
    print(f"{name} on {dataset.name}, {len(dataset.splits['test'])} test images")
    print("\n".join(bounds.lines(row)))
    (run / REPORT).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {run / REPORT}")
    if folder is not None:
        page.keep(folder, "bounds.json", row)
    return 0


def evaluate(name: str, run: Path, data_dir: str | None, folder: Path | None = None) -> int:
    """Prints likelihood, outlier detection and classification; writes them to the run, and to the
    page in ``folder``."""
    model, dataset, _ = opened(name, run, data_dir)
    if isinstance(model, LatentModel):
        return evaluate_bounds(name, run, model, dataset, folder)
    assert isinstance(model, RasterModel)
    exact = likelihood.likelihood(model, dataset)
    told = f" given the {model.condition}" if model.condition else ""
    print(f"{name} on {dataset.name}, {len(dataset.splits['test'])} test images")
    print(
        f"  {exact['nats']:.2f} +- {exact['nats_half_width']:.2f} nats"
        f"{told}, {exact['bits_per_dim']:.4f} +- "
        f"{exact['bits_per_dim_half_width']:.4f} bits/dim (95 %), perplexity "
        f"{exact['perplexity']:.3f}"
    )
    found: dict[str, Any] = {"model": name, "data": dataset.name, "given": model.condition}
    found |= {"likelihood": exact, "classes": {}, "outliers": {}}
    if model.condition == "class":
        classes = likelihood.classes(model, dataset)
        found["classes"] = dataclasses.asdict(classes)
        print_classes(classes)
    if model.condition in ("", "class"):  # of others p(x) is not known
        kinds = likelihood.detect(model, dataset)
        found["outliers"] = {kind: dataclasses.asdict(each) for kind, each in kinds.items()}
        print_outliers(kinds, dataset)
    (run / REPORT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {run / REPORT}")
    if folder is not None:
        found = json.loads((run / REPORT).read_text(encoding="utf-8"))
        page.keep(folder, "evaluated.json", found)
    return 0


def print_outliers(kinds: dict[str, likelihood.Detection], dataset: Dataset) -> None:
    print("  outliers          bits/dim   AUROC of low p(x)   of untypical p(x)")
    for kind, each in kinds.items():
        bits = bits_per_dim(dataset.spec, each.nats)
        wrong = "  (likelier than the data)" if each.low < 0.5 else ""
        print(f"  {kind:17} {bits:8.3f}   {each.low:17.3f}   {each.untypical:17.3f}{wrong}")


def print_classes(classes: likelihood.Classes) -> None:
    right, half = classes.accuracy
    others = ", ".join(f"{name} {value:.3f}" for name, value in classes.others.items())
    print(
        f"  p(y | x) by Bayes' rule: {right:.3f} +- {half:.3f} right, {classes.nats:.3f} nats; "
        f"trained on p(y | x): {others}"
    )


def compare(runs: Sequence[Path], data_dir: str | None, folder: Path | None = None) -> int:
    """Prints bits/dim of each run, and its difference to the first, test image by test image."""
    first: dict[str, Any] = {}
    for number, run in enumerate(runs):
        model, dataset, state = opened(None, run, data_dir)
        found = bits_of(model, dataset)
        size, steps = sum(p.numel() for p in model.parameters()), state["step"]
        config = state["config"]
        name = " ".join([config.model, *(f"{k}={v}" for k, v in config.options.items())])
        for what, bits in found.items():
            value, half = likelihood.mean_and_half(bits)
            text = f"{run}: {name}{what}, {size:,} parameters, {steps:,} steps, "
            text += f"{value:.4f} +- {half:.4f}"
            if number == 0:
                first = {"bits": found, "name": name, "state": state, "size": size}
                print(f"{text} bits/dim on {len(bits)} test images of {dataset.name}")
                continue
            if state["data"] != first["state"]["data"]:
                raise UsageError(f"RUN: {run} was trained on other data than {runs[0]}")
            if what not in first["bits"]:
                why = "one of them has no exact likelihood"
                raise wrong("RUN", "runs with the same kind of likelihood", str(run), why)
            difference, half = likelihood.mean_and_half(bits - first["bits"][what])
            better = (bits < first["bits"][what]).double().mean().item()
            print(
                f"{text}; {difference:+.4f} +- {half:.4f}, {100 * better:.0f} % of images likelier"
            )
            row = {
                "first": first["name"] + what,
                "second": name + what,
                "data": dataset.name,
                "difference": difference,
                "half_width": half,
                "better": better,
                "parameters": [first["size"], size],
                "steps": [first["state"]["step"], steps],
            }
            if folder is not None:
                page.keep(folder, "compared.json", row)
    return 0


def bits_of(model: GenerativeModel, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Bits/dim of each test image: exact, or by each bound of a model that has only these."""
    if isinstance(model, RasterModel):
        nats = {"": likelihood.nats_of(model, dataset)}
    else:
        assert isinstance(model, LatentModel)
        items = bounds.prepared(model, dataset)
        nats = {
            f" ({bounds.NAMES[method]})": -bounds.estimate(model, items, method).items
            for method in bounds.METHODS
        }
    return {what: each / (math.log(2.0) * dataset.spec.dims) for what, each in nats.items()}


def complete(
    name: str,
    run: Path,
    data_dir: str | None,
    out: Path,
    folder: Path | None = None,
    *,
    num: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
) -> int:
    """A row for each test image: the image, what of it is given, and completions of that."""
    model, dataset, _ = opened(name, run, data_dir)
    assert isinstance(model, RasterModel)
    items, labels = dataset.splits["test"], dataset.labels.get("test")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(items), generator=generator)[:num]
    batch = Batch(items[chosen], None if labels is None else labels[chosen])
    rows = completions(model, batch, generator, temperature)
    picture = images.grid(rows.flatten(0, 1), dataset.spec, columns=rows.shape[1])
    try:
        picture.save(out)
    except ValueError as error:
        raise UsageError(f"--num {num}: {error}") from None
    what = "their luminance" if model.condition == "luminance" else "their upper halves"
    print(f"Wrote {out}: {len(rows)} images, {what}, {COMPLETIONS} completions of each")
    if folder is not None:
        (folder / page.PICTURES).mkdir(parents=True, exist_ok=True)
        picture.save(folder / page.PICTURES / f"{name}-{dataset.name}{page.COMPLETIONS}")
        page.write(folder)
    return 0


def completions(
    model: RasterModel, batch: Batch, generator: torch.Generator, temperature: float = 1.0
) -> torch.Tensor:
    """Levels (N, 2 + COMPLETIONS, C, H, W): the items, what of them is given, completions.

    Given are the upper halves, on grey; or the luminance, of a model of the colours.
    """
    items, given, partial = batch.items, model.given(batch), None
    if model.condition == "luminance":
        shown = given.expand_as(items)
    else:
        partial = items.long()
        partial[:, :, items.shape[2] // 2 :] = -1
        grey = torch.full_like(items, model.spec.levels // 2)
        shown = torch.where(partial >= 0, items, grey)
    given, partial = (
        None if each is None else each.repeat_interleave(COMPLETIONS, 0)
        for each in (given, partial)
    )
    drawn = model.sample(
        len(items) * COMPLETIONS, generator, temperature, given=given, partial=partial
    )
    rows = [items[:, None], shown[:, None], drawn.unflatten(0, (len(items), COMPLETIONS))]
    return torch.cat(rows, dim=1)
