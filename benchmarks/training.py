"""Training steps of whole networks, genkern against the same network in plain PyTorch.

A step is forward, backward and Adam. The plain networks are written as people write them, with
`F.conv2d(x, w * mask)`, tanh, sigmoid and `F.cross_entropy`; "library" has kernels without dead
rows and columns instead of a mask, cut to size behind the convolution, where that can be. All have
the same parameters, and in float64 the same losses over two steps, before any is timed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import iwae, penalties, vae
from benchmarks.core.case import Case, Target
from benchmarks.core.trained import PHASE, Trained
from examples.autoregressive.gated_pixel_cnn import GatedPixelCNN
from examples.autoregressive.pixel_cnn import PixelCNN
from examples.model import DataSpec

TARGETS = {PHASE: Target(1.7)}
MEMORY = 0.7  # of eager's peak


class Masked(nn.Conv2d):
    """Multiplies its weight by a mask: ``rows`` and then ``columns`` of the pixel's row are live,
    and of the next tap, the pixel itself, what ``centre`` (C_out, C_in) says."""

    mask: torch.Tensor

    def __init__(self, C_in: int, C_out: int, kernel: tuple[int, int], rows: int, columns: int,
                 centre: torch.Tensor | None = None) -> None:  # fmt: skip
        super().__init__(C_in, C_out, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
        mask = torch.zeros_like(self.weight)
        mask[:, :, :rows] = 1
        mask[:, :, rows : rows + 1, :columns] = 1
        if centre is not None:
            mask[:, :, rows, columns] = centre.float()
        self.register_buffer("mask", mask)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class Cropped(nn.Conv2d):
    """A kernel that ends at or before the pixel: padded on all sides, cut at the far ones."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        H, W = input.shape[2:]
        return super().forward(input)[:, :, :H, :W]


