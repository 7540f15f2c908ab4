"""The public way: masks that multiply dense kernels, and a forward pass for each place."""

import copy
import time
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from genkern.nn import MaskedConv2d
from genkern.reference.masked_conv2d import anchor, live_taps

T = TypeVar("T")


class MultipliedMask(nn.Module):
    """`F.conv2d` with ``weight * mask``, as in most public code."""

    def __init__(self, layer: MaskedConv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        live = live_taps(layer.weight.shape, layer.mask_type, layer.data_channels, layer.parts)
        self.register_buffer("mask", live.to(layer.weight))
        kh, kw = layer.weight.shape[2:]
        a, b = anchor(layer.mask_type, kh, kw)
        self.padding = (b, max(0, kw - 1 - b), a, max(0, kh - 1 - a))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        H, W = x.shape[2:]
        return F.conv2d(F.pad(x, self.padding), self.weight * self.mask, self.bias)[:, :, :H, :W]


def public(model: nn.Module) -> nn.Module:
    """A copy of a model with the same weights, all of whose masked convolutions multiply."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MaskedConv2d):
                setattr(module, name, MultipliedMask(child))
    return model


def timed(call: Callable[[], T], repeats: int = 1) -> tuple[float, T]:
    """Least seconds of a call, and what it returned last; the first of several is not counted."""
    found = call() if repeats > 1 else None
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        found = call()
        best = min(best, time.perf_counter() - started)
    return best, found  # type: ignore[return-value]
