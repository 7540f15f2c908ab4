"""The page of what the models reach: README.md, made of the rows that commands have left."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.errors import UsageError, wrong
from examples.latent.uses import USES

PICTURES, COMPLETIONS = "pictures", "-completions.png"
Row = dict[str, Any]
#: What the rows of a file hold, and the types of each; those that tell rows apart come first.
FIELDS: dict[str, dict[str, type]] = {
    "table.json": {
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
    },
    "compared.json": {
        "first": str,
        "second": str,
        "data": str,
        "difference": float,
        "half_width": float,
        "better": float,
        "parameters": list,
        "steps": list,
    },
    "evaluated.json": {
        "model": str,
        "data": str,
        "given": str,
        "likelihood": dict,
        "classes": dict,
        "outliers": dict,
    },
    "bounds.json": {
        "model": str,
        "data": str,
        "elbo": list,
        "iwae": list,
        "ais": list,
        "gap": list,
        "over_images": float,
        "exact": list,
        "bits_per_dim": float,
        "active": list,
        "acceptance": float,
        "effective": list,
    },
    "uses.json": {"use": str, "models": str, "data": str, "lines": list, "pictures": list},
}
KEYS = {
    "table.json": 2,
    "compared.json": 3,
    "evaluated.json": 2,
    "bounds.json": 2,
    "uses.json": 3,
}
TABLE = """# What the reference models reach

Made by `python -m examples table`. Bits/dim of the test split (a bound where the model has only
one; given the class or the luminance where it takes that), or the energy distance of samples to it
(`examples/harness/scores.py`; 0: equal), each with its 95 % interval; seconds on the machine named.
The intervals are over the test items of one training each; patches of one photograph are alike, so
that theirs are too narrow for photographs. On patches the models train for about a minute
(`examples/registry.py`): a first look, not what they can do.

| model | data | test | | parameters | steps | s / epoch | ms / sample | machine | samples |
|---|---|---|---|---|---|---|---|---|---|
"""
COMPARED = """
## On the same test images

Made by `python -m examples compare RUN RUN --page examples`: bits/dim of the second run less those
of the first, image by image, with the 95 % interval of their mean (over the images; one training
each), and the share of images that are likelier by the second. Options that are not those of the
table stand beside the model.

| first | second | data | second - first | likelier by the second | parameters | steps |
|---|---|---|---|---|---|---|
"""
EVALUATED = """
## What an exact likelihood tells

Made by `python -m examples evaluate MODEL --run RUN --page examples`. Perplexity: of a level.
Outliers: how well a low p(x), and how well a -log p(x) far from its median over the validation
split, tells them from the test split (AUROC; 0.5 is chance). Where the first is below 0.5, what
never was among the data is likelier than the data: blank images, for one.

"""
BOUNDED = """
## How tight the bounds are

Made by `python -m examples evaluate MODEL --run RUN --page examples`: log p(x) of the test split
from below, in nats, with 95 % intervals of the noise of the samples. ELBO and IWAE-64: 64 samples
of the encoder; AIS: 8 chains of 100 temperatures, 4 leapfrogs each (`genkern.metrics`), of
`pixel_vae`, where a gradient goes through convolutions, 25 and 2. The gap, AIS - ELBO, is what the
encoder loses: KL(q(z|x) to p(z|x)). Active: dimensions of z that follow x. Effective: of the 64
samples and of the 8 chains, the median image. `ppca` is linear, its log p(x) known; its nats are of
a density.

"""
BOUNDS = ("ELBO", "IWAE-64", "AIS", "exact", "gap", "over images", "bits/dim (AIS)")
KINDS = ("noise", "pixels shuffled", "levels inverted", "upside down", "constant", "blank")
RATE = "rate_distortion-digits.png"
RATES = f"""
## Rate and distortion over beta

Made by `python -m examples.latent.rate_distortion --page examples`: the KL of the test split and
-log p(x|z), nats, of `vae` trained with each beta. What lies on one dashed line has one ELBO; at
beta = 1 it is best, below it more is said of x in z, above it less.

![rate and distortion](pictures/{RATE})
"""
USED = """
## Codes, and what they are good for

Made by `python -m examples.latent.uses USE RUN --page examples`.
"""
COMPLETED = """
## Completions

