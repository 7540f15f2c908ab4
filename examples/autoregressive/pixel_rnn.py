"""PixelRNN of Row LSTM layers. Source: van den Oord et al. 2016, "Pixel recurrent neural
networks", sec. 3.1."""

import torch
from torch import nn

from examples.autoregressive.raster import RasterModel
from examples.model import DataSpec
from genkern.nn import MaskedConv2d, RowLSTM


class PixelRNN(RasterModel):
    """7x7 mask A, residual Row LSTM layers, two ReLU + 1x1, softmax over the levels (table 1).

    Args:
        spec: images of integer levels, one channel.
        hidden: h, channels of the state; the residual stream has 2h (the paper: 128).
        layers: Row LSTM layers (the paper: 12 for CIFAR-10).
    """

    def __init__(self, spec: DataSpec, *, hidden: int = 32, layers: int = 3) -> None:
        super().__init__(spec)
        self.layers = nn.Sequential(
            MaskedConv2d(1, 2 * hidden, 7, mask_type="A"),
            *(RowLSTM(2 * hidden, hidden) for _ in range(layers)),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, 2 * hidden, 1),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, spec.levels, 1),
        )

    @staticmethod
    def unsupported(spec: DataSpec) -> str | None:
        if spec.is_image and spec.shape[0] != 1:
            return f"it needs images with one channel; got {spec.shape[0]}"
        return RasterModel.unsupported(spec)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)
