"""Pictures of samples."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples.model import DataSpec


def grid(
    images: torch.Tensor, spec: DataSpec, *, height: int = 640, columns: int | None = None
) -> Image.Image:
    """Images of levels (N, C, H, W) in a grid, square unless ``columns`` says otherwise.

    It is enlarged to about ``height`` pixels.
    """
    C, H, W = spec.shape
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    canvas = torch.full((rows * columns, C, H + 1, W + 1), 0.5)
    canvas[: len(images), :, :H, :W] = images.cpu().float() / (spec.levels - 1)
    canvas = canvas.view(rows, columns, C, H + 1, W + 1).permute(0, 3, 1, 4, 2)
    pixels = canvas.reshape(rows * (H + 1), columns * (W + 1), C)[:-1, :-1]
    array = (pixels * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(array[:, :, 0] if C == 1 else array)
    scale = max(1, height // picture.height)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def scatter(points: torch.Tensor, *, height: int = 640) -> Image.Image:
    """Points (N, 2) in the plane."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=height / 6)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal")
    axes.plot(*points.cpu().float().T.numpy(), ".", markersize=3)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def picture(items: torch.Tensor, spec: DataSpec, *, height: int = 640) -> Image.Image:
    return grid(items, spec, height=height) if spec.is_image else scatter(items, height=height)


def save(items: torch.Tensor, spec: DataSpec, path: Path, *, height: int = 640) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(items, spec, height=height).save(path)
