"""Modes of a mixture that a generator finds: 25 Gaussians and the ring of eight.

Each model is trained from several seeds, in the time that is printed; of 10,000 samples of its
averaged generator `genkern.metrics.modes` counts the modes with a sample within three standard
deviations, and the share of such samples. Of the mixture itself 98.9 % are good.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from examples import data
from examples.adversarial.trouble import plots
from examples.data.synthetic import mixture
from examples.harness.config import TrainConfig
from examples.harness.trainer import Trainer
from genkern.metrics import Modes, modes

SAMPLES = 10_000
#: Models against each other, and their options.
PLAYERS = {
    "GAN, saturating": ("gan", {"saturating": True, "hidden": 128}),
    "GAN": ("gan", {"hidden": 128}),
    "WGAN-GP, z normal": ("wgan_gp", {"signs": 0}),
    "WGAN-GP": ("wgan_gp", {}),
}


class Run(NamedTuple):
    """One training.

    Args:
        modes: what was found.
        samples: (N, 2).
        seconds: of the training.
        steps: of the generator.
    """

    modes: Modes
    samples: torch.Tensor
    seconds: float
    steps: int


def run(model: str, dataset: str, seed: int, **given) -> Run:
    """Trains a model on a mixture, and counts the modes of its samples."""
    config = TrainConfig.for_model(model, data=dataset, seed=seed, sample_every=0, **given)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data.load(dataset), Path(folder) / "run", quiet=True)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    drawn = trainer.chosen_model().sample(SAMPLES, torch.Generator().manual_seed(seed))
    centres, std = mixture(dataset)
    return Run(modes(drawn, centres, std=std), drawn, seconds, trainer.step)


def line(name: str, seed: int, found: Run) -> str:
    return (
        f"{name:18} seed {seed}: {found.modes}; least {int(found.modes.counts.min())} of "
        f"{SAMPLES:,} on a mode; {found.steps:,} steps, {found.seconds:.0f} s"
    )


def summary(name: str, runs: list[Run]) -> str:
    whole = sum(r.modes.found == len(r.modes.counts) for r in runs)
    good = [r.modes.good for r in runs]
    return (
        f"{name:18} all modes in {whole} of {len(runs)} seeds; good {min(good):.1%} to "
        f"{max(good):.1%}; KL {statistics.mean(r.modes.kl for r in runs):.3f} nats"
    )


def main() -> None:
    parser = plots.parser(__doc__)
    parser.add_argument("--data", choices=("grid25", "ring8"), default="grid25")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="default: those of the registry")
    parser.add_argument("--only", choices=sorted(PLAYERS), help="one of the models")
    given = parser.parse_args()
    chosen = {n: p for n, p in PLAYERS.items() if given.only in (None, n)}
    steps = {} if given.steps is None else {"steps": given.steps}
    picture, axes = plots.figure(len(chosen), columns=min(2, len(chosen)))
    for (name, (model, options)), panel in zip(chosen.items(), axes, strict=True):
        runs = []
        for seed in given.seeds:
            runs.append(run(model, given.data, seed, options=options, **steps))
            print(line(name, seed, runs[-1]), flush=True)
        print(summary(name, runs), flush=True)
        panel.plot(*runs[0].samples.T.numpy(), ".", markersize=1)
        panel.plot(*mixture(given.data)[0].T.numpy(), "+", color="black", markersize=4)
        panel.set_title(f"{name}: {runs[0].modes.found} modes, {runs[0].modes.good:.1%} good")
    plots.save(picture, given.out, f"{given.data}.png")


if __name__ == "__main__":
    main()
