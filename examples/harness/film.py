"""A film of images being drawn: kept state beside a forward pass for each place, in one clock."""

import time
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

from examples.errors import wrong
from examples.harness import images
from examples.model import GenerativeModel
from genkern import sampling

FRAMES, LAST, MILLISECONDS = 60, 15, 80
METHODS = ("auto", "naive")


class Recording(NamedTuple):
    """The places in the order in which they were drawn, and when each was.

    Args:
        method: that was taken.
        images: (N, C, H, W), as they ended.
        seconds: (C, H, W), from the start.
    """

    method: str
    images: torch.Tensor
    seconds: torch.Tensor

    def at(self, seconds: float, empty: int) -> torch.Tensor:
        """The images as they were: ``empty`` where nothing was drawn yet."""
        return torch.where(self.seconds <= seconds, self.images, empty).to(self.images.dtype)


def record(model, method: str, noise: torch.Tensor, labels: torch.Tensor | None) -> Recording:
    """Images drawn from noise, each step seen."""
    output, seconds = model.distribution, torch.zeros(model.spec.shape, dtype=torch.float64)
    started = time.perf_counter()

    def choose(params: torch.Tensor, step: sampling.Step) -> torch.Tensor:
        colours = slice(step.colours.start, step.colours.stop)
        draws = colours if output.by_colour else slice(None)
        found = output.draw(params, noise[:, draws, step.rows, step.cols], 1.0, None)
        seconds[colours, step.rows, step.cols] = time.perf_counter() - started
        return found

    options = {"output": output, "condition": labels, "choose": choose, "method": method}
    drawn = sampling.sample(model.features, len(noise), shape=model.spec.shape, **options)
    report = sampling.last_report()
    assert report is not None
    return Recording(report.method, drawn, seconds)


def film(
    name: str, model: GenerativeModel, num: int, seed: int, label: int | None, out: Path
) -> str:
    """Writes a GIF whose clock runs evenly in the logarithm of the time; what it shows, in words.

    Raises:
        UsageError: the model draws by its own steps, or not by places at all.
    """
    if getattr(model, "own_steps", True):
        raise wrong("--film", "nothing where MODEL does not draw by genkern.sampling", out, name)
    if model.condition not in ("", "class"):
        raise wrong("--film", "nothing where MODEL needs a picture", out, name)
    labels = None
    if model.condition:
        classes = torch.arange(num) % model.spec.classes
        labels = classes if label is None else torch.full_like(classes, label)
    generator = torch.Generator().manual_seed(seed)
    shape, output = model.spec.shape, model.distribution
    noise = sampling.draw_noise(num, shape=shape, output=output, generator=generator)
    sides = [record(model, method, noise, labels) for method in METHODS]
    ends = [side.seconds.max().item() for side in sides]
    first = min(side.seconds.min().item() for side in sides)
    steps = torch.linspace(0, 1, FRAMES).tolist()
    times = [first * (max(ends) / first) ** step for step in steps] + [max(ends)] * LAST
    frames = [frame(sides, seconds, model) for seconds in times]
    out.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        out, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True
    )
    same = (sides[0].images == sides[1].images).float().mean().item()
    return (
        f"{sides[0].method} {ends[0]:.3f} s, naive {ends[1]:.3f} s, {ends[1] / ends[0]:.0f}x, "
        f"{same:.2%} of the levels equal"
    )


def frame(sides: list[Recording], seconds: float, model) -> Image.Image:
    """Both methods beside each other, and the clock."""
    spec, parts = model.spec, []
    for side in sides:
        parts.append(images.grid(side.at(seconds, spec.levels // 2), spec, height=256))
    gap, top = 12, 16
    width = sum(part.width for part in parts) + gap
    canvas = Image.new("RGB", (max(width, 320), parts[0].height + top), "white")
    draw, left = ImageDraw.Draw(canvas), 0
    for side, part in zip(sides, parts, strict=True):
        shown = min(seconds, side.seconds.max().item())
        draw.text((left + 2, 2), f"{side.method}: {shown:.3f} s", fill="black")
        canvas.paste(part.convert("RGB"), (left, top))
        left += part.width + gap
    return canvas
