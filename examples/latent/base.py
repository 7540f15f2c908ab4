"""What the models with a latent variable share: a decoder of levels, and bounds of log p(x)."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import nn

import genkern
from examples.latent.posteriors import StandardNormal
from examples.model import Batch, DataSpec, GenerativeModel

Prior = Any  # a module with sample(shape, generator) and log_prob(z)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class LatentModel(GenerativeModel):
    r"""An encoder q(z|x), a prior p(z), and a decoder p(x|z) of independent levels.

    `encode`, `log_joint` and `prior` are what `genkern.metrics.log_likelihood` asks for.

    .. math:: p(x_i \mid z) = \sigma\left(\frac{x_i + d - m_i(z)}{s_i(z)}\right)
                            - \sigma\left(\frac{x_i - d - m_i(z)}{s_i(z)}\right)

    The decoder is a logistic distribution of mean m and scale s, cut into the levels (d is half
    the distance of two); the outer levels take the tails. It sums to 1 over the levels, so that
    -L bounds the bits per dimension; with two levels it is the paper's Bernoulli (app. C.1).

    Args:
        spec: items of integer levels.
        latent: dimensions of z.
    """

    decoder: nn.Sequential

    def __init__(self, spec: DataSpec, latent: int) -> None:
        super().__init__(spec)
        self.num_latent = latent
        self.normal = StandardNormal(latent)

    @abstractmethod
    def encode(self, items: torch.Tensor) -> Any:
        """Items (N, ...) to q(z|x), with ``rsample_and_log_prob``."""

    def prior(self) -> Prior:
        return self.normal

    def log_joint(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(x|z) + log p(z), nats: z (S, N, latent) to (S, N)."""
        return self.prior().log_prob(z) - self.reconstruction_nll(items, z)

    def prepare(self, items: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """What `encode` and `log_joint` take for items; a density takes noise in the levels."""
        del generator
        return items

    def reconstruction_nll(self, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(x|z), nats per item: z (N, latent) to (N,), or (K, N, latent) to (K, N)."""
        return self.levels_nll(items, self.decode(z))

    def levels_nll(
        self, items: torch.Tensor, decoded: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The same, of what `decode` has returned."""
        mean, log_scale = decoded
        return genkern.discretized_logistic_nll(
            mean, log_scale, items.flatten(1), levels=self.spec.levels
        )

    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-scale (..., dims), data in [-1, 1]; scales from e^-7 to e^7."""
        mean, log_scale = self.decoder(z).chunk(2, dim=-1)
        if mean.dtype in (torch.bfloat16, torch.float16):
            mean, log_scale = mean.float(), log_scale.float()
        return mean, log_scale.clamp(-7.0, 7.0)

    def scaled(self, items: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        """Items (N, ...) as ``layer`` takes them, (N, dims) in [-1, 1]."""
        return self.spec.scale(items, layer.weight).flatten(1)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        """-ELBO, with log q(z|x) - log p(z) of the sample as its KL."""
        items = self.prepare(batch.items, generator)
        z, log_q = self.encode(items).rsample_and_log_prob(torch.Size([1]), generator)
        reconstruction = self.reconstruction_nll(items, z).mean()
        kl = (log_q - self.prior().log_prob(z)).mean()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def log_weights(
        self,
        items: torch.Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        *,
        detached: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z (K, N, latent) and log p(x, z) - log q(z|x) (K, N), nats; with ``detached``, no
        gradient flows from log q into the encoder but through z."""
        posterior = self.encode(items)
        z, log_q = posterior.rsample_and_log_prob(torch.Size([num_samples]), generator)
        if detached:
            log_q = posterior.detached().log_prob(z)
        return z, self.log_joint(items, z) - log_q

    def iwae_nll(
        self, items: torch.Tensor, num_samples: int, generator: torch.Generator | None = None,
        *, dreg: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        r"""A tighter bound of -log p(x) (N,), nats: -log 1/K sum_k p(x, z_k) / q(z_k | x).

        With ``dreg`` the encoder's gradient is that of the doubly reparameterised estimator,

        .. math:: \sum_k \tilde w_k^2 \, \frac{\partial \log w_k}{\partial z_k}
                  \frac{\partial z_k}{\partial \phi}, \quad
                  \tilde w = \operatorname{softmax}(\log w)

        of the same expectation, whose noise does not drown it as K grows.

        Sources: Burda et al. 2016, "Importance weighted autoencoders", eq. 8; Tucker et al. 2019,
        "Doubly reparameterized gradient estimators for Monte Carlo objectives", eq. 8.
        """
        z, log_weight = self.log_weights(items, num_samples, generator, detached=dreg)
        if dreg and z.requires_grad:
            # The bound gives each log w_k its share, and the path through z has it once more.
            share = log_weight.detach().softmax(0).to(z.dtype)
            z.register_hook(lambda gradient: share[..., None] * gradient)
        return math.log(num_samples) - log_weight.logsumexp(0)

    @torch.no_grad()
    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float = 1.0
    ) -> torch.Tensor:
        """Decoder means, rounded, of z drawn from the prior and multiplied by ``temperature``."""
        z = self.prior().sample(torch.Size([num_samples]), generator)
        mean, _ = self.decode(temperature * z)
        return self.spec.unscale(mean).view(num_samples, *self.spec.shape)
