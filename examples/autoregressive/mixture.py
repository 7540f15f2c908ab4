"""The likelihood and the sampling of models with a mixture of discretized logistics."""

from abc import abstractmethod
from collections.abc import Iterator

import torch

import genkern
from examples.autoregressive.raster import Place, RasterModel
from examples.model import DataSpec
from genkern import sampling


class MixtureModel(RasterModel):
    r"""A raster-order model whose colours of a pixel are coupled by the mixture alone.

    .. math:: p(x) = \prod_i \sum_k \pi_k(x_{<i}) \prod_c p_k(x_{i,c} \mid x_{<i}, x_{i,<c})

    Source: Salimans et al. 2017, "PixelCNN++", sec. 2.1 and 2.2.

    Args:
        spec: images of 1 or 3 colours, of integer levels.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        colours = spec.shape[0]
        if colours not in (1, 3):
            raise ValueError(f"images must have 1 or 3 colours; got {colours}")
        #: Of a component.
        self.parameters_each = 3 if colours == 1 else 10

    @property
    @abstractmethod
    def components(self) -> int:
        """Of the mixture."""

    @property
    def distribution(self) -> sampling.Output:
        return sampling.LogisticMixture(self.spec.levels, self.components)

    @abstractmethod
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] to parameters (N, 3K or 10K, H, W): a pixel's, for all
        of its colours, see the pixels before it."""

    def at(self, images: torch.Tensor) -> torch.Tensor:
        """`features` of levels."""
        return self.features(self.spec.scale(images, next(self.parameters())))

    def nll(self, images: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        params = self.at(images)
        return genkern.discretized_logistic_mixture_nll(params, images, levels=self.spec.levels)

    def logits(self, images: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        return self.log_chances(self.at(images), images)

    def steps(
        self, images: torch.Tensor, given: torch.Tensor | None = None
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        for row, col, colour in self.places():
            pixel = (..., slice(row, row + 1), slice(col, col + 1))
            if colour == 0:
                params = self.params_of(images, row, col)
            yield (row, col, colour), self.log_chances(params, images[pixel])[:, :, colour, 0, 0]

    def params_of(self, images: torch.Tensor, row: int, col: int) -> torch.Tensor:
        """Parameters of a pixel (N, 3K or 10K, 1, 1)."""
        return self.at(images)[:, :, row : row + 1, col : col + 1]

    def log_chances(self, params: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Of every level of a place, given the colours before it, up to a constant of the place:
        (N, levels, C, H, W)."""
        C = images.shape[1]
        joint, *rest = params.unflatten(1, (self.parameters_each, -1)).unbind(1)
        each, x, found = len(rest) // C, self.spec.scale(images, params), []
        for c in range(C):
            mean, log_scale = rest[each * c : each * c + 2]
            for before in range(c):  # green has coefficient 0, blue has 1 and 2
                coefficient = rest[each * (before + max(0, c - 1)) + 2]
                mean = mean + torch.tanh(coefficient) * x[:, before : before + 1]
            chances = self.of_component(mean, log_scale)
            found.append((joint[:, None] + chances).logsumexp(2))
            level = images[:, None, c : c + 1].long().expand_as(chances[:, :1])
            joint = joint + chances.gather(1, level)[:, 0]
        return torch.stack(found, dim=2)

    def of_component(self, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        """log P of every level, of logistics (N, K, H, W): (N, levels, K, H, W)."""
        levels = self.spec.levels
        params = torch.stack([torch.zeros_like(mean), mean, log_scale], dim=-1)
        params = params[:, None].expand(-1, levels, -1, -1, -1, -1)
        every = torch.arange(levels, device=mean.device).view(-1, 1, 1, 1).expand(params.shape[:-1])
        rows, targets = params.reshape(-1, 3, 1, 1), every.reshape(-1, 1, 1, 1)
        nats = genkern.discretized_logistic_mixture_nll(rows, targets, levels=levels)
        return -nats.view(every.shape)
