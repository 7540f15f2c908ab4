"""Points in the plane with a known density, and images of shapes: the same on every run."""

import math
from collections.abc import Callable

import torch

from examples.data.dataset import Dataset
from examples.model import DataSpec

COUNTS = {"train": 20000, "val": 2000, "test": 5000}


def _dataset(
    name: str,
    draw: Callable[[int, torch.Generator], torch.Tensor],
    log_density: Callable[[torch.Tensor], torch.Tensor],
) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    splits = {split: draw(count, generator) for split, count in COUNTS.items()}
    return Dataset(name, DataSpec((2,), None), splits, {}, log_density)


def _mixture(name: str, centres: torch.Tensor, std: float) -> Dataset:
    """Equally likely round Gaussians: log p(x) = logsumexp_k log N(x; m_k, std^2 I) - log K."""

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(centres), (count,), generator=generator)
        return centres[chosen] + std * torch.randn(count, 2, generator=generator)

    def log_density(points: torch.Tensor) -> torch.Tensor:
        squared = (points[:, None] - centres.to(points)).square().sum(-1)
        exponents = -0.5 * squared / std**2
        return exponents.logsumexp(1) - math.log(len(centres) * 2.0 * math.pi * std**2)

    return _dataset(name, draw, log_density)


def mixture(name: str) -> tuple[torch.Tensor, float]:
    """The centres (K, 2) and the standard deviation of "ring8" or "grid25"."""
    if name == "ring8":
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return torch.stack([angles.cos(), angles.sin()], dim=1).float(), 0.02
    axis = torch.arange(-4.0, 5.0, 2.0)
    return torch.cartesian_prod(axis, axis), 0.05


def ring8() -> Dataset:
    """Eight Gaussians, std 0.02, on a circle of radius 1."""
    return _mixture("ring8", *mixture("ring8"))


def grid25() -> Dataset:
    """Twenty-five Gaussians, std 0.05, on a 5 x 5 grid of pitch 2 around the origin."""
    return _mixture("grid25", *mixture("grid25"))


def checkerboard() -> Dataset:
    """Uniform on the eight dark cells of a 4 x 4 board that covers [-2, 2) x [-2, 2)."""

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        cell = torch.randint(8, (count,), generator=generator)
        row = cell // 2
        corner = torch.stack([2 * (cell % 2) + row % 2, row], dim=1)
        return corner + torch.rand(count, 2, generator=generator) - 2.0

    def log_density(points: torch.Tensor) -> torch.Tensor:
        inside = ((points >= -2.0) & (points < 2.0)).all(1)
        dark = points.floor().long().sum(1) % 2 == 0
        uniform = torch.full_like(points[:, 0], -math.log(8.0))
        return torch.where(inside & dark, uniform, -math.inf)

    return _dataset("checkerboard", draw, log_density)


def shapes() -> Dataset:
    """16x16 images of a disc, a square or a cross in red, green or blue: class 3 colour + shape.

    Places, sizes, shades and the grey behind them are drawn.
    """
    generator, side = torch.Generator().manual_seed(0), 16
    splits, labels = {}, {}
    for split, count in (("train", 4500), ("val", 450), ("test", 900)):
        label = torch.arange(count) % 9
        radius, x, y, shade, grey = torch.rand(5, count, 1, 1, generator=generator)
        radius = 3.0 + 2.5 * radius
        middle = [radius + place * (side - 1 - 2 * radius) for place in (x, y)]
        rows = (torch.arange(side)[:, None] - middle[0]).abs()
        columns = (torch.arange(side) - middle[1]).abs()
        inside = torch.stack(
            [
                rows**2 + columns**2 <= radius**2,
                torch.maximum(rows, columns) <= 0.85 * radius,
                (torch.minimum(rows, columns) <= 0.35 * radius)
                & (torch.maximum(rows, columns) <= radius),
            ],
            dim=1,
        )
        chosen = inside[torch.arange(count), label % 3][:, None]
        tint = torch.eye(3)[label // 3][:, :, None, None]
        ink = 40.0 + tint * (130.0 + 60.0 * shade[:, None])
        image = torch.where(chosen, ink, 70.0 + 110.0 * grey[:, None])
        splits[split], labels[split] = image.round().to(torch.uint8), label
    return Dataset("shapes", DataSpec((3, side, side), 256, 9), splits, labels)