def square(C_in: int, C_out: int, k: int, colours: int, first: bool = False) -> Masked:
    """Mask A (first) or B over colours."""
    of_out, of_in = (torch.arange(C) * colours // C for C in (C_out, C_in))
    centre = of_in < of_out[:, None] if first else of_in <= of_out[:, None]
    return Masked(C_in, C_out, (k, k), k // 2, k // 2, centre)


class PlainGatedLayer(nn.Module):
    def __init__(self, into: int, hidden: int, k: int, cropped: bool) -> None:
        super().__init__()
        self.first = bool(into)
        into, rows = into or hidden, k // 2 + (not into)
        self.v: nn.Conv2d
        self.h: nn.Conv2d
        self.v = Masked(into, 2 * hidden, (k, k), rows, 0)
        self.h = Masked(into, 2 * hidden, (1, k), 0, rows)
        if cropped:
            self.v = Cropped(into, 2 * hidden, (rows, k), padding=k // 2)
        if cropped and not self.first:
            self.h = Cropped(into, 2 * hidden, (1, rows), padding=(0, k // 2))
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.out = nn.Conv2d(hidden, hidden, 1)

    @staticmethod
    def gate(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    def forward(self, v: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.v(v)
        out = self.out(self.gate(self.h(h) + self.link(rows)))
        return self.gate(rows), out if self.first else h + out


class PlainGatedPixelCNN(nn.Module):
    def __init__(self, levels: int, hidden: int, layers: int, k: int, cropped: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PlainGatedLayer(0 if i else 1, hidden, k if i else 7, cropped) for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, 2 * hidden, 1), nn.ReLU(), nn.Conv2d(2 * hidden, levels, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        v = h = images
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)


class PlainBlock(nn.Module):
    def __init__(self, hidden: int, colours: int) -> None:
        super().__init__()
        sizes = [(2 * hidden, hidden, 1), (hidden, hidden, 3), (hidden, 2 * hidden, 1)]
        self.layers = nn.ModuleList(square(*size, colours) for size in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for layer in self.layers:
            y = layer(F.relu(y))
        return x + y


def plain_pixel_cnn(colours: int, levels: int, hidden: int, blocks: int) -> nn.Module:
    return nn.Sequential(
        square(colours, 2 * hidden, 7, colours, first=True),
        *(PlainBlock(hidden, colours) for _ in range(blocks)),
        nn.ReLU(),
        square(2 * hidden, 2 * hidden, 1, colours),
        nn.ReLU(),
        square(2 * hidden, levels * colours, 1, colours),
    )


@dataclass(frozen=True)
class Plain:
    """A plain network with the nats per image of the models of `examples`."""

    network: nn.Module
    spec: DataSpec

    def nll(self, images: torch.Tensor) -> torch.Tensor:
        N, C, H, W = images.shape
        logits = self.network(self.spec.scale(images, next(self.network.parameters())))
        logits = logits.view(N, C, -1, H, W).transpose(1, 2)
        return F.cross_entropy(logits, images.long(), reduction="sum") / N


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@torch.no_grad()
def take_parameters(network: nn.Module, model: nn.Module) -> None:
    """Those of ``model``; where a kernel has dead rows and columns, they come last."""
    for to, ours in zip(convolutions(network), convolutions(model), strict=True):
        kh, kw = ours.kernel_size
        to.weight[:, :, :kh, :kw] = ours.weight
        to.bias.copy_(ours.bias)  # type: ignore[union-attr]


def products(network: nn.Module, pixels: int) -> tuple[float, float]:
    """FLOPs forward and backward, live taps only; nobody asks for the gradient of the images."""
    found = convolutions(network)
    live = [float(getattr(c, "mask", torch.ones_like(c.weight)).sum()) for c in found]
    of_images = sum(n for n, c in zip(live, found, strict=True) if c.in_channels < 4)
    return 2 * pixels * sum(live), 2 * pixels * (2 * sum(live) - of_images)


@dataclass(frozen=True)
class Network(Trained):
    """``model`` of genkern, and ``plain`` ones by implementation."""

    model: Callable[[DataSpec], nn.Module]
    plain: dict[str, Callable[[DataSpec], nn.Module]]

    def built(self) -> dict[str, tuple[nn.Module, Callable]]:
        """Each implementation's network and its likelihood."""
        model = self.model(self.spec)
        found: dict[str, tuple[nn.Module, Callable]] = {"genkern": (model, model.nll)}
        for name, build in self.plain.items():
            network = build(self.spec)
            take_parameters(network, model)
            found[name] = network, Plain(network, self.spec).nll
        return found

    def case(self) -> Case:
        network = self.plain["eager"](self.spec)
        pixels = self.batch * self.spec.shape[1] * self.spec.shape[2]
        return self.record(
            network,
            products(network, pixels),
            TARGETS,
            memory=MEMORY,
            library_call="F.conv2d without the dead rows and columns, and a cut",
        )


def gated(name: str, k: int, hidden: int = 128, layers: int = 10, batch: int = 16) -> Network:
    spec = DataSpec((1, 28, 28), 256)

    def plain(cropped: bool) -> Callable[[DataSpec], nn.Module]:
        return lambda s: PlainGatedPixelCNN(s.levels or 0, hidden, layers, k, cropped)

    return Network(
        name=name,
        batch=batch,
        spec=spec,
        model=lambda s: GatedPixelCNN(s, hidden=hidden, layers=layers, kernel=k),
        plain={"eager": plain(False), "library": plain(True)},
    )


def coloured(name: str, hidden: int = 128, blocks: int = 15, batch: int = 8) -> Network:
    return Network(
        name=name,
        batch=batch,
        spec=DataSpec((3, 32, 32), 256),
        model=lambda s: PixelCNN(s, hidden=hidden, blocks=blocks),
        plain={"eager": lambda s: plain_pixel_cnn(s.shape[0], s.levels or 0, hidden, blocks)},
    )


def networks() -> dict[str, Trained]:
    found: Sequence[Trained] = (
        gated("gated_pixel_cnn 10x128 k3 N16 28x28", 3),
        gated("gated_pixel_cnn 10x128 k5 N16 28x28", 5),
        coloured("pixel_cnn 15 blocks h128 N8 3x32x32"),
        *iwae.steps(),
        *vae.steps(),
        *penalties.steps(),
    )
    return {network.name: network for network in found}
