"""Multi-scale PixelRNN. Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec.
2.3 and 3.6."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

import genkern
from examples.autoregressive.pixel_rnn import PixelRNN
from examples.autoregressive.raster import Place, RasterModel
from examples.model import DataSpec
from genkern import sampling
from genkern.nn import MaskedConv2d


class ConditionalRowLSTM(nn.Module):
    """Residual Row LSTM layer; a 1 x 1 map of the condition adds to the input-to-state map.

    Args:
        features: channels of the input and the output.
        hidden: channels of the state.
        condition: channels of the condition, every pixel of which every pixel may see.
        colours: of the data.
    """

    def __init__(self, features: int, hidden: int, condition: int, colours: int) -> None:
        super().__init__()
        self.input_to_state = MaskedConv2d(
            features, 4 * hidden, (1, 3), data_channels=colours, parts=4
        )
        self.condition_to_state = nn.Conv2d(condition, 4 * hidden, 1, bias=False)
        bound = (3 * hidden) ** -0.5
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden, 3).uniform_(-bound, bound))
        self.start = nn.Parameter(torch.zeros(2, hidden, 1))
        self.output = MaskedConv2d(hidden, features, 1, data_channels=colours)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        gates = self.input_to_state(x) + self.condition_to_state(condition)
        h0, c0 = (state.expand(len(x), -1, x.shape[3]).to(gates.dtype) for state in self.start)
        h, _ = genkern.row_lstm(gates, self.weight_hh, h0, c0)
        return x + self.output(h)


class MultiScalePixelRNN(RasterModel):
    r"""A PixelRNN of every s-th pixel, and one of the others given those.

    .. math:: p(x) = \prod_{i \in S} p(x_i \mid x_{j \in S, j < i})
              \prod_{i \notin S} p(x_i \mid x_{j < i}, x_S)

    S are the pixels of every s-th row and column. Each pixel has one factor, and the likelihood is
    exact: what the second network says of the pixels of S, which are given, does not count. The
    order of the factors is S first, so that of a given upper half only the pixels of S guide the
    pixels of S below it: completions by it are no draws from p(rest | given).

    Args:
        spec: images of integer levels.
        scale: s.
        hidden: h of both PixelRNNs; the residual stream has 2h.
        layers: Row LSTM layers of each.
        condition: channels of what is made of x_S for the second network.
    """

    own_steps = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        scale: int = 2,
        hidden: int = 32,
        layers: int = 3,
        condition: int = 32,
    ) -> None:
        super().__init__(spec)
        C, H, W = spec.shape
        self.scale = scale
        smaller = (C, -(-H // scale), -(-W // scale))
        options = {"hidden": hidden, "layers": layers}
        self.small = PixelRNN(DataSpec(smaller, spec.levels, spec.classes), **options)
        self.upsample = nn.Sequential(
            nn.Conv2d(C, condition, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(condition, condition, scale, stride=scale),
            nn.ReLU(),
        )
        self.first = MaskedConv2d(C, 2 * hidden, 7, mask_type="A", data_channels=C)
        self.layers = nn.ModuleList(
            ConditionalRowLSTM(2 * hidden, hidden, condition, C) for _ in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(2 * hidden, 2 * hidden, 1, data_channels=C),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, spec.levels * C, 1, data_channels=C),
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        given = images[:, :, :: self.scale, :: self.scale]
        found = self.others(images, self.condition_of(given))
        return torch.where(self.is_given(found), self.spread(self.small.features(given)), found)

    def condition_of(self, given: torch.Tensor) -> torch.Tensor:
        _, H, W = self.spec.shape
        return self.upsample(given)[:, :, :H, :W]

    def others(self, images: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The second network, on an image or on its first rows."""
        x = self.first(images)
        for layer in self.layers:
            x = layer(x, condition)
        return self.head(x)

    def steps(
        self, images: torch.Tensor, given: torch.Tensor | None = None
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        """First all of S, by the first network; then the condition stays what it is."""
        C, s = images.shape[1], self.scale
        part = images[:, :, ::s, ::s]
        for (row, col, colour), logits in self.small.steps(part):
            yield (row * s, col * s, colour), logits
        like = next(self.parameters())
        condition = self.condition_of(self.spec.scale(part, like))
        for row, col, colour in self.places()[part[0].numel() :]:
            rows = slice(0, row + 1)
            found = self.others(self.spec.scale(images[:, :, rows], like), condition[:, :, rows])
            yield (row, col, colour), found.unflatten(1, (C, -1))[:, colour, :, row, col]

    def draw_images(
        self,
        images: torch.Tensor,
        generator: torch.Generator,
        temperature: float,
        given: torch.Tensor | None,
    ) -> None:
        """S by the first network, then the others by the second, to which S is given."""
        options = {
            "output": self.distribution,
            "temperature": temperature,
            "generator": generator,
        }
        s, shape = self.scale, self.small.spec.shape
        part = sampling.sample(self.small.features, len(images), shape=shape, **options)
        partial = torch.full(images.shape, -1, dtype=torch.int64, device=images.device)
        partial[:, :, ::s, ::s] = part
        images[:] = sampling.sample(
            self.others,
            len(images),
            shape=self.spec.shape,
            condition=self.condition_of(self.spec.scale(part, next(self.parameters()))),
            partial=partial,
            **options,
        )

    def spread(self, small: torch.Tensor) -> torch.Tensor:
        """Each pixel of the subsampled image in place of the s x s ones that it stands for."""
        _, H, W = self.spec.shape
        return F.interpolate(small, scale_factor=self.scale, mode="nearest")[:, :, :H, :W]

    def is_given(self, like: torch.Tensor) -> torch.Tensor:
        """Which pixels are of S, bool (H, W)."""
        every = torch.zeros(like.shape[2:], dtype=torch.bool, device=like.device)
        every[:: self.scale, :: self.scale] = True
        return every

    def places(self) -> list[Place]:
        raster = super().places()
        return sorted(raster, key=lambda at: bool(at[0] % self.scale or at[1] % self.scale))