Made by `python -m examples complete MODEL --run RUN --page examples`. From the left: an image of
the test split, what of it the model is given, and draws from p(the rest | what is given).
"""


def keep(page: Path, name: str, row: Row) -> None:
    """Puts a row in its file, in place of an earlier one of the same keys, and writes the page."""
    keys = list(FIELDS[name])[: KEYS[name]]
    kept = [r for r in read(page / name) if [r[k] for k in keys] != [row[k] for k in keys]]
    rows = sorted([*kept, row], key=lambda r: (r["data"], *(r[k] for k in keys)))
    page.mkdir(parents=True, exist_ok=True)
    (page / name).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    write(page)


def keep_use(page: Path, row: Row, pictures: Sequence[tuple[Path, str]]) -> None:
    """`keep`, of what a use has said, and of its pictures with a word on each."""
    (page / PICTURES).mkdir(parents=True, exist_ok=True)
    for path, caption in pictures:
        of = row["models"].replace(", ", "-")
        name = f"{row['use']}-{path.stem}-{of}-{row['data']}.png"
        shutil.copyfile(path, page / PICTURES / name)
        row["pictures"].append([name, caption])
    keep(page, "uses.json", row)


def write(page: Path) -> None:
    """README.md, of all that is there."""
    text = TABLE + "".join(map(line, read(page / "table.json")))
    compared, evaluated = read(page / "compared.json"), read(page / "evaluated.json")
    if compared:
        text += COMPARED + "".join(map(compared_line, compared))
    if evaluated:
        heads = ("model", "data", "nats", "bits/dim", "perplexity", *KINDS)
        text += EVALUATED + _cells(*heads) + f"|{'---|' * len(heads)}\n"
        text += "".join(map(evaluated_line, evaluated))
        text += "".join(classes_text(row) for row in evaluated if row["classes"])
    bounded = read(page / "bounds.json")
    if bounded:
        heads = ("model", "data", *BOUNDS, "active", "effective")
        text += BOUNDED + _cells(*heads) + f"|{'---|' * len(heads)}\n"
        text += "".join(map(bounded_line, bounded))
    if (page / PICTURES / RATE).is_file():
        text += RATES
    used = read(page / "uses.json")
    if used:
        text += USED + "".join(map(use_text, used))
    pictures = sorted((page / PICTURES).glob("*" + COMPLETIONS))
    if pictures:
        text += COMPLETED
    for path in pictures:
        name = path.name.removesuffix(COMPLETIONS)
        text += f"\n`{name}`\n\n![{name}]({PICTURES}/{path.name})\n"
    (page / "README.md").write_text(text, encoding="utf-8")


def line(row: Row) -> str:
    picture = f"![{row['model']}]({PICTURES}/{row['model']}-{row['data']}.png)"
    return _cells(
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


def compared_line(row: Row) -> str:
    return _cells(
        f"`{row['first']}`",
        f"`{row['second']}`",
        row["data"],
        f"{row['difference']:+.4f} +- {row['half_width']:.4f}",
        f"{100 * row['better']:.0f} %",
        ", ".join(f"{count:,}" for count in row["parameters"]),
        ", ".join(f"{count:,}" for count in row["steps"]),
    )


def evaluated_line(row: Row) -> str:
    exact, told = row["likelihood"], f" (given the {row['given']})" if row["given"] else ""
    found = [row["outliers"].get(kind) for kind in KINDS]
    return _cells(
        f"`{row['model']}`",
        row["data"],
        f"{exact['nats']:.2f} +- {exact['nats_half_width']:.2f}{told}",
        f"{exact['bits_per_dim']:.4f} +- {exact['bits_per_dim_half_width']:.4f}",
        f"{exact['perplexity']:.3f}",
        *("" if each is None else f"{each['low']:.2f}, {each['untypical']:.2f}" for each in found),
    )


def bounded_line(row: Row) -> str:
    active, latent = row["active"]
    pairs = {
        key: f"{row[key][0]:.2f} +- {row[key][1]:.2f}" for key in ("elbo", "iwae", "ais", "gap")
    }
    return _cells(
        f"`{row['model']}`",
        row["data"],
        pairs["elbo"],
        pairs["iwae"],
        pairs["ais"],
        "".join(f"{value:.2f}" for value in row["exact"]),
        pairs["gap"],
        f"+- {row['over_images']:.2f}",
        f"{row['bits_per_dim']:.4f}",
        f"{active} of {latent}",
        f"{row['effective'][0]:.1f}, {row['effective'][1]:.1f}",
    )


def classes_text(row: Row) -> str:
    (right, half), others = row["classes"]["accuracy"], row["classes"]["others"]
    beside = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
    return (
        f"\np(y | x) of `{row['model']}` by Bayes' rule: {right:.3f} +- {half:.3f} of the test "
        f"images right, {row['classes']['nats']:.3f} nats; trained on p(y | x): {beside}.\n"
    )


def use_text(row: Row) -> str:
    models = ", ".join(f"`{name}`" for name in row["models"].split(", "))
    text = f"\n`{row['use']}` of {models}, {row['data']}: {USES[row['use']]}.\n"
    text += "".join(f"\n    {line}" for line in row["lines"]) + "\n"
    for name, caption in row["pictures"]:
        text += f"\n{caption}:\n\n![{caption}]({PICTURES}/{name})\n"
    return text


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def read(path: Path) -> list[Row]:
    """The rows of earlier runs.

    Raises:
        UsageError: the file is not one of rows; it is left as it is.
    """
    if not path.exists():
        return []
    fields = FIELDS[path.name]
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}); mend it or move it away") from None
    for row in rows if isinstance(rows, list) else [rows]:
        fits = isinstance(row, dict) and set(row) == set(fields)
        if not (fits and all(isinstance(row[name], kind) for name, kind in fields.items())):
            raise wrong(str(path), "rows of " + ", ".join(fields), row)
    return rows
