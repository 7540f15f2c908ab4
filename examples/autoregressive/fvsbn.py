"""Logistic fully visible belief network. Source: Frey et al. 1996, "Does the wake-sleep algorithm
produce good density estimators?", sec. 5; Neal 1992, "Connectionist learning of belief networks".
"""

import torch
from torch import nn

from examples.autoregressive.sequence import SequenceModel, check_size
from examples.model import DataSpec
from genkern import masked_linear


class FVSBN(SequenceModel):
    r"""Every place by a logistic regression on all earlier places; with levels, a multinomial one.

    .. math:: p(x_d \mid x_{<d}) = \mathrm{softmax}\left(b_d + \sum_{j < d} w_{dj} x_j\right)

    Args:
        spec: small images of integer levels.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        check_size("fvsbn", spec, spec.dims)
        self.weight = nn.Parameter(torch.zeros(spec.dims * spec.levels, spec.dims))
        self.bias = nn.Parameter(torch.zeros(spec.dims * spec.levels))
        degrees = torch.arange(spec.dims)
        self.register_buffer("in_degrees", degrees, persistent=False)
        self.register_buffer(
            "out_degrees", degrees.repeat_interleave(spec.levels), persistent=False
        )

    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        degrees = {"in_degrees": self.in_degrees, "out_degrees": self.out_degrees}
        logits = masked_linear(values, self.weight, self.bias, **degrees, strict=True)
        return logits.view(-1, self.spec.dims, self.spec.levels)
