"""A small StyleGAN2: styles, noise, lazy regularisation, path length, mixing, truncation."""

import math

import torch
import torch.nn.functional as F
from torch import nn

import genkern
from examples.adversarial import networks
from examples.adversarial.base import Adversarial
from examples.model import Batch, DataSpec
from genkern.nn import GANLoss, GradientPenalty, ModulatedConv2d, minibatch_stddev

BLUR = (0.125, 0.375, 0.375, 0.125)
R1, PATH = "discriminator R1", "generator path"


class Dense(nn.Module):
    """A linear layer whose weights are stored at variance 1: equal steps for all of them."""

    def __init__(self, inputs: int, outputs: int, *, start: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), start / rate))
        self.rate, self.scale = rate, rate / math.sqrt(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Mapping(nn.Sequential):
    """z to w: normalised, and layers that learn at a hundredth of the rate."""

    def __init__(self, latent: int, layers: int) -> None:
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [Dense(latent, latent, rate=0.01), nn.LeakyReLU(0.2)]
        super().__init__(*parts)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class Layer(nn.Module):
    """A modulated convolution, behind twice the pixels where ``up``; noise; a leaky ReLU."""

    def __init__(self, latent: int, inputs: int, outputs: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style_dim=latent, up=1 + up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.act = networks.BiasAct(outputs, gain=math.sqrt(2))

    def forward(self, x: torch.Tensor, w: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x = self.conv(x, w)
        noise = torch.randn(len(x), 1, *x.shape[2:], generator=generator, device=x.device)
        return self.act(x + self.strength * noise.to(x.dtype))


def doubled(x: torch.Tensor) -> torch.Tensor:
    return genkern.upfirdn2d(x, x.new_tensor(BLUR), up=2, padding=(2, 1, 2, 1), gain=4.0)


class Synthesis(nn.Module):
    """Styles (N, layers, latent) to images: the sum of what each size adds."""

    def __init__(self, spec: DataSpec, latent: int, channels: int) -> None:
        super().__init__()
        sides = networks.sizes(spec)
        self.start = nn.Parameter(torch.randn(1, channels, sides[0], sides[0]))
        ups = [False] + [up for _ in sides[1:] for up in (True, False)]
        self.layers = nn.ModuleList(Layer(latent, channels, channels, up=up) for up in ups)
        self.images = nn.ModuleList(
            ModulatedConv2d(channels, spec.shape[0], 1, style_dim=latent, demodulate=False)
            for _ in sides
        )

    def forward(self, styles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x, image = self.start.expand(len(styles), -1, -1, -1), None
        for i, layer in enumerate(self.layers):
            x = layer(x, styles[:, i], generator)
            if i % 2 == 0:  # the last of its size
                added = self.images[i // 2](x, styles[:, i])
                image = added if image is None else doubled(image) + added
        return image


class Generator(nn.Module):
    """z to images; w, of whose mean it keeps track, may be truncated and mixed."""

    def __init__(self, spec: DataSpec, latent: int, channels: int, layers: int) -> None:
        super().__init__()
        self.mapping = Mapping(latent, layers)
        self.synthesis = Synthesis(spec, latent, channels)
        self.register_buffer("mean", torch.zeros(latent))

    @property
    def num_styles(self) -> int:
        return len(self.synthesis.layers)

    def styles(self, z: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
        """(N, styles, latent), all equal: w, moved towards its mean where ``psi`` < 1."""
        w = self.mapping(z)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(w.detach().mean(0).to(self.mean), 0.005)
        w = w if psi == 1.0 else torch.lerp(self.mean.to(w), w, psi)
        return w[:, None].expand(-1, self.num_styles, -1)

    def mixed(self, z: torch.Tensor, other: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Styles of ``z``, from the layer ``start`` (N,) on those of ``other``."""
        late = torch.arange(self.num_styles, device=z.device) >= start[:, None]
        return torch.where(late[:, :, None], self.styles(other), self.styles(z))


class Judge(nn.Module):
    """Strided convolutions; the standard deviation over the batch is a map of its own."""

    def __init__(self, spec: DataSpec, channels: int) -> None:
        super().__init__()
        width, side = networks.width(spec, channels), networks.sizes(spec)[0]
        self.features = networks.features(spec, channels)
        self.conv = nn.Conv2d(width + 1, width, 3, padding=1, bias=False)
        self.act = networks.BiasAct(width)
        self.head = nn.Conv2d(width, 1, side)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = minibatch_stddev(self.features(x), group_size=max(1, len(x)))
        return self.head(self.act(self.conv(x))).flatten()


class StyleGAN(Adversarial):
    r"""Styles from a mapping network scale the inputs of convolutions; noise is added to each.

    Every ``r1_every`` steps the discriminator, every ``path_every`` steps the generator has a turn
    of its own for a regulariser, with so many times its weight: R1, and the path length

    .. math:: E[(\|J_w^T y\| - a)^2], \quad y \sim N(0, I)

    with a its mean over the last steps. Samples at a temperature below 1 are truncated: w is moved
    towards its mean.

    Args:
        spec: square images of integer levels.
        latent: dimensions of z and w.
        channels: of all maps of the generator, and of the discriminator's largest.
        layers: of the mapping network.
        mixing: share of the samples in training with the styles of two z.
        r1, path: weights of the regularisers.
        r1_every, path_every: steps between them.

    Source: Karras et al. 2019, "A style-based generator architecture"; Karras et al. 2020,
    "Analyzing and improving the image quality of StyleGAN", sec. 2.2, 3, app. B.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent: int = 32,
        channels: int = 32,
        layers: int = 4,
        mixing: float = 0.5,
        r1: float = 1.0,
        path: float = 2.0,
        r1_every: int = 16,
        path_every: int = 4,
    ) -> None:
        generator, judge = Generator(spec, latent, channels, layers), Judge(spec, channels)
        super().__init__(spec, generator, judge, latent=latent, criterion=GANLoss("bce"))
        self.mixing, self.path = mixing, path
        self.lazy = GradientPenalty("r1", weight=r1)
        self.every = {R1: r1_every, PATH: path_every}
        self.register_buffer("length", torch.zeros(()))

    @property
    def schedule(self) -> tuple[str, ...]:
        return ("discriminator", R1, "generator", PATH)

    @property
    def intervals(self) -> dict[str, int]:
        return self.every

    def generate(self, num: int, generator: torch.Generator, *told: torch.Tensor) -> torch.Tensor:
        z, other = self.noise(num, generator), self.noise(num, generator)
        styles, device = self.generator.num_styles, z.device
        start = torch.randint(1, styles, (num,), generator=generator, device=device)
        mixed = torch.rand(num, generator=generator, device=device) < self.mixing
        start = torch.where(mixed, start, styles)
        return self.generator.synthesis(self.generator.mixed(z, other, start), generator)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "generator"
    ) -> dict[str, torch.Tensor]:
        if player == R1:
            real = self.spec.scale(batch.items, next(self.parameters()))
            return {"loss": self.every[R1] * self.lazy(self.discriminator, real)}
        if player == PATH:
            return self.path_loss(max(1, len(batch) // 2), generator)
        return super().loss(batch, generator, player)

    def path_loss(self, num: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Of half a batch: it costs a second derivative of the generator."""
        styles = self.generator.styles(self.noise(num, generator)) + 0.0
        images = self.generator.synthesis(styles, generator).float()
        y = torch.randn(images.shape, generator=generator, device=images.device)
        product = (images * y).sum() / math.sqrt(images[0, 0].numel())
        create_graph = torch.is_grad_enabled()
        (gradient,) = torch.autograd.grad(product, styles, create_graph=create_graph)
        lengths = (gradient.float().square().sum(2).mean(1) + 1e-12).sqrt()
        with torch.no_grad():
            self.length.lerp_(lengths.mean().to(self.length), 0.01)
        penalty = (lengths - self.length).square().mean()
        return {"loss": self.every[PATH] * self.path * penalty, "length": lengths.mean()}

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        *told: torch.Tensor,
    ) -> torch.Tensor:
        """Samples of w truncated to ``temperature`` (psi) times its distance from its mean."""
        styles = self.generator.styles(self.noise(num_samples, generator), temperature)
        values = self.generator.synthesis(styles, generator)
        return self.spec.unscale(values).view(num_samples, *self.spec.shape)
