"""Models that see an image as the sequence of its places."""

from abc import abstractmethod

import torch

from examples.autoregressive.raster import RasterModel
from examples.model import DataSpec

MOST_WEIGHTS = 2**28


class SequenceModel(RasterModel):
    """A raster-order model whose network takes all D = H * W * C places in a row."""

    @abstractmethod
    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        """Values (N, D) in [-1, 1] in raster order to logits (N, D, levels)."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        C, H, W = self.spec.shape
        outputs = self.outputs(images.permute(0, 2, 3, 1).flatten(1))
        outputs = outputs.view(-1, H, W, C, self.spec.levels)
        return outputs.permute(0, 3, 4, 1, 2).reshape(-1, C * self.spec.levels, H, W)


def check_size(name: str, spec: DataSpec, width: int) -> None:
    """Refuses images for which a matrix from ``width`` units to all logits is too large.

    Raises:
        ValueError: says how large it would be.
    """
    weights = width * spec.dims * spec.levels
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"the output layer must have at most {MOST_WEIGHTS:,} weights; got {width:,} units x "
            f"{spec.dims:,} places x {spec.levels} levels = {weights:,} (it is for small images)"
        )
