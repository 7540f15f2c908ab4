"""Models whose log p(x) is known: linear and Gaussian, or by quadrature over one dimension."""

import math

import torch
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal


def normal(mean: torch.Tensor, std: torch.Tensor) -> Independent:
    return Independent(Normal(mean, std), 1)


class Linear:
    """x = W z + b + noise, z from N(0, I); q(z | x) has the means of the posterior, and its
    standard deviations, without the correlations, times ``width``."""

    def __init__(self, dims: int = 4, latent: int = 2, width: float = 1.0, dead: int = 0) -> None:
        generator = torch.Generator().manual_seed(1)
        draws = torch.randn(dims, latent + 1, generator=generator, dtype=torch.float64)
        self.weight, self.bias = draws[:, :latent].clone(), draws[:, latent]
        self.weight[:, latent - dead :] = 0.0
        self.variance, self.width = 0.3, width
        identity = torch.eye(latent, dtype=torch.float64)
        self.precision = identity + self.weight.T @ self.weight / self.variance
        self.covariance = self.precision.inverse()

    def means(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.bias) @ self.weight @ self.covariance.T / self.variance

    def encode(self, x: torch.Tensor) -> Independent:
        std = self.width * self.covariance.diagonal().sqrt()
        return normal(self.means(x), std.expand(len(x), -1))

    def prior(self) -> Independent:
        zeros = torch.zeros(self.weight.shape[1], dtype=torch.float64)
        return normal(zeros, torch.ones_like(zeros))

    def log_joint(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        likelihood = normal(z @ self.weight.T + self.bias, torch.tensor(self.variance).sqrt())
        return likelihood.log_prob(x) + self.prior().log_prob(z)

    def marginal(self) -> MultivariateNormal:
        identity = torch.eye(len(self.bias), dtype=torch.float64)
        covariance = self.weight @ self.weight.T + self.variance * identity
        return MultivariateNormal(self.bias, covariance)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        return self.marginal().log_prob(x)

    def gap(self, x: torch.Tensor) -> torch.Tensor:
        """KL of q to the posterior (N,), in closed form."""
        posterior = MultivariateNormal(self.means(x), self.covariance)
        std = self.encode(x).base_dist.scale
        q = MultivariateNormal(self.means(x), torch.diag_embed(std.square()))
        return torch.distributions.kl_divergence(q, posterior)

    def items(self, count: int) -> torch.Tensor:
        torch.manual_seed(3)
        return self.marginal().sample(torch.Size([count]))


class Folded:
    """Four bits whose logits depend on z^2: the posterior has two modes, z and -z.

    q(z | x) covers both, or, where it is ``one_sided``, a part of one.
    """

    logits = torch.tensor([[2.0, -1.0], [-1.5, 1.0], [1.0, -2.0], [-2.5, 2.0]]).double()
    bits = torch.tensor([[i >> k & 1 for k in range(4)] for i in range(16)]).double()

    def __init__(self, one_sided: bool = False) -> None:
        self.mean, self.std = (2.0, 0.3) if one_sided else (0.0, 1.3)

    def encode(self, x: torch.Tensor) -> Independent:
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        return normal(self.mean * ones, self.std * ones)

    def prior(self) -> Independent:
        return normal(torch.zeros(1).double(), torch.ones(1).double())

    def log_joint(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        logits = self.logits[:, 0] + self.logits[:, 1] * z.square()
        return Independent(Bernoulli(logits=logits), 1).log_prob(x) + self.prior().log_prob(z)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None, None]
        joint = self.log_joint(x, z.expand(-1, len(x), 1))
        return joint.logsumexp(0) + math.log(20 / 4000)
