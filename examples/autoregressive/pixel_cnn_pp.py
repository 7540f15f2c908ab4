"""PixelCNN++. Source: Salimans et al. 2017, "PixelCNN++: improving the PixelCNN with discretized
logistic mixture likelihood and other modifications", sec. 2, and its published code."""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

import genkern
from examples.autoregressive.mixture import MixtureModel
from examples.model import Batch, DataSpec
from genkern.nn import MaskedConv2d

#: What is known of the rows above each pixel, and of its row left of it: (N, hidden, H, W) each.
Pair = tuple[torch.Tensor, torch.Tensor]


def shifted_down(x: torch.Tensor) -> torch.Tensor:
    """Each row in the place of the one below it; zeros come in on top."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shifted_right(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (1, 0))[..., :-1]


def above(into: int, out: int, rows: int = 2) -> nn.Module:
    """Convolution over rows up to the pixel's own."""
    return weight_norm(MaskedConv2d(into, out, (rows, 3), mask_type="rows"))


def left(into: int, out: int, columns: int = 2) -> nn.Module:
    """Convolution over rows up to the pixel's own and columns up to its own."""
    return weight_norm(MaskedConv2d(into, out, (2, columns), mask_type="left"))


class Streams(nn.Module):
    """A layer for what is seen of the rows above a pixel, and one for what is seen of its row."""

    def __init__(self, of_above: nn.Module, of_left: nn.Module) -> None:
        super().__init__()
        self.above, self.left = of_above, of_left

    def forward(self, above: torch.Tensor, left: torch.Tensor) -> Pair:
        return self.above(above), self.left(left)


def halved(hidden: int) -> Streams:
    """The same convolutions of every other pixel of every other row."""
    of_above = weight_norm(nn.Conv2d(hidden, hidden, (2, 3), stride=2))
    of_left = weight_norm(nn.Conv2d(hidden, hidden, 2, stride=2))
    return Streams(
        nn.Sequential(nn.ZeroPad2d((1, 1, 1, 0)), of_above),
        nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), of_left),
    )


def doubled(hidden: int) -> Streams:
    """Of the pixel that stands for a pixel; of its neighbour as well in the stream from above."""
    options = {"stride": 2, "padding": (0, 1), "output_padding": (0, 1)}
    of_above = nn.ConvTranspose2d(hidden, hidden, (2, 3), **options)
    of_left = nn.ConvTranspose2d(hidden, hidden, 2, stride=2)
    return Streams(weight_norm(of_above, dim=1), weight_norm(of_left, dim=1))


