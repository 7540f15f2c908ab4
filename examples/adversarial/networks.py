"""Networks that the adversarial models share: convolutions for images, perceptrons for points."""

import torch
from torch import nn

import genkern
from examples.model import DataSpec


class BiasAct(nn.Module):
    """A bias and a leaky ReLU in one pass, differentiable twice by kernels."""

    def __init__(self, channels: int, *, act: str = "lrelu", gain: float = 1.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.act, self.gain = act, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return genkern.bias_act(x, self.bias, act=self.act, gain=self.gain)


def sizes(spec: DataSpec) -> list[int]:
    """Sides of the feature maps, from the least to the image: each twice the one before.

    Raises:
        ValueError: the images are not square, or cannot be halved twice.
    """
    _, height, width = spec.shape
    found = [width]
    while found[0] % 2 == 0 and found[0] > 2 and len(found) < 4:
        found.insert(0, found[0] // 2)
    if height != width or len(found) < 3:
        raise ValueError(f"its images must be square, and of sides of 4 n; got {height} x {width}")
    return found


class Waves(nn.Module):
    """x, and sines and cosines of x at octaves of a first frequency: a perceptron of x alone is
    late to learn what is steep. Source: Tancik et al. 2020, "Fourier features let networks learn
    high frequency functions in low dimensional domains".
    """

    def __init__(self, octaves: int, first: float) -> None:
        super().__init__()
        self.frequencies = [first * 2.0**octave for octave in range(octaves)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = [frequency * x for frequency in self.frequencies]
        return torch.cat([x, *map(torch.sin, turned), *map(torch.cos, turned)], dim=1)


class Signs(nn.Module):
    """z with its first numbers as 1 or -1, their signs: latents that are apart from each other.

    What is continuous takes all of N(0, I), which is one piece, to one piece: between modes that
    are apart it leaves samples, the fewer the steeper it is. Source: Khayatkhoei et al. 2018,
    "Disconnected manifold learning for generative adversarial networks"; Tanielian et al. 2020,
    "Learning disconnected manifolds: a no GAN's land", thm. 2.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        signs = 2.0 * (z[:, : self.count] >= 0).to(z.dtype) - 1.0
        return torch.cat([signs, z[:, self.count :]], dim=1)


def perceptron(inputs: int, hidden: int, outputs: int, waves: Waves) -> nn.Sequential:
    """Three hidden layers behind the waves, whose weights keep the size of what they are given (He
    et al. 2015): those of torch shrink it layer by layer, and a generator's first samples would
    be one point, which no critic tells where the farther modes are.
    """
    layers: list[nn.Module] = [waves]
    for width in (inputs * (1 + 2 * len(waves.frequencies)), hidden, hidden):
        linear = nn.Linear(width, hidden, bias=False)
        nn.init.kaiming_normal_(linear.weight, 0.2)
        layers += [linear, BiasAct(hidden)]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


def generator(spec: DataSpec, latent: int, channels: int, signs: int = 0) -> nn.Module:
    """z (N, latent) to items: fractionally strided convolutions with batch normalisation.

    ``channels``: of the largest hidden maps, each smaller one having twice as many; a perceptron,
    which points take, has four times as many units. ``signs``: of z, see `Signs`.
    """
    if signs > latent:
        raise ValueError(f"signs must be at most latent = {latent}; got {signs}")
    if signs:
        return nn.Sequential(Signs(signs), generator_of(spec, latent, channels, Waves(0, 1.0)))
    return generator_of(spec, latent, channels, Waves(3, 1.0))


def generator_of(spec: DataSpec, latent: int, channels: int, waves: Waves) -> nn.Module:
    """`generator` behind the signs."""
    if not spec.is_image:
        return perceptron(latent, 4 * channels, spec.dims, waves)
    sides = sizes(spec)
    width = channels * 2 ** (len(sides) - 2)
    layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1))]
    layers += [nn.ConvTranspose2d(latent, width, sides[0], bias=False)]
    for _ in sides[1:-1]:
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)]
        width //= 2
    layers += [nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, spec.shape[0], 4, 2, 1), nn.Tanh())


def features(spec: DataSpec, channels: int, *, norm: bool = False) -> nn.Sequential:
    """Items to maps (N, C', s, s) of the least side, C' = `width`: strided convolutions.

    ``norm``: batch normalisation, but for the first layer.
    """
    layers: list[nn.Module] = []
    inputs, width = spec.shape[0], channels
    for number in range(len(sizes(spec)) - 1):
        layers += [nn.Conv2d(inputs, width, 4, 2, 1, bias=False)]
        normed = norm and number > 0
        layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)] if normed else [BiasAct(width)]
        inputs, width = width, 2 * width
    return nn.Sequential(*layers)


def width(spec: DataSpec, channels: int) -> int:
    """Channels of `features`."""
    return channels * 2 ** (len(sizes(spec)) - 2)


def discriminator(spec: DataSpec, channels: int, *, norm: bool = False) -> nn.Module:
    """Items to logits: `features` and one convolution over the whole of their maps."""
    if not spec.is_image:
        return nn.Sequential(perceptron(spec.dims, 4 * channels, 1, Waves(3, 0.5)), nn.Flatten(0))
    head = nn.Conv2d(width(spec, channels), 1, sizes(spec)[0])
    return nn.Sequential(features(spec, channels, norm=norm), head, nn.Flatten(0))


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """DCGAN's: weights N(0, std^2), gains of batch normalisation N(1, std^2), no biases."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
