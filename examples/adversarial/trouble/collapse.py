"""Mode collapse on the ring of eight, and R1, which cures it.

Two perceptrons; the generator minimises log(1 - D), and D takes three steps to each of G's: all
samples run to the mode that D believes most at the time, and on to the next one. The same players
with R1 on D, from the same start. Source: Goodfellow et al. 2014, sec. 6 ("the Helvetica
scenario"); Metz et al. 2017, "Unrolled generative adversarial networks", fig. 2; Mescheder et al.
2018, "Which training methods for GANs do actually converge?".
"""

from typing import NamedTuple

import torch
from torch import nn

import genkern
from examples.adversarial.trouble import plots
from examples.data.synthetic import mixture
from genkern.metrics import Modes, modes

LATENT, HIDDEN, BATCH, SAMPLES = 2, 128, 256, 10_000
TURNS, LR, BETAS = 3, 2e-3, (0.5, 0.999)


class Shot(NamedTuple):
    """The generator at a step: ``samples`` (N, 2), and what they fall on."""

    step: int
    modes: Modes
    samples: torch.Tensor

    @property
    def covered(self) -> int:
        """Modes that 1 % of the samples or more fall on."""
        return int((self.modes.counts >= SAMPLES // 100).sum())


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(inputs, HIDDEN), nn.LeakyReLU(0.2)),
        *(nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2)),
        nn.Linear(HIDDEN, outputs),
    )


def play(weight: float, steps: int, shots: int, seed: int = 0) -> list[Shot]:
    """The game of the two; ``weight`` is that of R1.

    Args:
        steps: of the generator.
        shots: looks at it, at equal distances, the last one at the end.
    """
    torch.manual_seed(seed)
    centres, std = mixture("ring8")
    g, d = perceptron(LATENT, 2), perceptron(2, 1)
    of_g = torch.optim.Adam(g.parameters(), LR, BETAS)
    of_d = torch.optim.Adam(d.parameters(), LR, BETAS)
    penalty = genkern.nn.GradientPenalty("r1", weight=weight)
    taken = []
    for step in range(1, steps + 1):
        for _ in range(TURNS):
            of_mode = centres[torch.randint(len(centres), (BATCH,))]
            real = of_mode + std * torch.randn(BATCH, 2)
            fake = g(torch.randn(BATCH, LATENT)).detach()
            loss = genkern.gan_d_loss(d(real), d(fake))
            if weight:
                loss = loss + penalty(d, real)
            of_d.zero_grad()
            loss.backward()
            of_d.step()
        of_g.zero_grad()
        genkern.gan_g_loss(d(g(torch.randn(BATCH, LATENT))), saturating=True).backward()
        of_g.step()
        if step % (steps // shots) == 0:
            with torch.no_grad():
                samples = g(torch.randn(SAMPLES, LATENT))
            taken.append(Shot(step, modes(samples, centres, std=std), samples))
    return taken


def main() -> None:
    parser = plots.parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--weight", type=float, default=1.0, help="of R1 where it is on")
    given = parser.parse_args()
    shots = 5
    picture, axes = plots.figure(2 * shots, columns=shots)
    for row, (name, weight) in enumerate({"alone": 0.0, "with R1": given.weight}.items()):
        for column, shot in enumerate(play(weight, given.steps, shots)):
            print(f"{name:8} step {shot.step:5}: {shot.covered} of 8 modes have 1 % of the samples")
            print(f"         {shot.modes}", flush=True)
            panel = axes[row * shots + column]
            panel.plot(*shot.samples[:2000].T.numpy(), ".", markersize=1)
            panel.plot(*mixture("ring8")[0].T.numpy(), "+", color="black", markersize=5)
            panel.set(xlim=(-2, 2), ylim=(-2, 2), title=f"{name}, step {shot.step}")
    plots.save(picture, given.out, "collapse.png")


if __name__ == "__main__":
    main()
