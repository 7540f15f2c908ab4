"""`plot`: speed-up bars, a roofline, scaling curves and times of sampling, as PNG."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from benchmarks.core.store import Record, by_case

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

COLOURS = {"eager": "#4477aa", "compile": "#ee8866", "library": "#44aa99", "genkern": "#222222"}
SHORT = {"forward": "fwd", "forward_backward": "fwd+bwd"}


def _title(records: Sequence[Record]) -> str:
    first = records[0]
    machine = first["machine"]
    device = machine["gpu"] or f"{machine['cpu']} ({machine['isa']}, {machine['threads']} threads)"
    return f"{device}, {first['dtype']}, torch {first['versions']['torch']}"


def _save(figure, path: Path, colours: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date or version in the file: the same results give the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
    with Image.open(path) as image:  # a few colours need a third of the bytes
        few = image.convert("RGB").quantize(colours)
    few.save(path, optimize=True)
    return path


def speedup(records: Sequence[Record], path: Path) -> Path:
    """Time over genkern's for each baseline; a bar left of 1 is a loss of genkern."""
    groups = by_case(records)
    baselines = [n for n in ("eager", "compile", "library") if any(n in g for g in groups.values())]
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.1 * (len(baselines) + 1) * len(groups)))
    height = 0.8 / max(1, len(baselines))
    for row, group in enumerate(groups.values()):
        for column, name in enumerate(baselines):
            if name not in group:
                continue
            ratio = group[name]["over_genkern"]
            at = row + (column - (len(baselines) - 1) / 2) * height
            loss = ratio["median"] < 1
            axes.barh(
                at, ratio["median"] - 1, height, left=1, color=COLOURS[name],
                hatch="///" if loss else None, edgecolor="red" if loss else COLOURS[name],
            )  # fmt: skip
            axes.plot([ratio["p20"], ratio["p80"]], [at, at], color="black", linewidth=1)
        target = group["genkern"]["target"]
        if target and target["baseline"] == "eager" and target["ratio"] != 1:
            axes.plot(target["ratio"], row, marker="|", color="red", markersize=14)
    axes.axvline(1, color="black", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(groups)), [f"{k[0]} {k[1]} {SHORT[k[2]]}" for k in groups])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("time / genkern's time (line: p20 to p80; red tick: target; red hatch: loss)")
    axes.set_title(_title(records), fontsize=10, loc="right")
    axes.legend(handles=[Patch(color=COLOURS[name], label=name) for name in baselines])
    figure.tight_layout()
    return _save(figure, path)


