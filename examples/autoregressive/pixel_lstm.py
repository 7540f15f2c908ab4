"""An LSTM over the pixels. Source: Hochreiter and Schmidhuber 1997, "Long short-term memory";
as a model of images, Theis and Bethge 2015, "Generative image modeling using spatial LSTMs"."""

from collections.abc import Iterator

import torch
from torch import nn

from examples.autoregressive.raster import Place
from examples.autoregressive.sequence import SequenceModel
from examples.model import DataSpec


class PixelLSTM(SequenceModel):
    """nn.LSTM along the sequence of places, softmax over the levels.

    A step sees the value before it, and a learned vector that says where it is: a sequence alone
    would have to count to find the pixel above.

    Args:
        spec: images of integer levels.
        hidden: units of a layer.
        layers: of the LSTM.
        position: numbers in the vector of a place.
    """

    own_steps = True

    def __init__(
        self, spec: DataSpec, *, hidden: int = 128, layers: int = 1, position: int = 32
    ) -> None:
        super().__init__(spec)
        self.position = nn.Parameter(torch.randn(spec.dims, position) * position**-0.5)
        self.lstm = nn.LSTM(1 + position, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, spec.levels)

    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
        position = self.position.expand(len(values), -1, -1)
        hidden, _ = self.lstm(torch.cat([before[:, :, None], position], dim=2))
        return self.head(hidden)

    def steps(
        self, images: torch.Tensor, given: torch.Tensor | None = None
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        state, value = None, self.position.new_zeros(len(images))
        for d, (row, col, colour) in enumerate(self.places()):
            position = self.position[d].expand(len(images), -1)
            now = torch.cat([value[:, None], position], dim=1)
            hidden, state = self.lstm(now[:, None], state)
            yield (row, col, colour), self.head(hidden[:, 0])
            value = self.spec.scale(images[:, colour, row, col], value)
