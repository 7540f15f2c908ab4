"""What the registry says of a model. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from examples.options import Takes, Value

#: The steps beside it take about a minute on two cores: too few for more than a first look.
LARGE = {"batch_size": 4, "eval_every": 100}


@dataclass(frozen=True)
class Entry:
    """Where a model is, and all that suits it.

    Args:
        path: "module:class".
        steps, lr, batch_size, beta1, beta2, ema_decay: training options for the digits.
        large: training options that differ for images of 28 x 28 pixels and more.
        points: training options that differ for points in the plane; among them "options", those
            of the model.
        players: options of one player alone, by its name; the keys of `options.PLAYER`.
        small: options of a model that the tests can train in a second.
        needs: "images" or "levels" (integers), or "anything".
        labels: it is trained on labels, and samples by them.
        pictures: it is given an image, or a part of what is in one, and draws what belongs to it.
        colours: its images have three colours.
        exact: it has an exact likelihood, and completes images (`RasterModel`).
        bounds: it bounds its likelihood by an encoder (`LatentModel`).
        limits: what an option takes, where that is closer than `options.OF_MODEL`.
    """

    path: str
    steps: int
    lr: float
    batch_size: int
    small: dict[str, Value]
    beta1: float = 0.9
    beta2: float = 0.999
    ema_decay: float = 0.99
    players: dict[str, dict[str, float]] = field(default_factory=dict)
    needs: str = "images"
    labels: bool = False
    pictures: bool = False
    colours: bool = False
    large: dict[str, Any] = field(default_factory=dict)
    points: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    bounds: bool = False
    limits: dict[str, Takes] = field(default_factory=dict)
