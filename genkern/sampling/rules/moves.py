"""How tensors are moved, whatever their dims: what comes out as (N, C, H, W) is features again."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from genkern.sampling.elements import Elements, elements_of, settled
from genkern.sampling.graph import Graph, Lookup, NoRule, Piece, View
from genkern.sampling.record import register_step
from genkern.sampling.rules import aten


def _is_features(x: Any) -> bool:
    return isinstance(x, View) and not isinstance(x, Elements)


def _moved(graph: Graph, x: View, batch: Callable[[Elements], int], op: Any, *args: Any) -> View:
    own = elements_of(graph, x)
    return settled(graph, op(own.codes, *args), batch(own))


def _sizes(graph: Graph, x: Elements, sizes: Sequence[int]) -> tuple[list[int], int]:
    """Of a view of a tensor, for one image, and which dim is the images then."""
    shape = x.shape_of(graph.images)
    before, sizes = int(np.prod(shape[: x.batch], dtype=int)), list(sizes)
    if -1 in sizes:
        known = -functools.reduce(operator.mul, sizes)
        sizes[sizes.index(-1)] = int(np.prod(shape, dtype=int)) // max(known, 1)
    for at, size in enumerate(sizes):
        if size == graph.images and int(np.prod(sizes[:at], dtype=int)) == before:
            return [*sizes[:at], 1, *sizes[at + 1 :]], at
    long, why = [n for n in shape if n != 1], ""
    if len(sizes) < 4 and [n for n in sizes if n != 1] == [math.prod(long[:-1]), *long[-1:]]:
        why = " (of a linear layer or einsum over one of more than two dims, where images "
        why += "and places become rows: over channels, a 1x1 convolution is the same)"
    elif sizes[:2] == [1, math.prod(shape[:2])]:
        why = " (instance norm, which does not, is not causal)"
    raise NoRule(
        f"sampling: aten::view of features {shape} with the images in dim {x.batch} must keep the "
        f"images a dim of their own; got sizes {tuple(sizes)}{why}"
    )


@register_step("aten::view")
def view(graph: Graph, x: View, sizes: Sequence[int]) -> View:
    own = elements_of(graph, x)
    sizes, batch = _sizes(graph, own, sizes)
    return settled(graph, own.codes.reshape(sizes), batch)


for _op in ("_unsafe_view", "reshape"):
    register_step(f"aten::{_op}", view)


@register_step("aten::permute")
def permute(graph: Graph, x: View, dims: Sequence[int]) -> View:
    own = elements_of(graph, x)
    order = [d % own.codes.ndim for d in dims]
    return settled(graph, own.codes.permute(order), order.index(own.batch))


@register_step("aten::transpose")
def transpose(graph: Graph, x: View, first: int, second: int) -> View:
    order = list(range(elements_of(graph, x).codes.ndim))
    order[first], order[second] = order[second], order[first]
    return permute(graph, x, order)


@register_step("aten::unsqueeze")
def unsqueeze(graph: Graph, x: View, dim: int) -> View:
    own = elements_of(graph, x)
    dim %= own.codes.ndim + 1
    return _moved(graph, own, lambda e: e.batch + (dim <= e.batch), torch.unsqueeze, dim)


def _without(graph: Graph, x: View, dim: int, op: Any, *args: Any) -> View:
    """A dim goes."""
    own = elements_of(graph, x)
    dim %= own.codes.ndim
    if dim == own.batch:
        raise NoRule("sampling: no image must be taken out of the batch")
    return _moved(graph, own, lambda e: e.batch - (dim < e.batch), op, dim, *args)


@register_step("aten::squeeze")
def squeeze(graph: Graph, x: View, dim: Any = None) -> View:
    if dim is None or (isinstance(dim, list) and len(dim) != 1):
        raise NoRule("sampling: squeeze must be of one dim")
    if elements_of(graph, x).codes.shape[dim[0] if isinstance(dim, list) else dim] != 1:
        return x
    return _without(graph, x, dim[0] if isinstance(dim, list) else dim, torch.squeeze)


@register_step("aten::select")
def select(graph: Graph, x: View, dim: int, index: int) -> View:
    return _without(graph, x, dim, torch.select, index)


@register_step("aten::unbind")
def unbind(graph: Graph, x: View, dim: int = 0) -> list[View]:
    return [select(graph, x, dim, i) for i in range(elements_of(graph, x).codes.shape[dim])]


@register_step("aten::expand")
def expand(graph: Graph, x: View, sizes: Sequence[int]) -> View:
    own = elements_of(graph, x)
    more = len(sizes) - own.codes.ndim
    sizes = [1 if i == own.batch + more else size for i, size in enumerate(sizes)]
    return settled(graph, own.codes.expand(sizes), own.batch + more)


@register_step("aten::index_select")
def index_select(graph: Graph, x: View, dim: int, index: torch.Tensor) -> View:
    return _moved(graph, x, lambda e: e.batch, torch.index_select, dim, index.cpu())


@register_step("aten::index")
def index(graph: Graph, x: View, indices: Sequence[torch.Tensor | None]) -> View:
    given = [(i, at) for i, at in enumerate(indices) if at is not None]
    own = elements_of(graph, x)
    (dim, at), *more = given
    if more or dim == own.batch or at.ndim != 1:
        raise NoRule("sampling: an index must be one vector, and not of the images")
    return index_select(graph, own, dim, at)


@register_step("aten::slice")
def slice_(graph: Graph, x: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1):
    if _is_features(x) and (dim % 4 != 1 or step == 1):
        return aten.slice_(graph, x, dim, start, end, step)
    own = elements_of(graph, x)
    if dim % own.codes.ndim == own.batch:
        raise NoRule("sampling: a slice must keep all images")
    return _moved(graph, own, lambda e: e.batch, torch.ops.aten.slice, dim, start, end, step)


@register_step("aten::split")
def split(graph: Graph, x: View, size: int, dim: int = 0) -> list[View]:
    if _is_features(x) and dim in (1, -3):
        return aten.split(graph, x, size, dim)
    own = elements_of(graph, x)
    return [settled(graph, part, own.batch) for part in own.codes.split(size, dim)]


@register_step("aten::cat")
def cat(graph: Graph, parts: Sequence[Any], dim: int = 0) -> View:
    if dim in (1, -3) and all(_is_features(p) or p.ndim == 4 for p in parts if not isinstance(
        p, Elements
    )) and not any(isinstance(p, Elements) for p in parts):  # fmt: skip
        return aten.cat(graph, parts, dim)
    batch = next(elements_of(graph, p).batch for p in parts if isinstance(p, View))
    every = [elements_of(graph, p, batch).codes for p in parts]
    if dim % every[0].ndim == batch:
        raise NoRule("sampling: images must not be added to the batch")
    return settled(graph, torch.cat(every, dim), batch)


@register_step("aten::stack")
def stack(graph: Graph, parts: Sequence[Any], dim: int = 0) -> View:
    batch = next(elements_of(graph, p).batch for p in parts if isinstance(p, View))
    every = [elements_of(graph, p, batch).codes for p in parts]
    dim %= every[0].ndim + 1
    return settled(graph, torch.stack(every, dim), batch + (dim <= batch))


@register_step("aten::embedding")
def embedding(graph: Graph, rows: torch.Tensor, x: View, *ignored: Any) -> View:
    """A row of a table for each element."""
    own = elements_of(graph, x)
    codes, C = own.codes.flatten(), rows.shape[1]
    result = torch.empty(len(codes), C, dtype=torch.int64)
    heads = codes >> 24
    for head in heads.unique().tolist():
        at = (heads == head).nonzero()[:, 0]
        one = settled(graph, codes[at].view(1, 1, -1, 1), 0)
        piece = one.pieces[0]
        grid = piece.node.grid
        if len(at) == np.prod(grid) and (piece.table.ravel() == np.arange(len(at))).all():
            piece = Piece(piece.node, piece.start, 1, piece.table.reshape(grid))
        node = graph.add(Lookup(C, piece.table.shape, "lookup", [piece], 0.0, rows))
        result[at] = elements_of(graph, graph.view(node)).codes.view(C, -1).mT
    return settled(graph, result.view(*own.codes.shape, C), own.batch)
