"""Images made of images of the test split: a picture, and how good they are.

    python -m examples.adversarial.translate MODEL --run RUN

Of pairs: the PSNR beside that of doing nothing (bicubic interpolation; grey). Of domains: the share
that a classifier, trained on real images, takes for what they should be, and how far the way back
ends from the start.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from examples import data
from examples.adversarial.translation import Paired
from examples.adversarial.unpaired import CycleGAN
from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.harness import checkpoint, images
from examples.model import Batch, GenerativeModel
from examples.paths import CHECKPOINT

ROWS = 8


def psnr(made: torch.Tensor, true: torch.Tensor, levels: int) -> float:
    """Decibels, of all pixels together."""
    error = (made.double() - true.double()).square().mean()
    return float(10 * torch.log10((levels - 1) ** 2 / error))


def beside(model: Paired, batch: Batch) -> torch.Tensor:
    """What is given, without a model, in the shape of the items."""
    given = model.given(batch)
    if given.shape[2:] == batch.items.shape[2:]:
        return given.expand_as(batch.items)
    larger = F.interpolate(given.float(), scale_factor=2, mode="bicubic")
    return larger.round().clamp(0, model.spec.levels - 1).to(given.dtype)


def colourfulness(items: torch.Tensor) -> float:
    """Mean distance of the colours of a pixel from their mean, in levels."""
    values = items.float()
    return (values - values.mean(1, keepdim=True)).abs().mean().item()


def pairs(model: Paired, batch: Batch, made: torch.Tensor) -> list[str]:
    plain, levels = beside(model, batch), model.spec.levels
    found = [
        f"PSNR {psnr(made, batch.items, levels):.2f} dB, of the {model.condition} as it is "
        f"{psnr(plain, batch.items, levels):.2f} dB"
    ]
    colours = ", ".join(f"{colourfulness(x):.2f}" for x in (made, batch.items))
    return [*found, f"colourfulness of what is made, and of the images: {colours} levels"]


def domains(
    model: GenerativeModel, dataset: Dataset, wanted: torch.Tensor, made: torch.Tensor
) -> str:
    """How often a classifier of real images takes the made ones for what they should be."""
    from sklearn.neural_network import MLPClassifier

    scale = dataset.spec.levels - 1

    def rows(items: torch.Tensor):
        return (items.flatten(1).float() / scale).numpy()

    judge = MLPClassifier((64,), early_stopping=True, random_state=0, max_iter=60)
    train, test = dataset.whole("train"), dataset.whole("test")
    judge.fit(rows(train.items[:6000]), train.labels[:6000].numpy())
    real = judge.score(rows(test.items), test.labels.numpy())
    right = judge.score(rows(made), wanted.numpy())
    return f"a classifier is right about {real:.1%} of real images, {right:.1%} of these"


def translate(name: str, run: Path, out: Path) -> list[str]:
    """Writes the picture; returns what is to be said."""
    model = checkpoint.load_model(name, run / CHECKPOINT)
    config = checkpoint.load(run / CHECKPOINT)["config"]
    dataset = data.load(config.data, config.data_dir)
    batch, generator = dataset.whole("test"), torch.Generator().manual_seed(0)
    given = model.given(batch)
    made = model.sample(len(batch), generator, 1.0, given)
    chosen = torch.linspace(0, len(batch) - 1, 2 * ROWS).long()
    if isinstance(model, Paired):
        said = pairs(model, batch, made)
        columns = [beside(model, batch), made, batch.items]
    elif isinstance(model, CycleGAN):
        wanted = 1 - batch.labels % 2
        back = model.sample(len(batch), generator, 1.0, Batch(made, wanted))
        error = (back.float() - batch.items.float()).abs().mean().item()
        said = [domains(model, dataset, wanted, made), f"there and back: {error:.1f} levels off"]
        columns = [batch.items, made, back]
    else:
        raise UsageError(f"{name} makes no images of images")
    shown = torch.stack([column[chosen] for column in columns], 1).flatten(0, 1)
    picture = images.grid(shown, dataset.spec, height=560, columns=2 * len(columns))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--run", type=Path, help="folder of a run; default runs/MODEL")
    parser.add_argument("--out", type=Path, help="a .png file; default RUN/translated.png")
    given = parser.parse_args()
    run = given.run or Path("runs") / given.model
    out = given.out or run / "translated.png"
    for text in translate(given.model, run, out):
        print(text)
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
