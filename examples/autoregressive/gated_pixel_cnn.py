"""Gated PixelCNN, alone and given a class or a picture. Source: van den Oord et al. 2016,
"Conditional image generation with PixelCNN decoders", sec. 2, fig. 2."""

import functools
from collections.abc import Callable

import torch
from torch import nn

import genkern
from examples.autoregressive.raster import RasterModel
from examples.data.luminance import luminance
from examples.model import Batch, DataSpec
from genkern.nn import MaskedConv2d

#: Channels to a map from what is encoded to (N, channels), or to (N, channels, H, W).
Condition = Callable[[int], nn.Module]


#: Masked convolutions read what it gives: of a layer, the activations alone are kept.
gate = functools.partial(genkern.gated_activation, recompute=True)


class GatedLayer(nn.Module):
    """The two stacks: v, the rows above the pixel's, and h, its row too (fig. 2).

    v sees the rows above, of all colours, from the first layer on; what the paper does with a
    shift of v down at each layer is then a 1 x 1 convolution without one, and v has no blind spot.

    Args:
        into: channels of the images, in the first layer; 0: ``hidden``, with a residual.
        hidden: channels of each stack (p).
        kernel: odd width of the kernels, n; v has n // 2 rows above the pixel's.
        condition: makes the map that adds to the activations of both stacks (eq. 4); or None.
    """

    def __init__(
        self, into: int, hidden: int, kernel: int, colours: int, condition: Condition | None
    ) -> None:
        super().__init__()
        first, into = bool(into), into or hidden
        self.residual = not first
        rows, width = kernel // 2 + (not first), kernel if first else kernel // 2 + 1
        forms = ("rows_above", "A") if first else ("rows", "left")
        self.v = MaskedConv2d(into, 2 * hidden, (rows, kernel), mask_type=forms[0])
        # Two parts: colours split each half, so that a unit has one colour.
        self.h = MaskedConv2d(
            into, 2 * hidden, (1, width), mask_type=forms[1], data_channels=colours, parts=2
        )
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.out = MaskedConv2d(hidden, hidden, 1, data_channels=colours)
        self.condition = condition(4 * hidden) if condition else None

    def forward(
        self, v: torch.Tensor, h: torch.Tensor, encoded: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        of_v = of_h = None
        if self.condition is not None:
            of_v, of_h = self.condition(encoded).chunk(2, dim=1)
        rows = self.v(v)
        gated = self.out(gate(self.h(h) + self.link(rows), of_h))
        return gate(rows, of_v), h + gated if self.residual else gated


class GatedPixelCNN(RasterModel):
    """Two stacks of gated convolutions, ReLU + 1x1 twice, softmax over the levels.

    Args:
        spec: images of integer levels.
        hidden: channels of each stack (the paper: 384 for ImageNet).
        layers: gated layers (the paper: 20).
        kernel: odd width of the kernels (the paper: 5); the first layer has 7.
    """

    def __init__(
        self, spec: DataSpec, *, hidden: int = 32, layers: int = 5, kernel: int = 3
    ) -> None:
        super().__init__(spec)
        if kernel % 2 == 0 or kernel < 3:
            raise ValueError(f"kernel must be odd and at least 3; got {kernel}")
        C, condition = spec.shape[0], self.condition_map(hidden)
        self.layers = nn.ModuleList(
            GatedLayer(C if i == 0 else 0, hidden, 7 if i == 0 else kernel, C, condition)
            for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(hidden, 2 * hidden, 1, data_channels=C),
            nn.ReLU(),
            MaskedConv2d(2 * hidden, spec.levels * C, 1, data_channels=C),
        )

    def condition_map(self, hidden: int) -> Condition | None:
        """What makes the maps of the condition, one for each layer."""
        return None

    def features(self, images: torch.Tensor, encoded: torch.Tensor | None = None) -> torch.Tensor:
        return self.head[-1](self.trunk(images, encoded))

    def trunk(self, images: torch.Tensor, encoded: torch.Tensor | None = None) -> torch.Tensor:
        v = h = images
        for layer in self.layers:
            v, h = layer(v, h, encoded)
        return self.head[:-1](h)

    def split(self) -> tuple[Callable[..., torch.Tensor], MaskedConv2d]:
        return self.trunk, self.head[-1]


class ClassGatedPixelCNN(GatedPixelCNN):
    """Gated PixelCNN of p(x | y): a vector of the class in every activation (eq. 4).

    Args:
        spec: images of integer levels, with classes.
        hidden, layers, kernel: as of `GatedPixelCNN`.
    """

    condition = "class"

    def __init__(
        self, spec: DataSpec, *, hidden: int = 32, layers: int = 5, kernel: int = 3
    ) -> None:
        super().__init__(spec, hidden=hidden, layers=layers, kernel=kernel)

    def condition_map(self, hidden: int) -> Condition:
        classes = self.spec.classes
        return lambda channels: nn.Embedding(classes, channels)


class ColourGatedPixelCNN(GatedPixelCNN):
    r"""Gated PixelCNN of the colours of a picture, given its luminance at every pixel.

    .. math:: p(x \mid y) = \prod_i p(x_i \mid x_{<i}, s_i), \quad s = m(y)

    m is a network of unmasked convolutions, since all of y is given; each layer adds V s, a 1 x 1
    convolution, to its activations (sec. 2.3: a condition that depends on the location).

    Args:
        spec: images of integer levels.
        hidden, layers, kernel: as of `GatedPixelCNN`; s has ``hidden`` channels.
    """

    condition = "luminance"

    def __init__(
        self, spec: DataSpec, *, hidden: int = 32, layers: int = 5, kernel: int = 3
    ) -> None:
        super().__init__(spec, hidden=hidden, layers=layers, kernel=kernel)
        self.map = nn.Sequential(
            nn.Conv2d(1, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
        )

    def condition_map(self, hidden: int) -> Condition:
        return lambda channels: nn.Conv2d(hidden, channels, 1, bias=False)

    def given(self, batch: Batch) -> torch.Tensor:
        return luminance(batch.items)

    def encode(self, given: torch.Tensor | None) -> torch.Tensor:
        return self.map(self.spec.scale(given, next(self.parameters())))
