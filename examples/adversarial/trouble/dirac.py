"""Dirac-GAN: the smallest game there is, which oscillates, and converges with R1.

The data are a point at 0, the generator is a point at theta, the discriminator D(x) = psi x. The
equilibrium is theta = psi = 0. Source: Mescheder et al. 2018, "Which training methods for GANs do
actually converge?", sec. 2 and 3, fig. 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

import genkern
from examples.adversarial.trouble import plots
from genkern.nn import GradientPenalty


class Game(NamedTuple):
    """Losses of a game, and a penalty of the discriminator."""

    kind: str
    saturating: bool = False
    penalty: Callable[[], GradientPenalty] | None = None


GAMES = {
    "GAN, saturating": Game("bce", saturating=True),
    "GAN, non-saturating": Game("bce"),
    "WGAN": Game("wgan"),
    "WGAN-GP": Game("wgan", penalty=lambda: GradientPenalty("wgan_gp", weight=0.1)),
    "GAN with R1": Game("bce", penalty=lambda: GradientPenalty("r1", weight=1.0)),
    "GAN with DRAGAN": Game("bce", penalty=lambda: GradientPenalty("dragan", weight=0.1)),
}


def play(game: Game, steps: int, lr: float, *, start: float = 1.0) -> torch.Tensor:
    """(theta, psi) after each of the steps, the start included: (steps + 1, 2), float64.

    Both players follow their gradients at the same time.
    """
    theta, psi = (torch.tensor([[start]], dtype=torch.float64) for _ in range(2))
    penalty = None if game.penalty is None else game.penalty()
    data, found = torch.zeros(1, 1, dtype=torch.float64), [torch.cat([theta, psi], 1)]
    for _ in range(steps):
        theta, psi = theta.detach().requires_grad_(), psi.detach().requires_grad_()
        fake = theta @ psi
        d_loss = genkern.gan_d_loss(data @ psi, fake, kind=game.kind)
        if penalty is not None:
            d_loss = d_loss + penalty(lambda x, psi=psi: x @ psi, data, theta)
        g_loss = genkern.gan_g_loss(fake, kind=game.kind, saturating=game.saturating)
        (d_psi,) = torch.autograd.grad(d_loss, psi, retain_graph=True)
        (d_theta,) = torch.autograd.grad(g_loss, theta)
        theta, psi = theta - lr * d_theta, psi - lr * d_psi
        found.append(torch.cat([theta, psi], 1).detach())
    return torch.cat(found)


def main() -> None:
    parser = plots.parser(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=0.1)
    given = parser.parse_args()
    picture, axes = plots.figure(len(GAMES))
    print(f"{'game':21} distance of (theta, psi) from the equilibrium, at first and at last")
    torch.manual_seed(0)
    for (name, game), panel in zip(GAMES.items(), axes, strict=True):
        path = play(game, given.steps, given.lr)
        distance = path.norm(dim=1)
        print(f"{name:21} {distance[0]:.3f} {distance[-1]:.3g}")
        panel.plot(*path.T.numpy(), linewidth=0.6)
        panel.plot(*path[-1:].T.numpy(), "o", color="black")
        panel.set_title(f"{name}: {distance[-1]:.2g}")
        panel.set_xlabel("theta")
        panel.set_ylabel("psi")
    plots.save(picture, given.out, "dirac.png")


if __name__ == "__main__":
    main()
