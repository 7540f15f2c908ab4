"""report.html: one file, every picture inside."""

import base64
import html
import io
import math
import re
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples import registry
from examples.harness.recorder import bits_per_dim
from examples.harness.runlog import read_log
from examples.model import DataSpec

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: left; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
.grids { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; width: 20rem; } figure img { width: 100%; image-rendering: pixelated; }
.wide { overflow-x: auto; } code { overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { padding: .2rem .4rem; font-size: .85rem; } }
.curve { max-width: 100%; } .ok { color: #17692b; } .failed { color: #b00020; font-weight: bold; }
"""


def write(metrics: dict[str, Any], spec: DataSpec, out: Path) -> None:
    """Writes ``out/report.html`` from the metrics and the pictures of the run."""
    models, machine = metrics["models"], metrics["machine"]
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [
        "<h1>genkern demo</h1>",
        f"<p>{len(models)} models trained on {metrics['data']} and measured in "
        f"{metrics['wall_seconds']:.0f} s in all. {html.escape(facts)}.</p>",
        "<h2>Checks</h2><ul>",
        *(
            f'<li class="{"ok" if c["ok"] else "failed"}">'
            f"{'ok' if c['ok'] else 'FAILED'}: {html.escape(c['text'])}</li>"
            for c in metrics["checks"]
        ),
        "</ul><h2>Samples</h2><div class=grids>",
        _figure("real test digits", out / "real.png"),
        *(_figure(f"{name} samples", out / name / "samples.png") for name in models),
        "</div><h2>Test likelihood</h2>",
        _likelihoods(metrics),
        "<h2>Speed</h2>",
        _speeds(models),
        "<h2>Losses</h2>",
        _image(_curves(list(metrics["models"]), spec, out), "curve", "loss curves"),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>genkern demo</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    (out / "report.html").write_text(page, encoding="utf-8")


def _image(png: bytes, css_class: str, text: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img class="{css_class}" alt="{text}" src="data:image/png;base64,{data}">'


def _figure(caption: str, path: Path) -> str:
    image = _image(path.read_bytes(), "grid", caption)
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Columns of numbers are aligned to the right."""
    numbers = [
        all(re.fullmatch(r"[\d.e+-]*", text) for text in column)
        for column in zip(*rows, strict=True)
    ]

    def line(tag: str, cells: list[str]) -> str:
        pairs = zip(cells, numbers, strict=True)
        return "".join(
            f"<{tag}{' class=n' if right else ''}>{html.escape(text)}</{tag}>"
            for text, right in pairs
        )

    body = [line("th", head), *(line("td", row) for row in rows)]
    return f"<div class=wide><table><tr>{'</tr><tr>'.join(body)}</tr></table></div>"


def _likelihoods(metrics: dict[str, Any]) -> str:
    rows = [[name, "", f"{bits:.4f}", "exact"] for name, bits in metrics["baselines"].items()]
    for name, result in metrics["models"].items():
        test = result["test"]
        if "iwae_bits_per_dim" in test:
            rows.append([name, f"{test['nats']:.2f}", f"{test['bits_per_dim']:.4f}", "ELBO bound"])
            bound = f"bound, {test['iwae_samples']} importance samples"
            rows.append([name, "", f"{test['iwae_bits_per_dim']:.4f}", bound])
        elif test:
            rows.append([name, f"{test['nats']:.2f}", f"{test['bits_per_dim']:.4f}", "exact"])
        else:
            rows.append([name, "", "", "no likelihood"])
    head = ["model", "nats per image", "bits per dimension", "kind"]
    note = (
        "<p>Test split, at the averaged weights that were best on the validation split. "
        "Independent pixels: the histogram of each pixel over the training split.</p>"
    )
    return note + _table(head, rows)


def _speeds(models: dict[str, Any]) -> str:
    rows = []
    for name, result in models.items():
        c = result["comparison"]
        rows.append(
            [
                name,
                f"{c['step_ms']['genkern']:.2f}",
                f"{c['step_ms']['plain']:.2f}",
                f"{c['speedup']:.2f}",
                f"{c['difference']:.1e}",
                f"{result['train_seconds']:.1f}",
                f"{result['steps']}",
                ", ".join(f"{op}: {backend}" for op, backend in c["backends"].items()),
            ]
        )
    head = [
        "model",
        "genkern, ms per step",
        "plain PyTorch, ms per step",
        "plain / genkern",
        "losses differ by",
        "training, s",
        "steps",
        "backends",
    ]
    note = (
        "<p>Median of whole training steps, taken in turn: genkern's operators, and PyTorch as "
        "people write it without them (<code>F.conv2d(x, w * mask)</code>, a loop over rows, the "
        "KL of twelve operators, <code>binary_cross_entropy_with_logits</code>). A masked "
        "convolution or a Row LSTM is most of a step; a KL or a GAN loss is a small part, and "
        "changes the whole little. The difference of losses is that to genkern's references in "
        "float64, relative to max(1, |loss|).</p>"
    )
    return note + _table(head, rows)


def _curves(models: list[str], spec: DataSpec, out: Path) -> bytes:
    rows = math.ceil(len(models) / 2)
    figure = Figure(figsize=(11, 3.5 * rows), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(rows, 2).flat, models, strict=False):
        model_class = registry.model_class(name)
        records = read_log(out / name)
        scale = bits_per_dim(spec, 1.0) if model_class.likelihood else 1.0
        for key in (k for k in records[0] if k.endswith("loss")):
            points = [(r["step"], r[key] * scale) for r in records if key in r]
            axes.plot(*zip(*points, strict=True), label=f"train, {key}", alpha=0.6, linewidth=0.8)
        points = [(r["step"], r["val"] * scale) for r in records if "val" in r]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label="validation", markersize=3)
        axes.set(title=name, xlabel="step")
        axes.set_ylabel("bits/dim" if model_class.likelihood else "loss")
        axes.legend()
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
