r"""A variational autoregressive network for the 2-D Ising model on a torus.

.. math:: \beta F \le \sum_s q(s) (\beta E(s) + \log q(s)), \quad
          Z = E_q \left[ e^{-\beta E(s)} / q(s) \right]

q is a PixelCNN over the spins, trained on the first (REINFORCE with the batch mean as baseline;
every step draws new spins); the second, without bias, gives the free energy and its error, beside
the exact one of the finite torus.

Source: Wu, Wang, Zhang 2019, "Solving statistical mechanics using variational autoregressive
networks", eq. 2 to 5; Nicoli et al. 2020, "Asymptotically unbiased estimation of physical
observables with neural samplers", eq. 5; Kaufman 1949, "Crystal statistics II", eq. 66 to 71.
"""

import argparse
import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from examples.fast_sampling.public import public, timed
from genkern import sampling
from genkern.nn import MaskedConv2d

SPINS = sampling.Bernoulli()  # -1 and 1


class Network(nn.Module):
    """Spins (N, 1, L, L) to the logit of each being 1, given those before it.

    Without biases and with tanh it is odd in the spins, so that q(s) = q(-s), as is true of p. On
    the torus the last column and the last row are neighbours of the first: they see them, and what
    stands above and to the right is seen across the edge.
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.first = MaskedConv2d(1, hidden, 7, mask_type="A", bias=False)
        self.layers = nn.ModuleList(
            MaskedConv2d(hidden, hidden, 3, bias=False) for _ in range(layers)
        )
        self.last = MaskedConv2d(hidden, 1, 1, bias=False)
        self.direct = MaskedConv2d(1, 1, 7, mask_type="A", bias=False)
        self.across = nn.Conv2d(2, 1 + hidden, 1, bias=False)
        for layer in (self.last, self.direct, self.across):
            nn.init.zeros_(layer.weight)

    def forward(self, spins: torch.Tensor) -> torch.Tensor:
        L = spins.shape[3]
        column, row = F.pad(spins[..., :1], (L - 1, 0)), F.pad(spins[:, :, :1], (0, 0, L - 1, 0))
        across, wide = self.across(torch.cat([column, row], dim=1)), around(spins, 3)
        x = torch.tanh(self.first(wide)[..., :L] + across[:, 1:])
        for layer in self.layers:
            x = x + torch.tanh(layer(around(x, 1))[..., :L])
        return self.last(x) + self.direct(wide)[..., :L] + across[:, :1]


def around(x: torch.Tensor, columns: int) -> torch.Tensor:
    """With the first columns once more behind the last one."""
    return torch.cat([x, x[..., :columns]], dim=3)


def energy(spins: torch.Tensor) -> torch.Tensor:
    """- sum over neighbours of s s' on the torus, J = 1: (N,) of (N, 1, L, L)."""
    both = spins.roll(1, 2) + spins.roll(1, 3)
    return -(spins * both).flatten(1).sum(1)


def exact_log_partition(beta: float, rows: int, cols: int) -> float:
    """log Z of the rows x cols torus, J = 1."""
    K = beta
    first = 2 * K + math.log(math.tanh(K))
    gammas = [first]
    for r in range(1, 2 * cols):
        gammas.append(
            math.acosh(math.cosh(2 * K) / math.tanh(2 * K) - math.cos(r * math.pi / cols))
        )

    def product(start: int, minus: bool) -> tuple[float, float]:
        """log |prod of 2 cosh or 2 sinh of rows gamma / 2|, and its sign."""
        log, sign = 0.0, 1.0
        for gamma in gammas[start::2]:
            x = rows * gamma / 2
            log += abs(x) + math.log1p((-1 if minus else 1) * math.exp(-2 * abs(x)))
            sign *= -1.0 if minus and x < 0 else 1.0
        return log, sign

    terms = [product(start, minus) for start in (1, 0) for minus in (False, True)]
    most = max(log for log, _ in terms)
    total = sum(sign * math.exp(log - most) for log, sign in terms)
    return -math.log(2) + rows * cols / 2 * math.log(2 * math.sinh(2 * K)) + most + math.log(total)