class GatedResnet(nn.Module):
    """x + a * sigmoid(b), [a, b] = conv(f(conv(f(x)) + 1x1(f(aside)))), f = concat_elu.

    Args:
        make: `above` or `left`.
        hidden: channels.
        aside: channels of what comes in from the other stream or over a skip; 0: nothing does.
        dropout: probability with which an element becomes 0.
    """

    def __init__(
        self, make: Callable[[int, int], nn.Module], hidden: int, aside: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = make(2 * hidden, hidden)
        self.aside = weight_norm(nn.Conv2d(2 * aside, hidden, 1)) if aside else None
        self.dropout = nn.Dropout(dropout)
        self.second = make(2 * hidden, 2 * hidden)

    def forward(self, x: torch.Tensor, *aside: torch.Tensor) -> torch.Tensor:
        # Twice as wide as x, and no longer kept for the gradient of the weight behind it.
        found = self.first(genkern.concat_elu(x, recompute=True))
        if self.aside is not None:
            found = found + self.aside(genkern.concat_elu(torch.cat(aside, dim=1)))
        # The gate has no tanh, so that it is no genkern.gated_activation.
        return x + F.glu(self.second(self.dropout(genkern.concat_elu(found))), dim=1)


class Block(Streams):
    """A residual block of each stream; the pixel's row sees the rows above it.

    Args:
        skips: channels of the skips, of each stream; 0 on the way down to the smaller sizes.
    """

    def __init__(self, hidden: int, skips: int, dropout: float) -> None:
        super().__init__(
            GatedResnet(above, hidden, skips, dropout),
            GatedResnet(left, hidden, hidden + skips, dropout),
        )

    def forward(self, above: torch.Tensor, left: torch.Tensor, *skips: torch.Tensor) -> Pair:
        above = self.above(above, *skips[:1])
        return above, self.left(left, above, *skips[1:])


class PixelCNNPP(MixtureModel):
    """Streams of shifted convolutions at several sizes; a mixture of discretized logistics.

    The weights are normalised; the first training batch sets their lengths and the biases so that
    what each layer makes of it has mean 0 and deviation 1, or 0.1 where a residual is added to
    (Salimans and Kingma 2016, "Weight normalization", sec. 3).

    Args:
        spec: images of 1 or 3 colours, of integer levels.
        hidden: channels of each stream (the paper: 192).
        blocks: residual blocks at each size (the paper: 5); on the way back one more.
        scales: sizes, each half of the one before (the paper: 3).
        components: of the mixture (the paper: 10).
        dropout: in the residual blocks (the paper: 0.5).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: int = 24,
        blocks: int = 1,
        scales: int = 2,
        components: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(spec)
        C = spec.shape[0]
        self.rows = above(C + 1, hidden)
        self.row_above = above(C + 1, hidden, rows=1)
        self.columns_left = left(C + 1, hidden, columns=1)
        self.halves = nn.ModuleList(halved(hidden) for _ in range(scales - 1))
        self.doubles = nn.ModuleList(doubled(hidden) for _ in range(scales - 1))
        self.going = nn.ModuleList(
            nn.ModuleList(Block(hidden, 0, dropout) for _ in range(blocks)) for _ in range(scales)
        )
        self.coming = nn.ModuleList(
            nn.ModuleList(Block(hidden, hidden, dropout) for _ in range(blocks + (i > 0)))
            for i in range(scales)
        )
        self.head = weight_norm(nn.Conv2d(hidden, components * self.parameters_each, 1))
        self.register_buffer("is_initialised", torch.zeros((), dtype=torch.bool))

    @property
    def components(self) -> int:
        return self.head.out_channels // self.parameters_each

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)  # which tells the padding
        left = shifted_down(self.row_above(x)) + shifted_right(self.columns_left(x))
        skips = [(shifted_down(self.rows(x)), left)]
        for i, blocks in enumerate(self.going):
            if i:
                skips.append(self.halves[i - 1](*skips[-1]))
            for block in blocks:
                skips.append(block(*skips[-1]))
        pair = skips.pop()
        for i, blocks in enumerate(self.coming):
            if i:
                H, W = skips[-1][0].shape[2:]
                pair = tuple(t[:, :, :H, :W] for t in self.doubles[i - 1](*pair))
            for block in blocks:
                pair = block(*pair, *skips.pop())
        return self.head(F.elu(pair[1]))

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        if self.training and not self.is_initialised:
            self.initialise(batch.items)
        return super().loss(batch, generator, player)

    @torch.no_grad()
    def initialise(self, images: torch.Tensor) -> None:
        """Lengths of the weights and biases from a batch, layer after layer."""
        added = {block.second for block in self.modules() if isinstance(block, GatedResnet)}
        hooks = [
            layer.register_forward_hook(standardise(0.1 if layer in added else 1.0))
            for layer in self.modules()
            if is_parametrized(layer, "weight")
        ]
        self.at(images)
        for hook in hooks:
            hook.remove()
        if dist.is_initialized():  # each process has seen its own share of the batch
            for parameter in self.parameters():
                dist.broadcast(parameter.data, 0)
        self.is_initialised.fill_(True)


def standardise(deviation: float) -> Callable[..., torch.Tensor]:
    """What gives the output of a layer mean 0 and a deviation: a hook, which returns it."""

    def hook(layer: nn.Conv2d, inputs: object, output: torch.Tensor) -> torch.Tensor:
        spread, mean = torch.std_mean(output.float(), dim=(0, 2, 3), correction=0)
        # A channel that is constant, as in an image of one pixel, keeps its length.
        factor = torch.where(spread > 1e-5, deviation / spread, 1.0)
        length = layer.parametrizations.weight.original0
        length.mul_(factor.view_as(length))
        layer.bias.sub_(mean).mul_(factor)
        return ((output - mean[:, None, None]) * factor[:, None, None]).to(output.dtype)

    return hook
