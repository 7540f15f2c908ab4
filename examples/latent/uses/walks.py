"""Walks through codes, as pictures: one dimension at a time, along great circles, and by the
arithmetic of averaged codes.

Sources: White 2016, "Sampling generative networks", sec. 2.1 (slerp); Radford et al. 2016, "DCGAN",
sec. 6.3.2 (vectors of averaged codes).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from examples.data.dataset import Dataset
from examples.harness import images
from examples.latent.uses.report import Report
from examples.latent.uses.runs import Coded, coded, codes_of, images_of, pixels

PLACES = 9


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """From a to b (..., D) on the great circle of their directions, lengths in proportion; t in
    [0, 1], as a tensor that is repeated to the result. Opposite or equal directions: a line."""
    cosine = torch.cosine_similarity(a, b, dim=-1).clamp(-1.0, 1.0)[..., None]
    angle = torch.arccos(cosine)
    flat = angle.sin().abs() < 1e-4
    whole = torch.where(flat, 1.0, angle.sin())
    of_a, of_b = ((1 - t) * angle).sin() / whole, (t * angle).sin() / whole
    unit = of_a * torch.nn.functional.normalize(a, dim=-1)
    unit = unit + of_b * torch.nn.functional.normalize(b, dim=-1)
    length = torch.lerp(a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True), t)
    return torch.where(flat, torch.lerp(a, b, t), length * unit)


def traversals(codes: torch.Tensor, which: int = 0, dims: int = 8) -> torch.Tensor:
    """The code ``which`` with each of the ``dims`` dimensions of the largest spread at 9 values,
    2.5 standard deviations about the mean: (dims * 9, latent)."""
    std, mean = codes.std(0), codes.mean(0)
    rows = []
    for d in std.argsort(descending=True)[:dims]:
        row = codes[which].repeat(PLACES, 1)
        row[:, d] = mean[d] + std[d] * torch.linspace(-2.5, 2.5, PLACES)
        rows.append(row)
    return torch.cat(rows)


def strips(codes: torch.Tensor, pairs: int = 8) -> torch.Tensor:
    """Between neighbours in the batch, 9 places each: (pairs * 9, latent)."""
    t = torch.linspace(0.0, 1.0, PLACES)[None, :, None]
    return slerp(codes[:pairs, None], codes[pairs : 2 * pairs, None], t).flatten(0, 1)


def attributes(items: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of images (N, C, H, W): the mean level, and how far ink leans to the right at the top."""
    ink = items.double().mean(1)
    H, W = ink.shape[1:]
    total = ink.sum((1, 2)).clamp(min=1e-9)
    x, y = torch.arange(W).double(), torch.arange(H).double()
    centre = [(ink * place).sum((1, 2)) / total for place in (x, y[:, None])]
    dx, dy = x - centre[0][:, None, None], y[:, None] - centre[1][:, None, None]
    lean = -(ink * dx * dy).sum((1, 2)) / (ink * dy.square()).sum((1, 2)).clamp(min=1e-9)
    return {"ink": ink.mean((1, 2)), "lean": lean}


def attribute_vector(codes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean code of the third with the most of an attribute, less that of the least."""
    order = values.argsort()
    third = len(order) // 3
    return codes[order[-third:]].mean(0) - codes[order[:third]].mean(0)


def changed(
    model: Coded, codes: torch.Tensor, vector: torch.Tensor, steps: Sequence[float]
) -> list[torch.Tensor]:
    """The images of codes + step * vector, for each step."""
    return [images_of(model, codes + step * vector) for step in steps]


def arithmetic(
    model: Coded, dataset: Dataset, first: int, second: int, many: int
) -> tuple[float, torch.Tensor]:
    """Test items of class ``first``, plus what the mean of ``many`` codes of ``second`` is above
    that of ``first``: the share that a classifier of pixels then takes for ``second``, and the
    images."""
    from sklearn.linear_model import LogisticRegression

    train, labels = dataset.splits["train"], dataset.labels["train"]
    judge = LogisticRegression(max_iter=1000).fit(pixels(model, train).numpy(), labels.numpy())
    means = [codes_of(model, train[labels == c][:many]).mean(0) for c in (first, second)]
    moved = dataset.splits["test"][dataset.labels["test"] == first]
    drawn = images_of(model, codes_of(model, moved) + means[1] - means[0])
    found = judge.predict(pixels(model, drawn).numpy())
    return float((found == second).mean()), drawn


CAPTIONS = {
    "traversals": "One code; in each row another of its dimensions, those of the largest spread, "
    "goes from 2.5 standard deviations below the mean to 2.5 above",
    "slerp": "From one test image to another, on the great circle of their codes",
    "ink": "Test images in the middle column; to the left with less ink, to the right with more",
    "lean": "The same, leaning to the left and to the right",
    "arithmetic": "Codes of test images of a 3, plus the mean of 100 codes of 8 less that of 3",
}


def main(runs: Sequence[Path], report: Report) -> None:
    model, dataset = coded(runs[0])
    train, test = (codes_of(model, dataset.splits[split]) for split in ("train", "test"))
    pictures = {"traversals": images_of(model, traversals(train))}
    pictures["slerp"] = images_of(model, strips(test))
    steps = torch.linspace(-1.0, 1.0, PLACES).tolist()
    for name, values in attributes(dataset.splits["train"]).items():
        vector = attribute_vector(train, values)
        found = changed(model, test, vector, steps)
        means = [attributes(drawn)[name].mean().item() for drawn in found]
        told = " ".join(f"{mean:.2f}" for mean in means)
        report.say(f"{name}: mean over the test images, vector times -1 to 1: {told}")
        pictures[name] = torch.stack([drawn[:8] for drawn in found], 1).flatten(0, 1)
    for many in (1, 3, 100):
        share, drawn = arithmetic(model, dataset, 3, 8, many)
        report.say(f"3 + (8 - 3), of {many} codes averaged: {share:.2f} are taken for an 8")
    pictures["arithmetic"] = drawn[: 4 * PLACES]
    for name, drawn in pictures.items():
        path = report.picture(name, CAPTIONS[name])
        images.grid(drawn, model.spec, height=400, columns=PLACES).save(path)
