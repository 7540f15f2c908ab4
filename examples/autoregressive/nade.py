"""NADE. Source: Larochelle and Murray 2011, "The neural autoregressive distribution estimator",
sec. 3; Uria et al. 2016, "Neural autoregressive distribution estimation", sec. 2 and 4."""

from collections.abc import Iterator

import torch
from torch import nn

from examples.autoregressive.raster import Place
from examples.autoregressive.sequence import SequenceModel, check_size
from examples.model import DataSpec


class NADE(SequenceModel):
    r"""One hidden layer for each place, all with the same weights.

    .. math:: h_d = \sigma\left(c + \sum_{j < d} w_j x_j\right), \quad
              p(x_d \mid x_{<d}) = \mathrm{softmax}(b_d + V_d h_d)

    The sum grows by one product a place, so that a sample costs O(hidden) a place. A softmax over
    the levels, and no density such as RNADE's: the levels are integers, and at 0 and at the last
    one they have peaks that are no logistic's or normal's; with two levels it is the paper's
    Bernoulli. Inputs are scaled to [0, 1], so that a dark background adds nothing.

    Args:
        spec: small images of integer levels.
        hidden: units of the hidden layer (the paper: 500).
    """

    own_steps = True

    def __init__(self, spec: DataSpec, *, hidden: int = 256) -> None:
        super().__init__(spec)
        check_size("nade", spec, hidden)
        self.weight = nn.Parameter(torch.randn(spec.dims, hidden) * spec.dims**-0.5)
        self.state = nn.Parameter(torch.zeros(hidden))
        self.head = nn.Parameter(torch.randn(spec.dims, hidden, spec.levels) * 0.1 * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(spec.dims, spec.levels))

    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        added = 0.5 * (values[:, :-1, None] + 1.0) * self.weight[:-1]
        sums = torch.cat([torch.zeros_like(values[:, :1, None] * self.state), added], 1).cumsum(1)
        hidden = torch.sigmoid(self.state + sums)  # (N, D, hidden)
        return torch.bmm(hidden.transpose(0, 1), self.head).transpose(0, 1) + self.bias

    def steps(
        self, images: torch.Tensor, given: torch.Tensor | None = None
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        sums = self.state.expand(len(images), -1)
        for d, (row, col, colour) in enumerate(self.places()):
            yield (row, col, colour), torch.sigmoid(sums) @ self.head[d] + self.bias[d]
            value = self.spec.scale(images[:, colour, row, col], sums)
            sums = sums + 0.5 * (value[:, None] + 1.0) * self.weight[d]
