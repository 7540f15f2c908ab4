"""Annealed importance sampling: a path of distributions, and moves of HMC along it."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from genkern import checks
from genkern.metrics.estimate import Weights
from genkern.metrics.protocol import LatentModel, check_count, draw, log_joint

OP = "AIS"
STARTS = ("posterior", "prior")
FITTED = 256  # samples that the start of a path is fitted to
WARM_UP, RATE = 20, 0.3  # moves of the pilot before the path; how fast its step sizes follow
FIRST_STEP = 0.3
JITTER = 0.2  # a step is drawn around its size: no trajectory comes back to its start for ever


@dataclass(frozen=True)
class AIS:
    """How `log_likelihood(method="ais")` anneals.

    Args:
        temperatures: T, distributions behind the first; the bound is tighter with more.
        leapfrogs: steps of a move, one gradient of the joint density each.
        start: "posterior": a diagonal Gaussian with the means and variances of q(z | x), of 256
            samples; or "prior": p(z), of ``model.prior()``, which owes nothing to the encoder and
            needs more temperatures.
        acceptance: share of moves to accept, which the step sizes are made for.
        pilots: chains of each item of a first run, which finds the step size of every item and
            temperature. The estimate's own chains take these as they are: step sizes that
            followed the chains themselves would make it biased.
    """

    temperatures: int = 200
    leapfrogs: int = 4
    start: str = "posterior"
    acceptance: float = 0.7
    pilots: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int:
                check_count(OP, field.name, getattr(self, field.name))
        checks.check_option(OP, "start", self.start, STARTS)
        checks.check_number(OP, "acceptance", self.acceptance, minimum=0.01, maximum=0.99)

    def betas(self) -> list[float]:
        """0 ... 1: a logistic curve, which is slow at both ends (Wu et al. 2017, sec. 4)."""
        steps = range(1 + self.temperatures)
        curve = [1 / (1 + math.exp(4 - 8 * t / self.temperatures)) for t in steps]
        return [(value - curve[0]) / (curve[-1] - curve[0]) for value in curve]


class Fitted:
    """A diagonal Gaussian of each item, by samples (S, N, ...)."""

    def __init__(self, samples: torch.Tensor) -> None:
        self.mean = samples.mean(0)
        self.std = samples.std(0).clamp(min=1e-6)

    def sample(self, count: int, items: int) -> torch.Tensor:
        del items
        return self.mean + self.std * torch.randn(count, *self.mean.shape).to(self.mean)

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        apart = (z - self.mean) / self.std
        terms = apart.square() + (2 * self.std.log() + math.log(2 * math.pi))
        return -0.5 * terms.flatten(2).sum(2)


class Prior:
    """p(z) of a model, the same for all items."""

    def __init__(self, op: str, model: Any) -> None:
        if not callable(getattr(model, "prior", None)):
            raise TypeError(
                f"{op}: start must be 'posterior' where model has no prior(); "
                f"got 'prior' and {type(model).__name__}"
            )
        self.op, self.prior = op, model.prior()

    def sample(self, count: int, items: int) -> torch.Tensor:
        return self.prior.sample(torch.Size([count, items]))

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        log_prob = self.prior.log_prob(z)
        if log_prob.shape != z.shape[:2]:
            raise ValueError(
                f"{self.op}: log_prob of model.prior() must have shape (S, N) = "
                f"{tuple(z.shape[:2])}; got {tuple(log_prob.shape)}"
            )
        return log_prob


@dataclass
class State:
    """Chains z (S, N, ...), and log-density and gradient of both ends of the path there."""

    z: torch.Tensor
    start: torch.Tensor
    joint: torch.Tensor
    of_start: torch.Tensor
    of_joint: torch.Tensor

    def log_density(self, beta: float) -> torch.Tensor:
        return (1 - beta) * self.start + beta * self.joint

    def gradient(self, beta: float) -> torch.Tensor:
        return (1 - beta) * self.of_start + beta * self.of_joint

    def where(self, taken: torch.Tensor, other: "State") -> "State":
        """The chains (S, N) of ``other`` where ``taken``."""
        wide = taken.view(*taken.shape, *[1] * (self.z.ndim - 2))
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return State(*(torch.where(taken if a.ndim == 2 else wide, b, a) for a, b in pairs))


class Annealing:
    """The path of one block of items.

    Args:
        x: (N, ...).
    """

    def __init__(self, op: str, model: LatentModel, x: torch.Tensor, options: AIS) -> None:
        self.op, self.model, self.x, self.options = op, model, x, options
        self.start: Fitted | Prior
        if options.start == "prior":
            self.start = Prior(op, model)
            samples = self.start.sample(FITTED, 1)
            samples = samples.expand(FITTED, len(x), *samples.shape[2:])
        else:
            with torch.no_grad():
                samples, _ = draw(op, model.encode(x), FITTED, len(x))
            self.start = Fitted(samples)
        #: HMC moves in units of the start's standard deviations.
        self.scale = samples.std(0).clamp(min=1e-6)

    def at(self, z: torch.Tensor) -> State:
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            joint, start = log_joint(self.op, self.model, self.x, z), self.start.log_prob(z)
            (of_joint,) = torch.autograd.grad(joint.sum(), z)
            (of_start,) = torch.autograd.grad(start.sum(), z)
        return State(z.detach(), start.detach(), joint.detach(), of_start, of_joint)

    def move(self, state: State, beta: float, step: torch.Tensor) -> tuple[State, torch.Tensor]:
        """One move that leaves the distribution at ``beta`` as it is; steps (N,).

        Returns the chains, and the mean probability of acceptance of each item (N,). Source: Neal
        2011, "MCMC using Hamiltonian dynamics", sec. 3.2.
        """
        jittered = step * (1 + JITTER * (2 * torch.rand_like(step) - 1))
        width = jittered.view(-1, *[1] * (state.z.ndim - 2)).to(state.z) * self.scale
        momentum = torch.randn_like(state.z)

        def kinetic(momentum: torch.Tensor) -> torch.Tensor:
            return 0.5 * momentum.square().flatten(2).sum(2)

        before = state.log_density(beta) - kinetic(momentum)
        proposed = state
        for _ in range(self.options.leapfrogs):
            momentum = momentum + 0.5 * width * proposed.gradient(beta)
            proposed = self.at(proposed.z + width * momentum)
            momentum = momentum + 0.5 * width * proposed.gradient(beta)
        # NaN, of a trajectory that ran away, is no acceptance.
        log_ratio = (proposed.log_density(beta) - kinetic(momentum) - before).nan_to_num(-math.inf)
        taken = torch.rand_like(log_ratio).log() < log_ratio
        return state.where(taken, proposed), log_ratio.clamp(max=0).exp().mean(0)

    def steps(self) -> torch.Tensor:
        """Step sizes (T, N) that a run of a few chains has found."""
        options, betas = self.options, self.options.betas()
        state = self.at(self.start.sample(options.pilots, len(self.x)))
        log_step = torch.full((len(self.x),), math.log(FIRST_STEP), device=state.z.device)
        found = []
        for beta in [0.0] * WARM_UP + betas[1:]:
            state, accepted = self.move(state, beta, log_step.exp())
            log_step = log_step + RATE * (accepted - options.acceptance)
            found.append(log_step)
        return torch.stack(found[WARM_UP:]).exp()

    def log_weights(self, chains: int) -> tuple[torch.Tensor, float]:
        """log w (chains, N), the mean of whose w is p(x), and the acceptance."""
        steps, betas = self.steps(), self.options.betas()
        state = self.at(self.start.sample(chains, len(self.x)))
        log_weight = torch.zeros_like(state.joint, dtype=torch.float64)
        accepted = []
        for t in range(1, len(betas)):
            gained = state.joint.double() - state.start.double()
            log_weight = log_weight + (betas[t] - betas[t - 1]) * gained
            if t < len(betas) - 1:  # nobody asks where a chain goes after the last weight
                state, share = self.move(state, betas[t], steps[t - 1])
                accepted.append(share.mean())
        return log_weight, torch.stack(accepted).mean().item() if accepted else math.nan


def annealed(
    op: str, model: LatentModel, x: torch.Tensor, chains: int, options: AIS, weights: Weights
) -> float:
    """Adds the chains of a block of items to ``weights``; returns the acceptance."""
    log_weights, acceptance = Annealing(op, model, x, options).log_weights(chains)
    weights.add(log_weights)
    return acceptance
