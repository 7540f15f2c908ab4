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
    PlaceProduct,
    Pointwise,
    Reach,
    View,
    identity,
)

_CHANNEL, _NODE = 24, 44  # first bits; below, the place + 1: 0 reads zeros
_PLACES, _CHANNELS = (1 << _CHANNEL) - 1, (1 << (_NODE - _CHANNEL)) - 1


class Elements(View):
    """Codes (int64) of a tensor, whose dim ``batch``, of size 1 here, is that of the images."""

    def __init__(self, codes: torch.Tensor, batch: int) -> None:
        self.codes, self.batch = codes, batch

    def shape_of(self, images: int) -> tuple[int, ...]:
        shape = list(self.codes.shape)
        shape[self.batch] = images
        return tuple(shape)

    def _no_view(self) -> Any:
        shape = self.shape_of(-1)
        raise NoRule(f"sampling: this op must be of features (N, C, H, W); got shape {shape}")

    pieces = grid = channels = property(_no_view)  # type: ignore[assignment]

    def pointwise(self, graph: Graph, function: str, views: Sequence[View], number: float) -> View:
        return _pointwise(graph, function, views, number)


def _code(graph: Graph, node: Node, channel: Any, place: Any) -> Any:
    return (graph.number(node) << _NODE) + (channel << _CHANNEL) + place + 1


def elements_of(graph: Graph, value: Any, batch: int = 0) -> Elements:
    """Of a view, or of a tensor that does not depend on the images; ``batch`` is their dim."""
    if isinstance(value, Elements):
        return value
    if isinstance(value, View):
        parts = [
            _code(graph, p.node, np.arange(p.start, p.start + p.length)[:, None, None], p.table)
            for p in value.pieces
        ]
        codes = np.concatenate([np.broadcast_to(p, (len(p), *value.grid)) for p in parts])
        return Elements(torch.from_numpy(codes.astype(np.int64))[None], 0)
    first = value.movedim(batch, 0)
    channels = first.shape[-1] if first.ndim > 1 else 1
    flat = first.reshape(len(first), -1, channels)
    places = flat.shape[1]
    node = graph.add(Constant(channels, (places, 1), flat.mT[..., None]))
    codes = _code(graph, node, torch.arange(channels), torch.arange(places)[:, None])
    return Elements(codes.view(1, *first.shape[1:]).movedim(0, batch), batch)


def settled(graph: Graph, codes: torch.Tensor, batch: int) -> View:
    """A view where the codes are of (N, C, H, W), whatever nodes they are of."""
    if codes.ndim == 4 and batch == 0 and codes.numel():
        return _view_of(graph, codes[0].numpy())
    return Elements(codes, batch)


def _view_of(graph: Graph, codes: np.ndarray) -> View:
    """Of codes (C, H, W): a piece for channels that are side by side at all places."""
    goes_on = (np.diff(codes, axis=0) == 1 << _CHANNEL).all(axis=(1, 2))
    ends = [*(np.flatnonzero(~goes_on) + 1).tolist(), len(codes)]
    begins, grid = [0, *ends[:-1]], (codes.shape[1], codes.shape[2])
    pieces = [_joined(graph, codes[b], e - b) for b, e in zip(begins, ends, strict=True)]
    return View(pieces, grid)


def _joined(graph: Graph, codes: np.ndarray, channels: int) -> Piece:
    """``channels`` from those of ``codes`` on: a sum, where they are of several nodes, of pieces
    each of which has nothing at the places of the others."""
    heads, places = codes >> _CHANNEL, ((codes & _PLACES) - 1).astype(np.int32)
    found = None
    for head in np.unique(heads).tolist():
        node = graph.numbered[head >> (_NODE - _CHANNEL)]
        table = _table(node, np.where(heads == head, places, np.int32(-1)))
        piece = Piece(node, head & _CHANNELS, channels, table)
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
    joined = np.all([np.diff(codes) == 1 << _CHANNEL for codes in flat], axis=0)
    starts = np.flatnonzero(np.concatenate([[True], ~joined]))
    lengths = np.diff(np.append(starts, flat[0].size))
    keys = np.stack([lengths, *(codes[starts] >> _CHANNEL for codes in flat)], axis=1)
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
        result[at] = _code(graph, node, np.arange(length), np.arange(len(runs))[:, None])
    return settled(graph, torch.from_numpy(result).view(shape), batch)


