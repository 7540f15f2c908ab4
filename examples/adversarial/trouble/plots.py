"""A figure of the trouble scripts, and the folder that it goes to."""

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def figure(panels: int, columns: int = 3) -> tuple[Figure, list]:
    """A figure of panels, and their axes in order."""
    rows = -(-panels // columns)
    made = Figure(figsize=(3.2 * columns, 3.0 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False).flatten().tolist()
    for spare in axes[panels:]:
        spare.set_axis_off()
    return made, axes[:panels]


def save(made: Figure, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    made.savefig(path)
    print(f"Wrote {path}")
    return path


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the option of all these commands: where the picture goes."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--out", type=Path, default=Path("runs/trouble"), help="folder of pictures")
    return made
