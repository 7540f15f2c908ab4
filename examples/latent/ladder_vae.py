"""A VAE of two levels of latent variables."""

import torch

import genkern
from examples.latent.base import LatentModel, mlp
from examples.latent.posteriors import Diagonal, Draw, StandardNormal, log_normal
from examples.model import Batch, DataSpec

Pair = tuple[torch.Tensor, torch.Tensor]


def combined(below: Pair, above: Pair) -> Pair:
    """Mean and logvar of the product of two Gaussians: their precisions add.

    With the share w of the precision from below, without a ratio of small numbers.
    """
    (mu, logvar), (mu_above, logvar_above) = below, above
    share = torch.sigmoid(logvar_above - logvar)
    return torch.lerp(mu_above, mu, share), -torch.logaddexp(-logvar, -logvar_above)


class TwoLevels:
    """p(z) = p(z_2) p(z_1 | z_2) of z = [z_1, z_2]."""

    def __init__(self, model: "LadderVAE") -> None:
        self.model = model

    def sample(self, shape: torch.Size, generator: torch.Generator | None = None) -> torch.Tensor:
        above = self.model.normal.sample(shape, generator)
        mu, logvar = self.model.from_above(above.flatten(0, -2))
        z, _ = Diagonal(mu, logvar).rsample_and_log_prob(torch.Size([1]), generator)
        return torch.cat([z[0].view(*shape, -1), above], -1)

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        z, above = self.model.levels(z)
        mu, logvar = self.model.from_above(above)
        flat = log_normal(z.flatten(0, -2), mu.flatten(0, -2), logvar.flatten(0, -2))
        return flat.view(z.shape[:-1]) + self.model.normal.log_prob(above)


class Ladder:
    """q(z_2 | x) q(z_1 | x, z_2): the second meets what the prior says of z_1."""

    def __init__(self, model: "LadderVAE", below: Pair, above: Pair) -> None:
        self.model, self.below, self.above = model, below, above

    def rsample_and_log_prob(
        self, shape: torch.Size, generator: torch.Generator | None = None
    ) -> Draw:
        above, log_above = Diagonal(*self.above).rsample_and_log_prob(shape, generator)
        mu, logvar = combined(self.below, self.model.from_above(above))
        lower = Diagonal(mu.flatten(0, 1), logvar.flatten(0, 1))
        (z,), (log_z,) = lower.rsample_and_log_prob(torch.Size([1]), generator)
        return torch.cat([z.view_as(mu), above], -1), log_above + log_z.view_as(log_above)


class LadderVAE(LatentModel):
    r"""Two levels: the prior of z_1 is a Gaussian that z_2 gives, and the encoder adds to it.

    .. math:: -L = E[-\log p(x \mid z_1)] + KL(q(z_2 \mid x) \| N(0, I))
              + E\,KL(q(z_1 \mid x, z_2) \| p(z_1 \mid z_2))

    q(z_1 | x, z_2) is the product of p(z_1 | z_2) and a Gaussian of x, so that both levels use one
    network from above.

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers.
        latent: dimensions of z_1.
        top: dimensions of z_2.

    Source: Sonderby et al. 2016, "Ladder variational autoencoders", sec. 2.1.
    """

    def __init__(self, spec: DataSpec, *, hidden: int = 256, latent: int = 8, top: int = 4) -> None:
        super().__init__(spec, latent)
        self.normal = StandardNormal(top)
        self.encoder = mlp(spec.dims, hidden, 2 * (latent + top))
        self.middle = mlp(top, hidden, 2 * latent)
        self.decoder = mlp(latent, hidden, 2 * spec.dims)

    def levels(self, z: torch.Tensor) -> Pair:
        return z[..., : self.num_latent], z[..., self.num_latent :]

    def from_above(self, above: torch.Tensor) -> Pair:
        """Mean and logvar of p(z_1 | z_2)."""
        mu, logvar = self.middle(above).chunk(2, dim=-1)
        return mu, logvar

    def encode(self, items: torch.Tensor) -> Ladder:
        told = self.encoder(self.scaled(items, self.encoder[0]))
        (mu, mu_above), (logvar, logvar_above) = map(self.levels, told.chunk(2, dim=1))
        return Ladder(self, (mu, logvar), (mu_above, logvar_above))

    def prior(self) -> TwoLevels:
        return TwoLevels(self)

    def decode(self, z: torch.Tensor) -> Pair:
        return super().decode(z[..., : self.num_latent])

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        posterior = self.encode(batch.items)
        above, kl_above = genkern.gaussian_kl_rsample(*posterior.above, generator=generator)
        prior = self.from_above(above)
        mu, logvar = combined(posterior.below, prior)
        z, kl = genkern.gaussian_kl_rsample(mu, logvar, prior=prior, generator=generator)
        reconstruction = self.reconstruction_nll(batch.items, z).mean()
        kl, kl_above = kl.mean(), kl_above.mean()
        loss = reconstruction + kl + kl_above
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "kl_top": kl_above}
