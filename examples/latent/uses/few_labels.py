"""An encoder trained without labels, as the start of a classifier; the same net from scratch.

Source: Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks".
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from examples.data.dataset import Dataset
from examples.errors import wrong
from examples.harness.scores import interval
from examples.latent.uses.report import Report
from examples.latent.uses.runs import Coded, coded

SEEDS = 5


def labelled(labels: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Indices of ``count`` items, as many of each class as of any other."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = int(labels.max()) + 1
    if count % classes:
        raise wrong("labels", f"a multiple of the {classes} classes", count)
    each = [order[labels[order] == label][: count // classes] for label in range(classes)]
    return torch.cat(each)


def classifier(model: Coded, classes: int, *, pretrained: bool) -> nn.Sequential:
    """The encoder without its last layer, or one like it with fresh weights; then a linear one."""
    hidden = copy.deepcopy(model.encoder[:-1])
    if not pretrained:
        for layer in hidden.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    # The convolutions take images; all others take their pixels.
    front = [] if isinstance(hidden[0], nn.Conv2d) else [nn.Flatten()]
    return nn.Sequential(*front, hidden, nn.Linear(model.encoder[-1].in_features, classes))


def accuracy(
    model: Coded,
    dataset: Dataset,
    count: int,
    seed: int,
    *,
    pretrained: bool,
    steps: int = 200,
    lr: float = 1e-3,
) -> float:
    """Of the test split, after training all weights on ``count`` labels."""
    torch.manual_seed(seed)
    net = classifier(model, dataset.spec.classes, pretrained=pretrained)
    scale = lambda items: model.spec.scale(items, torch.empty(0))  # noqa: E731
    chosen = labelled(dataset.labels["train"], count, seed)
    x, y = scale(dataset.splits["train"][chosen]), dataset.labels["train"][chosen]
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        found = net(scale(dataset.splits["test"])).argmax(1)
    return (found == dataset.labels["test"]).double().mean().item()


def compare(
    model: Coded, dataset: Dataset, count: int, seeds: int = SEEDS, steps: int = 200
) -> dict[str, list[float]]:
    """Accuracies by seed: each draws the labels and the fresh weights."""
    return {
        name: [
            accuracy(model, dataset, count, seed, pretrained=pretrained, steps=steps)
            for seed in range(seeds)
        ]
        for name, pretrained in (("encoder", True), ("scratch", False))
    }


def main(runs: Sequence[Path], report: Report) -> None:
    model, dataset = coded(runs[0])
    report.say(f"test accuracy, {SEEDS} seeds, 95 % intervals")
    for count in (10, 50, 100):
        found = compare(model, dataset, count)
        gain = [a - b for a, b in zip(found["encoder"], found["scratch"], strict=True)]
        rows = {**found, "gain": gain}
        text = ", ".join(
            f"{name} {mean:+.3f} +- {half:.3f}"
            if name == "gain"
            else f"{name} {mean:.3f} +- {half:.3f}"
            for name, (mean, half) in ((n, interval(values)) for n, values in rows.items())
        )
        report.say(f"  {count:3} labels: {text}")
