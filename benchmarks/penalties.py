"""Training steps with a gradient penalty: layers of genkern against the same ones of torch.

A step is a discriminator's loss with R1 or WGAN-GP, or a generator's path length, then backward
through that gradient, and Adam. Both networks have the same parameters and convolutions, whose
share of the step is printed: it is torch's in both, and what remains is what fusion can shorten.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import genkern
from benchmarks.core.case import Case, Target
from benchmarks.core.trained import PHASE, Trained
from benchmarks.upfirdn2d import BLUR, eager
from examples.model import DataSpec

BATCH, GAIN, STYLE = 64, math.sqrt(2), 64
TARGETS = {PHASE: Target(1.3)}
PRODUCTS = ("convolution", "addmm", "aten::mm")  # parts of the names of torch's ops


@dataclass(frozen=True)
class Layers:
    """What stands between convolutions: act(x, bias), norm(x, weight, bias), filters."""

    act: Callable
    norm: Callable
    blur: Callable
    up: Callable


def filtered(function: Callable, up: int) -> Callable:
    """StyleGAN's blur, behind zeros between the pixels where ``up`` is 2."""
    options = {"up": up, "down": 1, "padding": (2, 1, 2, 1), "gain": float(up * up)}
    return lambda x: function(x, filter=BLUR.to(x.dtype), **options)


def leaky(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x + bias[:, None, None], 0.2) * GAIN


def normalised(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """By one map for all images, which torch's kernel applies, or by a style of each."""
    if weight.ndim == 1:
        return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias), 0.2)
    h = F.instance_norm(x) * weight[:, :, None, None] + bias[:, :, None, None]
    return F.leaky_relu(h, 0.2)


FUSED = Layers(
    act=partial(genkern.bias_act, act="lrelu", gain=GAIN),
    norm=partial(genkern.instance_norm_act, act="lrelu"),
    blur=filtered(genkern.upfirdn2d, 1),
    up=filtered(genkern.upfirdn2d, 2),
)
PLAIN = Layers(act=leaky, norm=normalised, blur=filtered(eager, 1), up=filtered(eager, 2))


