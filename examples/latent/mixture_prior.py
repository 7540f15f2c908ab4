"""A VAE whose prior is learned: a mixture of Gaussians."""

import torch

from examples.latent.base import LatentModel, mlp
from examples.latent.posteriors import Diagonal, MixturePrior
from examples.model import DataSpec


class MixturePriorVAE(LatentModel):
    r"""Encoder N(mu, e^logvar), decoder of independent levels, and a prior of M Gaussians.

    .. math:: p(z) = \sum_m \pi_m N(z; \mu_m, e^{l_m})

    The best prior of an ELBO is the mean of q(z|x) over the data; a mixture comes nearer to it than
    N(0, I), and what the encoder says costs less. The KL is that of the sample.

    Args:
        spec: items of integer levels.
        hidden: width of the hidden layers of encoder and decoder.
        latent: dimensions of z.
        components: M.

    Source: Tomczak and Welling 2018, "VAE with a VampPrior", sec. 2 and its baseline of a mixture.
    """

    def __init__(
        self, spec: DataSpec, *, hidden: int = 256, latent: int = 8, components: int = 32
    ) -> None:
        super().__init__(spec, latent)
        self.encoder = mlp(spec.dims, hidden, 2 * latent)
        self.decoder = mlp(latent, hidden, 2 * spec.dims)
        self.mixture = MixturePrior(latent, components)

    def encode(self, items: torch.Tensor) -> Diagonal:
        return Diagonal(*self.encoder(self.scaled(items, self.encoder[0])).chunk(2, dim=1))

    def prior(self) -> MixturePrior:
        return self.mixture