def draw(model: nn.Module, batch: int, L: int, **options) -> torch.Tensor:
    """Spins (batch, 1, L, L), -1 and 1."""
    return SPINS.to_inputs(
        sampling.sample(model, batch, shape=(1, L, L), output=SPINS, **options), torch.float32
    )


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, spins: torch.Tensor, beta: float
) -> float:
    """One step of REINFORCE on drawn spins; the variational bound on beta F / spin."""
    log_q = SPINS.log_prob(model(spins), (spins > 0).long())
    cost = beta * energy(spins) + log_q.detach()
    loss = ((cost - cost.mean()) * log_q).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return cost.mean().item() / spins[0].numel()


class Estimate(NamedTuple):
    """Free energy per spin, its standard error, and the effective share of the samples."""

    free_energy: float
    error: float
    effective: float


@torch.no_grad()
def estimate(model: nn.Module, beta: float, L: int, batches: int, batch: int) -> Estimate:
    logs = []
    for _ in range(batches):
        spins = draw(model, batch, L)
        log_q = SPINS.log_prob(model(spins), (spins > 0).long())
        logs.append(-beta * energy(spins).double() - log_q.double())
    log_w = torch.cat(logs)
    weights = (log_w - log_w.max()).exp()
    mean, spread = weights.mean(), weights.std() / math.sqrt(len(weights))
    log_z = log_w.max().item() + mean.log().item()
    scale = beta * L * L
    share = (weights.sum() ** 2 / (weights**2).sum() / len(weights)).item()
    return Estimate(-log_z / scale, (spread / mean).item() / scale, share)


def train(
    *, L: int, beta: float, hidden: int, layers: int, batch: int, steps: int
) -> tuple[nn.Module, float]:
    """The network, and the seconds of a step."""
    torch.manual_seed(0)
    model = Network(hidden, layers)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    started = time.perf_counter()
    for number in range(steps):
        warm = beta * min(1.0, 2 * (number + 1) / steps)  # from high temperature
        step(model, optimizer, draw(model, batch, L), warm)
        schedule.step()
    return model, (time.perf_counter() - started) / steps


def public_step_seconds(model: nn.Module, batch: int, L: int, step_seconds: float) -> float:
    """A step that draws its spins by a forward pass for each, timed for a few passes."""
    other, spins = public(model), draw(model, batch, L)
    with torch.no_grad():
        forward, _ = timed(lambda: other(spins), 3)
    own, _ = timed(lambda: draw(model, batch, L), 3)
    return step_seconds - own + forward * L * L


@torch.no_grad()
def different(model: nn.Module, batch: int, L: int) -> int:
    """Spins that the public network would have drawn otherwise from the same noise."""
    noise = sampling.draw_noise(batch, shape=(1, L, L), output=SPINS)
    spins = draw(model, batch, L, noise=noise)
    params = public(model)(spins).flatten(2)
    again = SPINS.draw(params, noise.flatten(2), 1.0, None).view_as(spins)
    return int((again != (spins > 0)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, kind, default in (
        ("L", int, 16), ("beta", float, 0.4), ("hidden", int, 32), ("layers", int, 3),
        ("batch", int, 256), ("steps", int, 300),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    given = vars(parser.parse_args())
    L, beta, batch = given["L"], given["beta"], given["batch"]
    model, seconds = train(**given)
    slow = public_step_seconds(model, batch, L, seconds)
    found, exact = estimate(model, beta, L, 20, batch), -exact_log_partition(beta, L, L)
    exact /= beta * L * L
    print(
        f"{seconds:.3f} s a step ({sampling.last_report().method}); with a forward pass per spin "
        f"{slow:.2f} s: {slow / seconds:.0f}x; {different(model, batch, L)} spins differ"
    )
    print(
        f"free energy per spin {found.free_energy:.6f} +- {found.error:.6f} (one deviation; "
        f"effective samples {found.effective:.1%}), exact {exact:.6f}: "
        f"{(found.free_energy - exact) / found.error:+.2f} deviations"
    )


if __name__ == "__main__":
    main()
