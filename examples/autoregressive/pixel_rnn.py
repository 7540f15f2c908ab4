"""PixelRNN of Row or Diagonal BiLSTM layers. Source: van den Oord et al. 2016, "Pixel recurrent
neural networks", sec. 3.1 and 3.2."""

from typing import ClassVar

import torch
from torch import nn

from examples.autoregressive.raster import RasterModel
from examples.model import DataSpec
from genkern.nn import DiagonalBiLSTM, MaskedConv2d, RowLSTM


class PixelRNN(RasterModel):
    """7x7 mask A, residual Row LSTM layers, two ReLU + 1x1, softmax over the levels (table 1).

    Args:
        spec: images of integer levels.
        hidden: h, channels of the state; the residual stream has 2h (the paper: 128).
        layers: Row LSTM layers (the paper: 12 for CIFAR-10).
    """

    layer: ClassVar[type[nn.Module]] = RowLSTM

    def __init__(self, spec: DataSpec, *, hidden: int = 32, layers: int = 3) -> None:
        super().__init__(spec)
        colours, self.rows_above = spec.shape[:2]  # all rows above
        self.layers = nn.Sequential(
            MaskedConv2d(colours, 2 * hidden, 7, mask_type="A", data_channels=colours),
            *(self.layer(2 * hidden, hidden, data_channels=colours) for _ in range(layers)),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, 2 * hidden, 1, data_channels=colours),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, spec.levels * colours, 1, data_channels=colours),
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class DiagonalPixelRNN(PixelRNN):
    """PixelRNN of Diagonal BiLSTM layers, whose state has seen the whole image before a pixel.

    Args:
        spec: images of integer levels.
        hidden: h, channels of the state of each direction; the residual stream has 2h.
        layers: Diagonal BiLSTM layers (the paper: 7 for MNIST, with h = 16; 12 for CIFAR-10).
    """

    layer = DiagonalBiLSTM

    def __init__(self, spec: DataSpec, *, hidden: int = 32, layers: int = 3) -> None:
        super().__init__(spec, hidden=hidden, layers=layers)
