"""A VAE of two levels of latent variables."""

import torch
import torch.nn.functional as F

import genkern
from examples.latent.base import LatentModel, mlp
from examples.latent.posteriors import Diagonal, Draw, StandardNormal
from examples.model import Batch, DataSpec

Pair = tuple[torch.Tensor, torch.Tensor]
#: Of the logvar of p(z_1 | z_2). Without it z_1 becomes a function of z_2 (standard deviations of
#: 1e-7), and only the few dimensions of z_2 speak: -94.4 nats of the digits in the place of -90.4.
LEAST = -2.0


def relative(below: Pair, above: Pair) -> Pair:
    """The product of two Gaussians, whose precisions add, in units of the one from above: mean and
    logvar of u, where mu_above + e^{logvar_above / 2} u is distributed as the product.

    With the share w of the precision from below, without a difference of what is nearly equal.
    """
    (mu, logvar), (mu_above, logvar_above) = below, above
    share = torch.sigmoid(logvar_above - logvar)
    mean = share * torch.exp(-0.5 * logvar_above) * (mu - mu_above)
    return mean, -F.softplus(logvar_above - logvar)


class Ladder:
    """q(z_2 | x) q(u | x, z_2) of z = [u, z_2]: the second meets what the prior says of z_1."""

    def __init__(self, model: "LadderVAE", below: Pair, above: Pair) -> None:
        self.model, self.below, self.above = model, below, above

    def rsample_and_log_prob(
        self, shape: torch.Size, generator: torch.Generator | None = None
    ) -> Draw:
        above, log_above = Diagonal(*self.above).rsample_and_log_prob(shape, generator)
        mu, logvar = relative(self.below, self.model.from_above(above))
        lower = Diagonal(mu.flatten(0, 1), logvar.flatten(0, 1))
        (u,), (log_u,) = lower.rsample_and_log_prob(torch.Size([1]), generator)
        return torch.cat([u.view_as(mu), above], -1), log_above + log_u.view_as(log_above)


class LadderVAE(LatentModel):
    r"""Two levels: the prior of z_1 is a Gaussian that z_2 gives, and the encoder adds to it.

    .. math:: -L = E[-\log p(x \mid z_1)] + KL(q(z_2 \mid x) \| N(0, I))
              + E\,KL(q(z_1 \mid x, z_2) \| p(z_1 \mid z_2))

    q(z_1 | x, z_2) is the product of p(z_1 | z_2) and a Gaussian of x, so that both levels use one
    network from above. z_1 is written mu(z_2) + sigma(z_2) u: the prior of z = [u, z_2] is N(0, I),
    and the KL of z_1 is that of u.

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers.
        latent: dimensions of z_1.
        top: dimensions of z_2.

    Source: Sonderby et al. 2016, "Ladder variational autoencoders", sec. 2.1.
    """

    def __init__(self, spec: DataSpec, *, hidden: int = 256, latent: int = 8, top: int = 4) -> None:
        super().__init__(spec, latent)
        self.normal = StandardNormal(latent + top)
        self.encoder = mlp(spec.dims, hidden, 2 * (latent + top))
        self.middle = mlp(top, hidden, 2 * latent)
        self.decoder = mlp(latent, hidden, 2 * spec.dims)

    def levels(self, z: torch.Tensor) -> Pair:
        return z[..., : self.num_latent], z[..., self.num_latent :]

    def from_above(self, above: torch.Tensor) -> Pair:
        """Mean and logvar of p(z_1 | z_2)."""
        mu, logvar = self.middle(above).chunk(2, dim=-1)
        return mu, logvar.clamp(min=LEAST)

    def encode(self, items: torch.Tensor) -> Ladder:
        told = self.encoder(self.scaled(items, self.encoder[0]))
        (mu, mu_above), (logvar, logvar_above) = map(self.levels, told.chunk(2, dim=1))
        return Ladder(self, (mu, logvar), (mu_above, logvar_above))

    def decode(self, z: torch.Tensor) -> Pair:
        u, above = self.levels(z)
        return self.decode_lower(u, self.from_above(above))

    def decode_lower(self, u: torch.Tensor, prior: Pair) -> Pair:
        mu, logvar = prior
        return super().decode(mu + torch.exp(0.5 * logvar) * u)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        posterior = self.encode(batch.items)
        above, kl_above = genkern.gaussian_kl_rsample(*posterior.above, generator=generator)
        prior = self.from_above(above)
        u, kl = genkern.gaussian_kl_rsample(*relative(posterior.below, prior), generator=generator)
        reconstruction = self.levels_nll(batch.items, self.decode_lower(u, prior)).mean()
        kl, kl_above = kl.mean(), kl_above.mean()
        loss = reconstruction + kl + kl_above
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "kl_top": kl_above}