def _of_whole_nodes(graph: Graph, function: str, x: Elements, number: float) -> View | None:
    """A function of all channels of the nodes, where most of them are there."""
    codes = x.codes.numpy()
    result = codes.copy()
    if (codes & _PLACES == 0).any():
        return None  # of zeros it may be something else
    for which in np.unique(codes >> _NODE).tolist():
        own, node = codes >> _NODE == which, graph.numbered[which]
        if 2 * own.sum() < node.channels * len(np.unique(codes[own] & _PLACES)):
            return None
        whole = Piece(node, 0, node.channels, identity(node.grid))
        made = graph.add(Pointwise(node.channels, node.grid, function, [whole], number))
        result[own] += (graph.number(made) - which) << _NODE
    return settled(graph, torch.from_numpy(result), x.batch)


def _run_piece(graph: Graph, value: Any, at: np.ndarray, batch: int) -> Piece:
    """Of runs (runs, length) of flat elements."""
    runs, length = at.shape
    if isinstance(value, Elements):
        codes = value.codes.flatten().numpy()[at[:, 0]]
        node = graph.numbered[int(codes[0]) >> _NODE]
        places = ((codes & _PLACES) - 1).astype(np.int32)
        return Piece(node, (int(codes[0]) >> _CHANNEL) & _CHANNELS, length, places)
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


# ---- products --------------------------------------------------------------------------------


def place_product(
    graph: Graph,
    codes: np.ndarray,
    weight: torch.Tensor,
    live: np.ndarray,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The codes (R, C_out) of products that have their own weights at each of R places.

    Args:
        codes: (R, K), of what each place reads, or (1, K).
        weight: (R, C_out, K).
        live: (R, K), bool: the others are neither read nor waited for.
        bias: (R, C_out).
    """
    R, C_out, _ = weight.shape
    codes = np.broadcast_to(codes, live.shape)
    live = live & (codes & _PLACES > 0)
    reaches, weights = [], [weight[:, :, :0]]
    for number in np.unique(codes[live] >> _NODE).tolist():
        own = live & (codes >> _NODE == number)
        kept = own.any(axis=0)
        reach, factors = _reach(graph.numbered[number], codes[:, kept], own[:, kept])
        size = reach.table.shape[1] * reach.length
        found = weight.new_zeros(R, C_out, size + 1)  # the last: of what is dead
        at = torch.from_numpy(np.where(own[:, kept], factors, size)).to(weight.device)
        own_weight = weight[:, :, torch.from_numpy(kept.nonzero()[0])]
        found.scatter_add_(2, at[:, None].expand_as(own_weight), own_weight)
        reaches.append(reach)
        weights.append(found[:, :, :size])
    node = PlaceProduct(C_out, (R, 1), reaches, torch.cat(weights, 2), bias)
    return _code(graph, graph.add(node), torch.arange(C_out), torch.arange(R)[:, None])


def _reach(node: Node, codes: np.ndarray, own: np.ndarray) -> tuple[Reach, np.ndarray]:
    """What rows (R, K) read of a node, and which factor of it each element is."""
    places, channels = np.where(own, (codes & _PLACES) - 1, 0), (codes >> _CHANNEL) & _CHANNELS
    low, length = int(channels[own].min()), int(np.ptp(channels[own])) + 1
    used = np.zeros((len(codes), node.grid[0] * node.grid[1]), bool)
    rows = np.broadcast_to(np.arange(len(codes))[:, None], codes.shape)
    used[rows[own], places[own]] = True
    which = np.cumsum(used, axis=1) - 1
    table = np.full((len(codes), int(which[:, -1].max()) + 1), -1, np.int32)
    row, place = used.nonzero()
    table[row, which[row, place]] = place
    factors = which[rows, places] * length + channels - low
    return Reach(node, low, length, table), factors


def kinds_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of a bool matrix, and which of them each row is."""
    if (rows == rows[:1]).all():
        return rows[:1], np.zeros(len(rows), np.int64)
    bits = np.packbits(rows, axis=1)
    _, first, which = np.unique(
        bits.view(np.dtype((np.void, bits.shape[1])))[:, 0], return_index=True, return_inverse=True
    )
    return rows[first], which.ravel()


def running_sum(graph: Graph, codes: torch.Tensor) -> torch.Tensor:
    """Codes (D, C) of what (D, C) adds up to along its first dim."""
    D, C = codes.shape
    if (np.diff(codes.numpy(), axis=1) != 1 << _CHANNEL).any():
        raise NoRule("sampling: cumsum must be of rows whose channels are computed together")
    summed = _joined(graph, codes[:, :1].numpy(), C)
    total = Pointwise(C, (D, 1), "add", [summed], 1.0)
    total.pieces.append(Piece(total, 0, C, np.arange(-1, D - 1, dtype=np.int32)[:, None]))
    graph.loops.append((len(graph.nodes), len(graph.nodes) + 1))
    graph.by_pixels = True
    return _code(graph, graph.add(total), torch.arange(C), torch.arange(D)[:, None])
