"""Training steps of VAEs: one in which a likelihood of this library is a good part of the step, and
one in which nothing of it is. The same networks in both, `torch` alone against genkern.

The first is of photographs: a light convolutional encoder and decoder, and a mixture of ten
discretized logistics at each pixel, in plain PyTorch as ports of PixelCNN++ have it. The second is
the perceptron of PyTorch's own example: `binary_cross_entropy_with_logits`, and the KL and the
sample as twelve operators; its linear layers and Adam are all of the step that counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import genkern
from benchmarks.core.case import Case, Target
from benchmarks.core.trained import PHASE, Trained
from benchmarks.discretized_logistic_mixture import eager_nll
from examples.model import DataSpec

#: From the decoder's results (N, ...) and the images to nats (N,).
Likelihood = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Networks(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to [mu, logvar] (N, 2 D), and z (N, D) to what p(x|z) is."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


def convolutions(spec: DataSpec, hidden: int, latent: int, components: int) -> Networks:
    C, H, W = spec.shape
    wide, rows, columns = 2 * hidden, H // 4, W // 4
    encoder = nn.Sequential(
        nn.Conv2d(C, hidden, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, wide, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(wide * rows * columns, 2 * latent),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, wide * rows * columns),
        nn.ReLU(),
        nn.Unflatten(1, (wide, rows, columns)),
        nn.ConvTranspose2d(wide, hidden, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden, 10 * components, 4, 2, 1),
    )
    return Networks(encoder, decoder)


def perceptrons(spec: DataSpec, hidden: int, latent: int) -> Networks:
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(spec.dims, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
    )
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, spec.dims))
    return Networks(encoder, decoder)


def mixture(params: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return genkern.discretized_logistic_mixture_nll(params, images)


def bernoulli(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return genkern.bernoulli_nll(logits, images.flatten(1).to(logits.dtype))


def plain_bernoulli(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    target = images.flatten(1).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)


@dataclass(frozen=True)
class Step(Trained):
    """A VAE, and its likelihood by genkern and by people's code.

    Args:
        target: eager's time over genkern's; None: nothing is promised.
    """

    networks: Callable[[DataSpec], Networks]
    likelihood: Likelihood
    plain: Likelihood
    target: float | None = None

    def posterior(self, networks: Networks, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled = self.spec.scale(images, next(networks.parameters()))
        return networks.encoder(scaled).chunk(2, dim=1)

    def nats(self, networks: Networks, images: torch.Tensor) -> torch.Tensor:
        z, kl = genkern.gaussian_kl_rsample(*self.posterior(networks, images))
        return kl + self.likelihood(networks.decoder(z), images)

    def plain_nats(self, networks: Networks, images: torch.Tensor) -> torch.Tensor:
        mu, logvar = self.posterior(networks, images)
        if mu.dtype == torch.float64:  # where losses are compared: of the noise of genkern
            zeros = torch.zeros_like(mu)
            eps = genkern.gaussian_rsample(zeros, zeros)
        else:
            eps = torch.randn_like(mu)
        z = mu + torch.exp(0.5 * logvar) * eps
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1)
        return kl + self.plain(networks.decoder(z), images)

    def built(self) -> dict[str, tuple[nn.Module, Callable]]:
        """Each implementation's networks and its bound."""
        ours, other = self.networks(self.spec), self.networks(self.spec)
        other.load_state_dict(ours.state_dict())
        return {
            "genkern": (ours, lambda images: self.nats(ours, images)),
            "eager": (other, lambda images: self.plain_nats(other, images)),
        }

    def case(self) -> Case:
        """The products of the networks alone are counted."""
        networks = self.networks(self.spec)
        with FlopCounterMode(display=False) as counter:
            mu, _ = self.posterior(networks, self.images())
            networks.decoder(mu)
        forward = float(counter.get_total_flops())
        targets = {} if self.target is None else {PHASE: Target(self.target)}
        return self.record(networks, (forward, 2 * forward), targets)


def photographs(
    name: str, hidden: int = 32, latent: int = 64, components: int = 10, batch: int = 16,
    side: int = 32,
) -> Step:  # fmt: skip
    return Step(
        name=name,
        batch=batch,
        spec=DataSpec((3, side, side), 256),
        networks=lambda spec: convolutions(spec, hidden, latent, components),
        likelihood=mixture,
        plain=eager_nll,
        target=1.3,
    )


def binary(
    name: str, hidden: int = 400, latent: int = 20, batch: int = 128, side: int = 28
) -> Step:
    return Step(
        name=name,
        batch=batch,
        spec=DataSpec((1, side, side), 2),
        networks=lambda spec: perceptrons(spec, hidden, latent),
        likelihood=bernoulli,
        plain=plain_bernoulli,
    )


def steps() -> Sequence[Step]:
    return (
        photographs("vae, mixture of 10 logistics N16 3x32x32"),
        binary("vae, plain N128 784-400-20"),
    )
