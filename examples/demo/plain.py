"""The layers as people write them without genkern: what the demo's speed is compared with.

The references of genkern are no such thing: they state what an op means, and are slower.
"""

import copy
import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from examples.autoregressive.raster import RasterModel
from examples.latent.vae import VAE
from genkern.nn import GANLoss, GaussianLatent, MaskedConv2d, RowLSTM
from genkern.reference.masked_conv2d import live_taps


class PlainMaskedConv2d(nn.Module):
    """A convolution whose weight is multiplied by a mask."""

    mask: torch.Tensor

    def __init__(self, layer: MaskedConv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.dilation, self.padding = layer.dilation, layer.padding
        mask = live_taps(layer.weight.shape, layer.mask_type, layer.data_channels)
        self.register_buffer("mask", mask.to(layer.weight))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight * self.mask
        return F.conv2d(input, weight, self.bias, padding=self.padding, dilation=self.dilation)


class PlainRowLSTM(nn.Module):
    """A loop over the rows: one convolution and an LSTM cell each. Grey images only."""

    def __init__(self, layer: RowLSTM) -> None:
        super().__init__()
        if layer.data_channels != 1:
            raise ValueError(f"the plain Row LSTM is of one colour; got {layer.data_channels}")
        self.input_to_state = PlainMaskedConv2d(layer.input_to_state)
        self.weight_hh, self.h0, self.c0 = layer.weight_hh, layer.h0, layer.c0
        self.output = None if layer.output is None else PlainMaskedConv2d(layer.output)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        gates = self.input_to_state(input)
        N, _, H, W = gates.shape
        hidden, padding = self.weight_hh.shape[1], self.weight_hh.shape[2] // 2
        zeros = gates.new_zeros(N, hidden, W)
        h = zeros if self.h0 is None else self.h0[:, None].expand(N, hidden, W)
        c = zeros if self.c0 is None else self.c0[:, None].expand(N, hidden, W)
        rows = []
        for r in range(H):
            row = gates[:, :, r] + F.conv1d(h, self.weight_hh, padding=padding)
            o, f, i, g = row.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            rows.append(h)
        states = torch.stack(rows, dim=2)
        return states if self.output is None else input + self.output(states)


class PlainGaussianLatent(nn.Module):
    """Sample and KL from twelve operators."""

    def __init__(self, layer: GaussianLatent) -> None:
        super().__init__()
        if layer.free_bits != 0:
            raise ValueError(f"the plain latent layer has no free bits; got {layer.free_bits}")

    def forward(
        self,
        features: torch.Tensor,
        *,
        eps: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = features.chunk(2, dim=1)
        if eps is None:
            eps = torch.empty_like(mu).normal_(generator=generator)
        z = mu + torch.exp(0.5 * logvar) * eps
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).flatten(1).sum(1)
        return z, kl


class PlainGANLoss(nn.Module):
    """Binary cross-entropy against ones and zeros."""

    def __init__(self, layer: GANLoss) -> None:
        super().__init__()
        self.kind = layer.kind
        if (layer.kind, layer.saturating, layer.label_smoothing) != ("bce", False, 0.0):
            raise ValueError(f"the plain GAN loss is the non-saturating bce; got {layer}")

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        of_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        return of_real + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))

    def generator(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    GANLoss: PlainGANLoss,
    GaussianLatent: PlainGaussianLatent,
    MaskedConv2d: PlainMaskedConv2d,
    RowLSTM: PlainRowLSTM,
}


def plain(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in plain PyTorch, with the same initial weights.

    Raises:
        ValueError: a layer of genkern has no counterpart here.
    """
    result = copy.deepcopy(model)
    _replace(result)
    if isinstance(result, RasterModel):
        result.nll = types.MethodType(_cross_entropy, result)  # type: ignore[method-assign]
    if isinstance(result, VAE):
        nll = types.MethodType(_logistic_nll, result)
        result.reconstruction_nll = nll  # type: ignore[method-assign]
    return result


def _cross_entropy(
    model: RasterModel, images: torch.Tensor, given: torch.Tensor | None = None
) -> torch.Tensor:
    """Nats per image (N,), from logits that are stored."""
    losses = F.cross_entropy(model.logits(images, given), images.long(), reduction="none")
    return losses.flatten(1).sum(1)


def _logistic_nll(model: VAE, items: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Nats per item (N,): the difference of two CDFs, which is 0 far from the mean, and clamped."""
    mean, log_scale = model.decode(z)
    levels, inverse = items.flatten(1), torch.exp(-log_scale)
    x, half = model.spec.scale(items, mean).flatten(1), 1 / (model.spec.levels - 1)
    above, below = (torch.sigmoid((x + side - mean) * inverse) for side in (half, -half))
    above = torch.where(levels == model.spec.levels - 1, torch.ones_like(above), above)
    below = torch.where(levels == 0, torch.zeros_like(below), below)
    return -(above - below).clamp(min=1e-12).log().sum(-1)


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) in PLAIN:
            setattr(module, name, PLAIN[type(child)](child))
        elif type(child).__module__.startswith("genkern."):
            raise ValueError(f"there is no plain {type(child).__name__}")
        else:
            _replace(child)