class Critic(nn.Module):
    """DCGAN's discriminator: strided convolutions, normalised or not, blurred before or not."""

    def __init__(self, layers: Layers, width: int, normalise: bool, blur: bool) -> None:
        super().__init__()
        self.layers, self.normalise, self.blur = layers, normalise, blur
        sizes = [3, width, 2 * width, 4 * width]
        pairs = list(itertools.pairwise(sizes))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1, bias=False) for i, o in pairs)
        self.weights = nn.ParameterList(torch.ones(o) for _, o in pairs)
        self.biases = nn.ParameterList(torch.zeros(o) for _, o in pairs)
        self.head = nn.Conv2d(sizes[-1], 1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, convolution in enumerate(self.convolutions):
            x = convolution(self.layers.blur(x) if self.blur and i else x)
            if self.normalise and i:  # DCGAN leaves out the first layer
                x = self.layers.norm(x, self.weights[i], self.biases[i])
            else:
                x = self.layers.act(x, self.biases[i])
        return self.head(x).flatten()


class Synthesis(nn.Module):
    """From styles (N, STYLE) to images, by AdaIN behind upsampling and convolution."""

    def __init__(self, layers: Layers, width: int) -> None:
        super().__init__()
        self.layers = layers
        sizes = [4 * width, 4 * width, 2 * width, width]
        self.start = nn.Parameter(torch.randn(1, sizes[0], 4, 4))
        pairs = list(itertools.pairwise(sizes))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.styles = nn.ModuleList(nn.Linear(STYLE, 2 * o) for _, o in pairs)
        self.head = nn.Conv2d(sizes[-1], 3, 1)

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        x = self.start.expand(len(style), -1, -1, -1)
        for convolution, to_affine in zip(self.convolutions, self.styles, strict=True):
            scale, bias = to_affine(style).chunk(2, dim=1)
            x = self.layers.norm(convolution(self.layers.up(x)), 1 + scale, bias)
        return self.head(x)


def r1(critic: nn.Module, real: torch.Tensor) -> torch.Tensor:
    """Logistic loss and R1 (Mescheder et al. 2018, eq. 9) with gamma 10."""
    real = real.detach().requires_grad_()
    logits, fake = critic(real), critic(0.5 * real.detach().flip(0) + 0.1)
    (g,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    penalty = g.square().sum((1, 2, 3)).mean()
    return F.softplus(-logits).mean() + F.softplus(fake).mean() + 5 * penalty


def wgan_gp(critic: nn.Module, real: torch.Tensor) -> torch.Tensor:
    """Gulrajani et al. 2017, algorithm 1, with lambda 10 and one share for each pair."""
    fake = 0.5 * real.flip(0) + 0.1
    share = torch.linspace(0, 1, len(real), dtype=real.dtype)[:, None, None, None]
    between = (share * real + (1 - share) * fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (g.flatten(1).norm(dim=1) - 1).square().mean()
    return critic(fake).mean() - critic(real).mean() + 10 * penalty


def path_length(synthesis: nn.Module, noise: torch.Tensor) -> torch.Tensor:
    """Karras et al. 2020, eq. 4, with 1 in the place of the mean; the images are the noise."""
    style = noise.flatten(1)[:, :STYLE].detach().requires_grad_()
    images = synthesis(style)
    (g,) = torch.autograd.grad((images * noise).sum() / 32, style, create_graph=True)
    return (g.square().sum(1).sqrt() - 1).square().mean()


class Flops(TorchDispatchMode):
    """Products in the block; torch's own counter watches modules, and with them autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, op, types, arguments=(), keywords=None):
        found = op(*arguments, **(keywords or {}))
        if op.overloadpacket in flop_registry:
            of_op = flop_registry[op.overloadpacket]
            self.total += of_op(*arguments, **(keywords or {}), out_val=found)
        return found


def convolution_share(step: Callable[[], object]) -> float:
    """Of the step's time in ops, what torch's convolutions and matrix products take."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    events = profiler.key_averages()
    found = [e.self_cpu_time_total for e in events if any(word in e.key for word in PRODUCTS)]
    return sum(found) / sum(e.self_cpu_time_total for e in events)


@dataclass(frozen=True)
class Penalty(Trained):
    """A step whose loss is ``loss(network, images)``; ``build`` makes one of its layers."""

    loss: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    build: Callable[[Layers], nn.Module]

    def built(self) -> dict[str, tuple[nn.Module, Callable]]:
        found: dict[str, tuple[nn.Module, Callable]] = {}
        for name, layers in (("genkern", FUSED), ("eager", PLAIN)):
            torch.manual_seed(0)
            network = self.build(layers)

            def loss(images: torch.Tensor, network: nn.Module = network) -> torch.Tensor:
                return self.loss(network, images.to(next(network.parameters()).dtype))

            found[name] = network, loss
        return found

    def case(self) -> Case:
        network, loss = self.built()["genkern"]
        with Flops() as products:
            loss(self.images()).backward()
        return self.record(network, (products.total, 0.0), TARGETS)

    def notes(self, steps: dict[str, Callable]) -> list[str]:
        shares = (f"{name} {convolution_share(step):.0%}" for name, step in steps.items())
        return [f"  {self.name}: products of the step, {', '.join(shares)}"]


def penalty(name: str, loss: Callable, build: Callable, batch: int = BATCH) -> Penalty:
    spec = DataSpec((3, 32, 32), None)
    return Penalty(name, batch, spec, loss, build)


def steps(width: int = 64, batch: int = BATCH) -> Sequence[Penalty]:
    def critic(normalise: bool, blur: bool) -> Callable[[Layers], nn.Module]:
        return lambda layers: Critic(layers, width, normalise, blur)

    size = f"{width} N{batch} 3x32x32"
    return (
        penalty(f"r1 dcgan {size}", r1, critic(False, False), batch),
        penalty(f"r1 blurred dcgan {size}", r1, critic(False, True), batch),
        penalty(f"wgan-gp dcgan {size}", wgan_gp, critic(True, False), batch),
        penalty(f"path length adain {size}", path_length, lambda s: Synthesis(s, width), batch),
    )
