"""PixelCNN. Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.5."""

import torch
from torch import nn

from examples.autoregressive.raster import RasterModel
from examples.model import DataSpec
from genkern.nn import MaskedConv2d


class ResidualBlock(nn.Module):
    """x + W3 relu(W2 relu(W1 relu(x))), all mask B: 1x1 to h, 3x3, 1x1 back to 2h (fig. 5)."""

    def __init__(self, hidden: int, colours: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(2 * hidden, hidden, 1, data_channels=colours),
            nn.ReLU(),
            MaskedConv2d(hidden, hidden, 3, data_channels=colours),
            nn.ReLU(),
            MaskedConv2d(hidden, 2 * hidden, 1, data_channels=colours),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class PixelCNN(RasterModel):
    """7x7 mask A, residual blocks, two ReLU + 1x1, softmax over the levels (table 1).

    Args:
        spec: images of integer levels.
        hidden: h; the residual stream has 2h channels (the paper: 128 for CIFAR-10).
        blocks: residual blocks (the paper: 15).
    """

    def __init__(self, spec: DataSpec, *, hidden: int = 32, blocks: int = 4) -> None:
        super().__init__(spec)
        colours, self.rows_above = spec.shape[0], 7 // 2 + blocks
        self.layers = nn.Sequential(
            MaskedConv2d(colours, 2 * hidden, 7, mask_type="A", data_channels=colours),
            *(ResidualBlock(hidden, colours) for _ in range(blocks)),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, 2 * hidden, 1, data_channels=colours),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, spec.levels * colours, 1, data_channels=colours),
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)