def roofline(records: Sequence[Record], path: Path) -> Path:
    """GFLOP/s against FLOP per byte under the ceilings measured in the same run."""
    timings = [r for r in records if r["kind"] == "timing" and r["bytes"]]  # not the floors
    rates = timings[-1]["ceilings"]
    intensity = [r["flops"] / r["bytes"] for r in timings]
    x = np.geomspace(min(intensity) / 2, max(intensity) * 2, 200)
    figure, axes = plt.subplots(figsize=(11, 6))
    for name, style in (("copy_gbs", "-"), ("cached_copy_gbs", ":")):
        y = np.minimum(rates["product_gflops"], x * rates[name])
        label = f"{name} {rates[name]:.0f}, product_gflops {rates['product_gflops']:.0f}"
        axes.plot(x, y, color="black", linestyle=style, label=label)
    ops = sorted({r["op"] for r in timings})
    colours = itertools.cycle([*plt.cm.tab20.colors, *plt.cm.tab20b.colors])
    for op, colour in zip(ops, colours, strict=False):
        for implementation, marker in (("genkern", "o"), ("eager", "x")):
            points = [
                (r["flops"] / r["bytes"], r["gflops"])
                for r in timings
                if r["op"] == op and r["implementation"] == implementation
            ]
            if points:
                label = op if implementation == "genkern" else None
                axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("counted FLOP per compulsory byte (dot: genkern; cross: eager)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(_title(records), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    return _save(figure, path, 256)  # one for each op


def curves(records: Sequence[Record], path: Path) -> Path:
    """Time against each axis, the slope beside the slope of the work."""
    found = [r for r in records if r["kind"] == "scaling"]
    ops = list(dict.fromkeys(r["op"] for r in found))
    axis_names = list(dict.fromkeys(r["axis"] for r in found))
    figure, grid = plt.subplots(
        len(ops), len(axis_names), figsize=(3.6 * len(axis_names), 3 * len(ops)), squeeze=False
    )
    for op, row in zip(ops, grid, strict=True):
        for axis, axes in zip(axis_names, row, strict=True):
            here = [r for r in found if r["op"] == op and r["axis"] == axis]
            axes.set_axis_off()
            for record in here:
                axes.set_axis_on()
                values = [p["value"] for p in record["points"]]
                medians = [p["seconds"]["median"] * 1e3 for p in record["points"]]
                name, slope = record["implementation"], record["slope"]
                label = name if slope is None else f"{name}: slope {slope:.2f}"
                axes.plot(values, medians, marker="o", color=COLOURS[name], label=label)
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                work = record["work_slope"]
                note = "" if work is None else f" (work {work:.2f})"
                axes.set_title(f"{op}: {axis}{note}", fontsize=9)
                axes.set_ylabel("ms", fontsize=8)
                axes.legend(fontsize=7)
                axes.grid(alpha=0.3)
    figure.suptitle(_title(records), fontsize=10)
    figure.tight_layout()
    return _save(figure, path)


def sampling(records: Sequence[Record], path: Path) -> Path:
    """Seconds of a batch by method, and against the side of the images."""
    found = [r for r in records if r["kind"] == "sampling"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    batches = [r for r in found if r["axis"] == "batch"]
    sizes = sorted({r["batch"] for r in batches})
    bars = {"a forward pass per pixel": "naive_seconds", "one forward pass": "forward_seconds"}
    bars |= {name: "seconds" for name in dict.fromkeys(r["method"] for r in batches)}
    for column, (name, key) in enumerate(bars.items()):
        own = {r["batch"]: r[key] for r in batches if key != "seconds" or r["method"] == name}
        at = [row + (column - (len(bars) - 1) / 2) * 0.8 / len(bars) for row in range(len(sizes))]
        drawn = left.bar(at, [own[N] for N in sizes], 0.8 / len(bars), label=name)
        text = [f"{own[N]:,.0f}" if own[N] >= 100 else f"{own[N]:.2g}" for N in sizes]
        left.bar_label(drawn, text, fontsize=7)
    left.set_xticks(range(len(sizes)), [str(N) for N in sizes])
    left.set_xlabel(f"images of {batches[0]['side']} x {batches[0]['side']}")
    for record in (r for r in found if r["axis"] == "side"):
        sides, seconds = zip(*record["points"], strict=True)
        label = f"{record['method']}: slope {record['slope']:.2f} in pixels"
        right.plot(sides, seconds, marker="o", label=label)
        ideal = [seconds[0] * (side / sides[0]) ** 2 for side in sides]
        right.plot(sides, ideal, color="grey", linestyle=":", linewidth=1)
        right.set_xlabel(f"side of {record['batch']} images (dotted: as the number of pixels)")
    right.set_xscale("log", base=2, subs=[])
    right.set_xticks(sides, [str(side) for side in sides])
    left.set_ylim(0.5 * min(r["forward_seconds"] for r in batches),
                  30 * max(r["naive_seconds"] for r in batches))  # fmt: skip
    for axes in (left, right):
        axes.set_yscale("log")
        axes.set_ylabel("s")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8, ncols=2 if axes is left else 1, loc="upper left")
    figure.suptitle(_title(found), fontsize=10)
    figure.tight_layout()
    return _save(figure, path)


def plot(records: Sequence[Record], folder: Path, stem: str) -> list[Path]:
    """What the records allow: bars and roofline of timings, curves of scaling and sampling."""
    kinds = {record["kind"] for record in records}
    made = []
    if "timing" in kinds:
        made.append(speedup(records, folder / f"{stem}-speedup.png"))
        made.append(roofline(records, folder / f"{stem}-roofline.png"))
    if "sampling" in kinds:
        made.append(sampling(records, folder / f"{stem}.png"))
    if "scaling" in kinds:
        made.append(curves(records, folder / f"{stem}.png"))
    return made
