"""Tensors that are not (N, C, H, W): where each of their elements comes from.

A number for each element, its code, holds a node, a channel and a place. Moves of a tensor are
moves of its codes; what is computed of them is computed in runs of neighbouring channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genkern.sampling.graph import (
    Constant,
    Graph,
    Node,
    NoRule,
    Piece,
    Pointwise,
    View,
    identity,
)

CHANNEL, NODE = 24, 44  # first bits; below, the place + 1: 0 reads zeros
PLACES, CHANNELS = (1 << CHANNEL) - 1, (1 << (NODE - CHANNEL)) - 1


class Elements(View):
    """Codes (int64) of a tensor, whose dim ``batch``, of size 1 here, is that of the images. What
    is (N, C, H, W) is features too, which are put together when an op asks for them."""

    def __init__(self, codes: torch.Tensor, batch: int, graph: Graph | None = None) -> None:
        self.codes, self.batch, self.graph = codes, batch, graph
        self.found: View | None = None

    def shape_of(self, images: int) -> tuple[int, ...]:
        shape = list(self.codes.shape)
        shape[self.batch] = images
        return tuple(shape)

    def view(self) -> View:
        if self.found is None:
            if self.graph is None or self.codes.ndim != 4 or self.batch or not self.codes.numel():
                shape = self.shape_of(-1)
                raise NoRule(f"sampling: this op must be of features (N, C, H, W); got {shape}")
            self.found = _view_of(self.graph, self.codes[0].numpy())
        return self.found

    pieces = property(lambda self: self.view().pieces)  # type: ignore[assignment]
    grid = property(lambda self: self.view().grid)  # type: ignore[assignment]
    channels = property(lambda self: self.view().channels)  # type: ignore[assignment]

    def pointwise(self, graph: Graph, function: str, views: Sequence[View], number: float) -> View:
        return _pointwise(graph, function, views, number)


def code_of(graph: Graph, node: Node, channel: Any, place: Any) -> Any:
    return (graph.number(node) << NODE) + (channel << CHANNEL) + place + 1


def elements_of(graph: Graph, value: Any, batch: int = 0) -> Elements:
    """Of a view, or of a tensor that does not depend on the images; ``batch`` is their dim."""
    if isinstance(value, Elements):
        return value
    if isinstance(value, View):
        parts = [
            code_of(graph, p.node, np.arange(p.start, p.start + p.length)[:, None, None], p.table)
            for p in value.pieces
        ]
        codes = np.concatenate([np.broadcast_to(p, (len(p), *value.grid)) for p in parts])
        return Elements(torch.from_numpy(codes.astype(np.int64))[None], 0)
    first = value.movedim(batch, 0)
    channels = first.shape[-1] if first.ndim > 1 else 1
    flat = first.reshape(len(first), -1, channels)
    places = flat.shape[1]
    node = graph.add(Constant(channels, (places, 1), flat.mT[..., None]))
    codes = code_of(graph, node, torch.arange(channels), torch.arange(places)[:, None])
    return Elements(codes.view(1, *first.shape[1:]).movedim(0, batch), batch)


def of_one_place(codes: torch.Tensor) -> bool:
    """Whether what differs along dim 1 are channels alone."""
    places = codes & PLACES
    return bool((places == places[:, :1]).all())


def settled(graph: Graph, codes: torch.Tensor, batch: int) -> View:
    """A plain view where each channel is one of a node at all places."""
    if codes.ndim == 4 and batch == 0 and codes.numel():
        heads = codes >> CHANNEL
        if (heads == heads[:, :, :1, :1]).all():
            return _view_of(graph, codes[0].numpy())
    return Elements(codes, batch, graph)


def _view_of(graph: Graph, codes: np.ndarray) -> View:
    """Of codes (C, H, W): a piece for channels that are side by side at all places."""
    goes_on = (np.diff(codes, axis=0) == 1 << CHANNEL).all(axis=(1, 2))
    ends = [*(np.flatnonzero(~goes_on) + 1).tolist(), len(codes)]
    begins, grid = [0, *ends[:-1]], (codes.shape[1], codes.shape[2])
    pieces = [joined(graph, codes[b], e - b) for b, e in zip(begins, ends, strict=True)]
    return View(pieces, grid)


def joined(graph: Graph, codes: np.ndarray, channels: int) -> Piece:
    """``channels`` from those of ``codes`` on: a sum, where they are of several nodes, of pieces
    each of which has nothing at the places of the others."""
    heads, places = codes >> CHANNEL, ((codes & PLACES) - 1).astype(np.int32)
    found = None
    for head in np.unique(heads).tolist():
        node = graph.numbered[head >> (NODE - CHANNEL)]
        table = _table(node, np.where(heads == head, places, np.int32(-1)))
        piece = Piece(node, head & CHANNELS, channels, table)
        if found is not None:
            summed = Pointwise(channels, _grid(codes), "add", [found, piece], 1.0)
            piece = Piece(graph.add(summed), 0, channels, identity(_grid(codes)))
        found = piece
    assert found is not None
    return found


def _grid(codes: np.ndarray) -> tuple[int, int]:
    return codes.shape[0], codes.shape[1]


def _table(node: Node, places: np.ndarray) -> np.ndarray:
    """The places as a table; the identity as the one that is known as such."""
    whole = identity(node.grid)
    return whole if places.size == whole.size and (places.ravel() == whole.ravel()).all() else (
        places
    )  # fmt: skip


# ---- values of several tensors, element by element -------------------------------------------


def alike(graph: Graph, values: Sequence[Any]) -> list[Any]:
    """Elements and constants of one shape."""
    found = [elements_of(graph, v) if isinstance(v, View) else v for v in values]
    ndim = max(v.codes.ndim if isinstance(v, Elements) else v.ndim for v in found)
    batch = {v.batch + ndim - v.codes.ndim for v in found if isinstance(v, Elements)}
    if len(batch) != 1:
        raise NoRule("sampling: the images must be the same dim of all tensors of an op")
    at = batch.pop()
    codes = [v.codes if isinstance(v, Elements) else v for v in found]
    shape = torch.broadcast_shapes(*(_of_one(c, at, ndim) for c in codes))
    return [
        Elements(c.expand(shape), at) if isinstance(v, Elements)
        else c.expand(*shape[:at], -1 if c.ndim == ndim else 1, *shape[at + 1 :])
        for v, c in zip(found, codes, strict=True)
    ]  # fmt: skip


def _of_one(value: torch.Tensor, batch: int, ndim: int) -> tuple[int, ...]:
    """The shape for one image."""
    shape = [*[1] * (ndim - value.ndim), *value.shape]
    shape[batch] = 1
    return tuple(shape)


def _pointwise(graph: Graph, function: str, views: Sequence[Any], number: float) -> View:
    """A node for each kind of run: channels side by side of the same nodes at one place."""
    if len(views) == 1 and (found := _of_whole_nodes(graph, function, views[0], number)):
        return found
    views = alike(graph, views)
    first = next(v for v in views if isinstance(v, Elements))
    batch, shape = first.batch, first.codes.shape
    flat = [v.codes.flatten().numpy() for v in views if isinstance(v, Elements)]
    joined = np.all([np.diff(codes) == 1 << CHANNEL for codes in flat], axis=0)
    starts = np.flatnonzero(np.concatenate([[True], ~joined]))
    lengths = np.diff(np.append(starts, flat[0].size))
    keys = np.stack([lengths, *(codes[starts] >> CHANNEL for codes in flat)], axis=1)
    kinds, which = np.unique(keys, axis=0, return_inverse=True)
    result = np.empty(flat[0].size, np.int64)
    for kind, (length, *_) in enumerate(kinds.tolist()):
        runs = starts[which.ravel() == kind]
        at = runs[:, None] + np.arange(length)
        pieces = [_run_piece(graph, v, at, batch) for v in views]
        grid = _grid_of(pieces)
        for piece in pieces:
            piece.table = piece.table.reshape(grid)
            if not isinstance(piece.node, Constant):
                piece.table = _table(piece.node, piece.table)
        node = graph.add(Pointwise(length, grid, function, pieces, number))
        result[at] = code_of(graph, node, np.arange(length), np.arange(len(runs))[:, None])
    return settled(graph, torch.from_numpy(result).view(shape), batch)


def _of_whole_nodes(graph: Graph, function: str, x: Elements, number: float) -> View | None:
    """A function of all channels of the nodes, where most of them are there."""
    codes = x.codes.numpy()
    result = codes.copy()
    if (codes & PLACES == 0).any():
        return None  # of zeros it may be something else
    for which in np.unique(codes >> NODE).tolist():
        own, node = codes >> NODE == which, graph.numbered[which]
        if 2 * own.sum() < node.channels * len(np.unique(codes[own] & PLACES)):
            return None
        whole = Piece(node, 0, node.channels, identity(node.grid))
        made = graph.add(Pointwise(node.channels, node.grid, function, [whole], number))
        result[own] += (graph.number(made) - which) << NODE
    return settled(graph, torch.from_numpy(result), x.batch)


def _run_piece(graph: Graph, value: Any, at: np.ndarray, batch: int) -> Piece:
    """Of runs (runs, length) of flat elements."""
    runs, length = at.shape
    if isinstance(value, Elements):
        codes = value.codes.flatten().numpy()[at[:, 0]]
        node = graph.numbered[int(codes[0]) >> NODE]
        places = ((codes & PLACES) - 1).astype(np.int32)
        return Piece(node, (int(codes[0]) >> CHANNEL) & CHANNELS, length, places)
    found = value.movedim(batch, 0).flatten(1)[:, torch.from_numpy(at)]
    node = Constant(length, (runs, 1), found.mT[..., None])
    return Piece(graph.add(node), 0, length, np.arange(runs, dtype=np.int32))


def _grid_of(pieces: list[Piece]) -> tuple[int, int]:
    """That of the nodes where the runs are all of their places, so that rows stay rows."""
    grids = {p.node.grid for p in pieces if not isinstance(p.node, Constant)}
    whole = len(grids) == 1 and all(
        np.array_equal(p.table, np.arange(np.prod(p.node.grid)))
        for p in pieces if not isinstance(p.node, Constant)
    )  # fmt: skip
    return grids.pop() if whole else (len(pieces[0].table), 1)
