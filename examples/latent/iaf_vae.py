"""A VAE whose posterior is an inverse autoregressive flow."""

import torch
import torch.nn.functional as F
from torch import nn

from examples.latent.base import LatentModel, mlp
from examples.latent.posteriors import Diagonal, Draw
from examples.model import DataSpec
from genkern.nn import MaskedLinear, made_degrees

OPEN = 1.5  # the gate of a new step lets most of z pass (Kingma et al. 2016, sec. 4)


class Step(nn.Module):
    r"""One step: :math:`z' = \sigma(s) z + (1 - \sigma(s)) m`, with s and m of a MADE.

    s_i and m_i follow z_1 ... z_(i-1) and what the encoder says, so that the Jacobian is triangular
    and its log-determinant the sum of log sigma(s).

    Args:
        latent: dimensions of z.
        width: units of the hidden layer.
        context: numbers that the encoder adds.
        backward: the order of z is the other way round.
    """

    def __init__(self, latent: int, width: int, context: int, backward: bool) -> None:
        super().__init__()
        degrees, hidden = made_degrees(latent, [width])
        degrees = degrees.flip(0) if backward else degrees
        self.hidden = MaskedLinear(latent, width, in_degrees=degrees, out_degrees=hidden)
        self.context = nn.Linear(context, width, bias=False)
        self.output = MaskedLinear(
            width, 2 * latent, strict=True, in_degrees=hidden, out_degrees=degrees.repeat(2)
        )

    def parts(self, z: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """m and log sigma(s), (S, N, latent)."""
        hidden = torch.relu(self.hidden(z) + self.context(context))
        m, s = self.output(hidden).chunk(2, dim=-1)
        return m, F.logsigmoid(s + OPEN)

    def forward(self, z: torch.Tensor, context: torch.Tensor) -> Draw:
        """z' and its log-determinant (S, N)."""
        m, log_gate = self.parts(z, context)
        return torch.lerp(m, z, log_gate.exp()), log_gate.sum(-1)

    def inverse(self, z: torch.Tensor, context: torch.Tensor) -> Draw:
        """z of z', and the log-determinant of the step there: dimension after dimension."""
        found = torch.zeros_like(z)
        for _ in range(z.shape[-1]):  # each pass makes one more of them right, in their order
            m, log_gate = self.parts(found, context)
            found = (z - m) * torch.exp(-log_gate) + m
        return found, self.parts(found, context)[1].sum(-1)


class Flow:
    """q(z|x): a diagonal Gaussian, and steps that follow it."""

    def __init__(self, base: Diagonal, steps: nn.ModuleList, context: torch.Tensor) -> None:
        self.base, self.steps, self.context = base, steps, context

    def rsample_and_log_prob(
        self, shape: torch.Size, generator: torch.Generator | None = None
    ) -> Draw:
        z, log_q = self.base.rsample_and_log_prob(shape, generator)
        for step in self.steps:
            z, log_det = step(z, self.context)
            log_q = log_q - log_det
        return z, log_q

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        log_det = z.new_zeros(z.shape[:-1])
        for step in reversed(self.steps):
            z, each = step.inverse(z, self.context)
            log_det = log_det + each
        return self.base.log_prob(z) - log_det


class IAFVAE(LatentModel):
    r"""A VAE whose q(z|x) is a diagonal Gaussian, bent by steps of an autoregressive flow.

    .. math:: \log q(z_T \mid x) = \log N(z_0; \mu, e^l) - \sum_t \sum_i \log \sigma(s_{ti})

    Prior and decoder are those of `vae`.

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers of encoder and decoder.
        latent: dimensions of z.
        flows: steps; every second one goes through z the other way round.
        width: units of the hidden layer of a step.
        context: numbers that the encoder tells the steps.

    Source: Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
    sec. 3, alg. 1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int = 256,
        latent: int = 8,
        flows: int = 2,
        width: int = 32,
        context: int = 16,
    ) -> None:
        super().__init__(spec, latent)
        self.encoder = mlp(spec.dims, hidden, 2 * latent + context)
        self.steps = nn.ModuleList(
            Step(latent, width, context, bool(number % 2)) for number in range(flows)
        )
        self.decoder = mlp(latent, hidden, 2 * spec.dims)

    def encode(self, items: torch.Tensor) -> Flow:
        told = self.encoder(self.scaled(items, self.encoder[0]))
        mu, logvar = told[:, : 2 * self.num_latent].chunk(2, dim=1)
        return Flow(Diagonal(mu, logvar), self.steps, told[:, 2 * self.num_latent :])
