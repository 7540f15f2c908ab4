"""Sums over the channels of each place: products with weights that are all alike."""

from collections.abc import Sequence
from typing import Any

import torch

from genkern.sampling.elements import elements_of, of_one_place, settled
from genkern.sampling.graph import Graph, NoRule, NotCausal, View, identity
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import add, inverse_root, mul, terms_of


def sees_all(what: str) -> NotCausal:
    return NotCausal(
        f"sampling: {what} must not be part of a causal model: it sees all pixels of an image, "
        "later ones too (batch norm in eval mode does not)"
    )


def _weighted(graph: Graph, x: View, weight: torch.Tensor, bias: Any = None) -> View:
    """Features (N, C_out, H, W) of features (N, C, H, W) and ``weight`` (C_out, C)."""
    return graph.product(len(weight), x.grid, terms_of(x, identity(x.grid), weight), bias)


class _Channels:
    """Features (N, C, H, W) of a tensor, whose dim ``dim`` are channels of one pixel."""

    def __init__(self, graph: Graph, x: View, dim: int, what: str) -> None:
        own = elements_of(graph, x)
        self.dim = dim % own.codes.ndim
        if own.batch != 0 or self.dim == 0:
            raise NoRule("sampling: sums must be over channels, and the images come first")
        codes = own.codes.movedim(self.dim, 1)
        if not of_one_place(codes):
            raise sees_all(f"{what} over pixels")
        self.places, self.graph = codes.shape[2:], graph
        grid = (*self.places, 1, 1)[:2] if len(self.places) <= 2 else (self.places[0], -1)
        self.features = settled(graph, codes.reshape(1, codes.shape[1], *grid), 0)
        self.count = codes.shape[1]

    def back(self, features: View) -> View:
        codes = elements_of(self.graph, features).codes
        codes = codes.reshape(1, codes.shape[1], *self.places).movedim(1, self.dim)
        return settled(self.graph, codes, 0)

    def full(self, rows: int, value: float) -> torch.Tensor:
        return torch.full(
            (rows, self.count), value, dtype=torch.float64, device=self.graph.device
        )  # fmt: skip


def _total(
    graph: Graph, x: View, dims: Sequence[int], keepdim: bool, dtype: Any, what: str
) -> View:
    if dtype not in (None, torch.float32, torch.float64):
        raise NoRule(f"sampling: {what} of features must be float32 or float64; got {dtype}")
    ndim = elements_of(graph, x).codes.ndim
    own = [d % ndim for d in dims or range(ndim)]
    if len(own) != 1:
        raise sees_all(f"{what} over pixels")
    over = _Channels(graph, x, own[0], what)
    value = 1.0 if what == "a sum" else 1 / over.count
    found = elements_of(graph, over.back(_weighted(graph, over.features, over.full(1, value))))
    codes = found.codes if keepdim else found.codes.squeeze(own[0])
    return settled(graph, codes, 0)


@register_step("aten::mean")
def mean(graph: Graph, x: View, dim: Any = None, keepdim: bool = False, *, dtype: Any = None):
    return _total(graph, x, dim, keepdim, dtype, "a mean")


@register_step("aten::sum")
def sum_(graph: Graph, x: View, dim: Any = None, keepdim: bool = False, *, dtype: Any = None):
    return _total(graph, x, dim, keepdim, dtype, "a sum")


@register_step("aten::native_layer_norm")
def layer_norm(graph: Graph, x: View, shape: Sequence[int], weight, bias, eps: float):
    """Of the channels of each place, the last dim of what `permute` has moved there: x - mean and
    the variance of it are products."""
    if len(shape) != 1:
        raise sees_all("layer norm over pixels")
    over = _Channels(graph, x, -1, "layer norm")
    C = over.count
    even = over.full(C, 1 / C)
    off = _weighted(graph, over.features, torch.eye(C).to(even) - even)
    squares = graph.pointwise("mul", off, off)
    variance = _weighted(graph, squares, even, over.full(1, eps)[0])
    found = graph.pointwise("mul", off, inverse_root(graph, variance))
    if weight is not None:
        found = mul(graph, found, weight[:, None, None])
    if bias is not None:
        found = add(graph, found, bias[:, None, None])
    nothing = View([], (0, 0))  # what the backward pass keeps
    return [over.back(found), nothing, nothing]
