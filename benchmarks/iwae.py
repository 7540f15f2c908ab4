"""Training steps of importance weighted autoencoders, genkern against `torch.distributions`.

Of both: 64 samples of each item, the bound of Burda et al. 2016, and Adam. The plain networks are
written as people write them: `Normal.rsample`, three `log_prob`, `logsumexp`. Linear layers and
activations, the same for both, are most of a step, and bound what genkern can win: on two cores of
an AVX2 machine `python -m benchmarks.iwae` printed 1.33 times (at most 1.48 if all but them and
Adam took no time) for the sizes of Burda et al., and 1.20 (1.33) for the digits.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Normal

import genkern
from benchmarks.core.case import Case, Target
from benchmarks.core.trained import PHASE, Trained
from examples.latent.vae import VAE
from examples.model import DataSpec

SAMPLES = 64
TARGETS = {PHASE: Target(2.0)}
MEMORY = 0.5  # of the plain step's peak


def tanh_mlp(*sizes: int) -> nn.Sequential:
    """The networks of Burda et al. 2016, sec. 5: two layers of 200 tanh units."""
    pairs = itertools.pairwise(sizes)
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


class BinaryVAE(VAE):
    """Encoder and decoder of Burda et al. 2016: Bernoulli pixels, one logit each."""

    def __init__(self, spec: DataSpec, *, hidden: int, latent: int) -> None:
        super().__init__(spec, hidden=1, latent=latent)
        self.encoder = tanh_mlp(spec.dims, hidden, hidden, 2 * latent)
        self.decoder = tanh_mlp(latent, hidden, hidden, spec.dims)

    def reconstruction_nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        logits = self.decoder(z)
        return genkern.bernoulli_nll(logits, items.flatten(1).to(logits.dtype))


class PlainVAE(nn.Module):
    """The same networks, and torch.distributions."""

    def __init__(self, model: VAE, likelihood: Callable) -> None:
        super().__init__()
        self.spec, self.encoder, self.decoder = model.spec, model.encoder, model.decoder
        self.likelihood = likelihood

    def sampled(self, q: Normal) -> torch.Tensor:
        """In float64, where losses are compared, of the noise that genkern draws."""
        if q.loc.dtype != torch.float64:
            return q.rsample(torch.Size([SAMPLES]))
        zeros = torch.zeros_like(q.loc)
        return q.loc + q.scale * genkern.gaussian_rsample(zeros, zeros, num_samples=SAMPLES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.spec.scale(images, self.encoder[0].weight).flatten(1)
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        q, p = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))
        z = self.sampled(q)
        log_weight = self.likelihood(self.decoder(z), images.flatten(1), self.spec.levels)
        log_weight = log_weight + (p.log_prob(z) - q.log_prob(z)).sum(-1)
        return math.log(SAMPLES) - log_weight.logsumexp(0)


def bernoulli(output: torch.Tensor, x: torch.Tensor, levels: int) -> torch.Tensor:
    return Bernoulli(logits=output).log_prob(x.to(output.dtype)).sum(-1)


def logistic(output: torch.Tensor, x: torch.Tensor, levels: int) -> torch.Tensor:
    """As a careful author writes it: three log-sigmoids, the ends by `where`."""
    mean, log_scale = output.chunk(2, dim=-1)
    inverse = torch.exp(-log_scale.clamp(-7.0, 7.0))
    width = 2.0 / (levels - 1) * inverse
    centred = (x.to(mean.dtype) * (2.0 / (levels - 1)) - 1.0 - mean) * inverse
    upper, lower = centred + 0.5 * width, centred - 0.5 * width
    log_p = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
    log_p = torch.where(x == 0, F.logsigmoid(upper), log_p)
    return torch.where(x == levels - 1, F.logsigmoid(-lower), log_p).sum(-1)


@dataclass(frozen=True)
class Step(Trained):
    """``model`` of genkern, and what torch.distributions makes of it."""

    model: Callable[[DataSpec], VAE]
    likelihood: Callable

    def built(self) -> dict[str, tuple[nn.Module, Callable]]:
        """Each implementation's network and its bound."""
        model, other = self.model(self.spec), self.model(self.spec)
        other.load_state_dict(model.state_dict())
        plain = PlainVAE(other, self.likelihood)
        return {
            "genkern": (model, lambda images: model.iwae_nll(images, SAMPLES)),
            "eager": (plain, plain),
        }

    def products(self) -> tuple[float, float]:
        """FLOPs of the linear layers, forward and backward; nobody asks for d(images)."""
        model = self.model(self.spec)
        first, *encoder = [m.weight.numel() for m in model.encoder if isinstance(m, nn.Linear)]
        decoder = [m.weight.numel() for m in model.decoder if isinstance(m, nn.Linear)]
        forward = 2.0 * self.batch * (first + sum(encoder) + SAMPLES * sum(decoder))
        return forward, 2 * forward - 2.0 * self.batch * first

    def case(self) -> Case:
        return self.record(self.model(self.spec), self.products(), TARGETS, memory=MEMORY)


def binary(name: str, hidden: int = 200, latent: int = 50, batch: int = 20, side: int = 28) -> Step:
    """The sizes of Burda et al. 2016: one stochastic layer, batches of 20."""
    return Step(
        name=name,
        batch=batch,
        spec=DataSpec((1, side, side), 2),
        model=lambda spec: BinaryVAE(spec, hidden=hidden, latent=latent),
        likelihood=bernoulli,
    )


def digits(name: str, hidden: int = 256, latent: int = 8, batch: int = 64, side: int = 8) -> Step:
    """The example on the digits."""
    return Step(
        name=name,
        batch=batch,
        spec=DataSpec((1, side, side), 17),
        model=lambda spec: VAE(spec, hidden=hidden, latent=latent),
        likelihood=logistic,
    )


def steps() -> Sequence[Step]:
    return (
        binary(f"iwae Bernoulli K{SAMPLES} N20 784-200-200-50"),
        digits(f"iwae logistic K{SAMPLES} N64 64-256-256-8"),
    )


def shares(step: Step, rounds: int = 9) -> dict[str, float]:
    """Seconds of parts of a step, medians: what is shared, and what is not."""
    from benchmarks.core import cpu
    from benchmarks.core.measure import quantiles
    from benchmarks.core.train import training_step

    torch.manual_seed(0)
    images, built = step.images(), step.built()
    model = built["genkern"][0]
    z = torch.randn(SAMPLES, step.batch, model.num_latent, requires_grad=True)
    output = model.decoder(z)
    upstream = torch.randn_like(output)

    def networks() -> None:
        """Encoder and decoder, both passes, and the gradient of z."""
        x = step.spec.scale(images, model.encoder[0].weight).flatten(1)
        told = model.encoder(x)
        told.backward(torch.ones_like(told))
        model.decoder(z).backward(upstream)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    calls = {name: training_step(*parts, images) for name, parts in built.items()}
    calls |= {"networks": networks, "Adam": optimizer.step}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = cpu.sample(call, 1)
            if turn:  # the first has the state of Adam to make
                times[name].append(seconds)
    return {name: quantiles(values)["median"] for name, values in times.items()}


def main() -> None:
    for step in steps():
        found = shares(step)
        shared = found["networks"] + found["Adam"]
        print(step.name, {name: f"{1e3 * value:.2f} ms" for name, value in found.items()})
        print(
            f"  ratio {found['eager'] / found['genkern']:.2f}; if the rest took no time "
            f"{found['eager'] / shared:.2f}; of the rest "
            f"{(found['eager'] - shared) / (found['genkern'] - shared):.2f}"
        )


if __name__ == "__main__":
    main()
