"""Rate and distortion of the VAE over beta: a picture.

python -m examples.latent.rate_distortion [--page FOLDER] [--runs FOLDER]

Source: Alemi et al. 2018, "Fixing a broken ELBO", sec. 3.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from examples import data, page
from examples.data.dataset import Dataset
from examples.harness import checkpoint, rundir
from examples.harness.config import TrainConfig
from examples.harness.trainer import Trainer
from examples.latent.vae import VAE
from examples.model import Batch
from examples.paths import CHECKPOINT

BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SAMPLES = 32  # of each test image
Point = tuple[float, float, float]


def trained(beta: float, dataset: Dataset, folder: Path, steps: int) -> VAE:
    """The averaged weights after all steps; a finished run is taken as it is."""
    config = TrainConfig.for_model(
        "vae", sample_every=0, eval_every=0, steps=steps, options={"beta": beta}
    )
    out = folder / f"vae-beta{beta:g}"
    state = checkpoint.load(out / CHECKPOINT) if (out / CHECKPOINT).is_file() else None
    if state is None or state["config"] != config:
        state = None
        rundir.clear(out)
    trainer = Trainer(config, dataset, out, resume_from=state, quiet=True)
    with rundir.locked(out):
        trainer.train()
    model = trainer.ema.module
    assert isinstance(model, VAE)
    return model


@torch.no_grad()
def point(model: VAE, dataset: Dataset) -> tuple[float, float]:
    """KL and -log p(x|z) of the test split, nats per image."""
    items = dataset.splits["test"].repeat(SAMPLES, 1, 1, 1)
    losses = model.eval()(Batch(items), torch.Generator().manual_seed(0))
    return losses["kl"].item(), losses["reconstruction"].item()


def draw(points: list[Point], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), dpi=120)
    rates, distortions = [p[1] for p in points], [p[2] for p in points]
    low, high = 0.0, 1.1 * max(rates)
    best = min(r + d for r, d in zip(rates, distortions, strict=True))
    for above in (0, 10, 20, 30):
        total = best + above
        axes.plot([low, high], [total - low, total - high], "--", color="0.75", linewidth=0.8)
        axes.annotate(f"-ELBO {total:.0f}", (high, total - high), fontsize=7, color="0.5")
    axes.plot(rates, distortions, "o-")
    for beta, rate, distortion in points:
        axes.annotate(f"  beta {beta:g}", (rate, distortion), fontsize=8, va="bottom")
    axes.set(xlabel="rate: KL(q(z|x) to p(z)), nats", ylabel="distortion: -log p(x|z), nats")
    axes.set(xlim=(low, 1.15 * high), ylim=(0.85 * min(distortions), 1.1 * max(distortions)))
    axes.set_title("VAE on digits, test split", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=Path("runs/page"))
    parser.add_argument("--runs", type=Path, default=Path("runs/rate_distortion"))
    parser.add_argument("--steps", type=int, default=1200)
    given = parser.parse_args(argv)
    dataset, points = data.load("digits"), []
    for beta in BETAS:
        rate, distortion = point(trained(beta, dataset, given.runs, given.steps), dataset)
        points.append((beta, rate, distortion))
        print(
            f"beta {beta:4g}: rate {rate:6.2f}, distortion {distortion:6.2f}, "
            f"-ELBO {rate + distortion:6.2f} nats",
            flush=True,
        )
    draw(points, given.page / page.PICTURES / page.RATE)
    page.write(given.page)
    print(f"Wrote {given.page / page.PICTURES / page.RATE}")


if __name__ == "__main__":
    main()
