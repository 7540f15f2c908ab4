"""What a model computes, as nodes whose channels are computed together, place by place.

A node has the same channels at every place of a grid of H x W places. What a node reads of another
one is a table: for each of its places the place of the other one, row * W + col, or -1 where it
reads zeros. Shifts, padding, crops, strides and enlargements are tables and cost nothing.

    places of a grid of 2 x 3       0 1 2      the tap one row up and      -1 -1 -1
                                    3 4 5      one column to the left      -1  0  1
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from genkern.sampling.functions import check_function


class NoSteps(ValueError):
    """Why a model is not drawn step by step, or not in an order: it may well be drawn otherwise."""


class NoRule(NoSteps):
    """A model has an op, or an op an option, that no rule of `register_step` covers; or it does
    what a tensor without data does not allow."""


class NotCausal(NoSteps):
    """The recorded ops let a pixel see itself or later pixels."""


CPU = torch.device("cpu")
MANY_CONSTANTS = 64  # channels
Grid = tuple[int, int]
Table = np.ndarray  # int32, (H, W)


@dataclass(eq=False)
class Node:
    """``channels`` of every place of ``grid``."""

    channels: int
    grid: Grid

    def reads(self) -> list[tuple["Node", Table]]:
        return []


@dataclass(eq=False)
class Image(Node):
    """Channels of the images, from ``start`` on, that are drawn at once."""

    start: int = 0


@dataclass(eq=False)
class Constant(Node):
    """Does not depend on the images: (N or 1, C, H or 1, W or 1)."""

    value: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(eq=False)
class Piece:
    """Channels [start, start + length) of a node, at the places of a table."""

    node: Node
    start: int
    length: int
    table: Table

    def part(self, begin: int, end: int) -> "Piece":
        return Piece(self.node, self.start + begin, end - begin, self.table)


@dataclass(eq=False)
class Term:
    """Of a product: ``weight`` (C_out, length) times a piece."""

    piece: Piece
    weight: torch.Tensor


@dataclass(eq=False)
class Product(Node):
    """bias + the sum of the terms, in their order."""

    terms: list[Term] = field(default_factory=list)
    bias: torch.Tensor | None = None

    def reads(self) -> list[tuple[Node, Table]]:
        return [(term.piece.node, term.piece.table) for term in self.terms]


@dataclass(eq=False)
class Reach:
    """Channels [start, start + length) of several places of a node, side by side.

    ``table``: (places, count) int32, those that each place reads, -1 where it reads zeros.
    """

    node: Node
    start: int
    length: int
    table: Table

    @property
    def pieces(self) -> list[Piece]:
        parts = np.moveaxis(self.table[:, None], 2, 0)
        return [Piece(self.node, self.start, self.length, part) for part in parts]


@dataclass(eq=False)
class PlaceProduct(Node):
    """A product with weights (places, C_out, factors) and biases (places, C_out) of each place;
    the grid is (places, 1)."""

    reaches: list[Reach] = field(default_factory=list)
    weight: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    bias: torch.Tensor | None = None

    def reads(self) -> list[tuple[Node, Table]]:
        return [(piece.node, piece.table) for reach in self.reaches for piece in reach.pieces]


@dataclass(eq=False)
class Pointwise(Node):
    """A function of one value of each piece, and of a number."""

    function: str = ""
    pieces: list[Piece] = field(default_factory=list)
    number: float = 0.0

    def reads(self) -> list[tuple[Node, Table]]:
        return [(piece.node, piece.table) for piece in self.pieces]


@dataclass(eq=False)
class Lookup(Pointwise):
    """The row of ``rows`` (rows, channels) that the one channel of its piece names."""

    rows: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@functools.cache
def identity(grid: Grid) -> Table:
    H, W = grid
    return np.arange(H * W, dtype=np.int32).reshape(H, W)


def looked_up(outer: Table, inner: Table) -> Table:
    """The places that ``inner`` gives for the places of ``outer``."""
    if inner is identity((inner.shape[0], inner.shape[1])):
        return outer
    flat = np.append(inner.ravel(), np.int32(-1))
    return flat[outer]


@dataclass(eq=False)
class View:
    """A tensor (N, C, H, W) of pieces of nodes, channel after channel."""

    pieces: list[Piece]
    grid: Grid

    @property
    def channels(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def shape_of(self, images: int) -> tuple[int, ...]:
        return (images, self.channels, *self.grid)

    def narrow(self, start: int, length: int) -> "View":
        found, at = [], 0
        for piece in self.pieces:
            begin, end = max(0, start - at), min(piece.length, start + length - at)
            if begin < end:
                found.append(piece.part(begin, end))
            at += piece.length
        return View(found, self.grid)

    def moved(self, table: Table) -> "View":
        """At each place of ``table`` what this view has at the place that it names."""
        found = [Piece(p.node, p.start, p.length, looked_up(table, p.table)) for p in self.pieces]
        return View(found, (table.shape[0], table.shape[1]))

    def ends(self) -> list[int]:
        return list(itertools.accumulate(piece.length for piece in self.pieces))


def concatenated(views: Sequence[View]) -> View:
    return View([piece for view in views for piece in view.pieces], views[0].grid)


class Graph:
    """The nodes in an order in which each comes after what it reads, loops excepted.

    Attributes:
        nodes: all of them.
        loops: (first, last + 1) of nodes that read each other along the places of an image.
        scans: likewise, of loops whose places in a row are computed one after the other.
        images: how many there are.
        device: of the model.
        fault: the exception that a rule raised and that its op would not have.
        tape, follows: of a graph that is kept, how constants follow from conditions: which value
            of the tape each one is.
        by_pixels: whether some loop runs along the rows, so that a step has a pixel of each.
    """

    def __init__(self, images: int = 1, device: torch.device = CPU) -> None:
        self.images, self.device = images, device
        self.fault: Exception | None = None
        self.tape: Any = None
        self.follows: dict[Constant, int] = {}
        self.nodes: list[Node] = []
        self.numbered: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self.loops: list[tuple[int, int]] = []
        self.scans: list[tuple[int, int]] = []
        self.by_pixels = False

    def add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def number(self, node: Node) -> int:
        """Of a node, for good, whatever is put in before it: its place in ``numbered``."""
        if node not in self._numbers:
            self._numbers[node] = len(self.numbered)
            self.numbered.append(node)
        return self._numbers[node]

    def view(self, node: Node) -> View:
        return View([Piece(node, 0, node.channels, identity(node.grid))], node.grid)

    def constant(self, value: torch.Tensor, channels: int, grid: Grid) -> View:
        """A tensor that broadcasts to (N, channels, *grid)."""
        while value.ndim < 4:
            value = value[None]
        value = value.expand(-1, channels, -1, -1)
        return self.view(self.add(Constant(channels, grid, value)))

    def product(
        self, channels: int, grid: Grid, terms: list[Term], bias: torch.Tensor | None = None
    ) -> View:
        return self.view(self.weighted(channels, grid, terms, bias))

    def weighted(
        self, channels: int, grid: Grid, terms: list[Term], bias: torch.Tensor | None = None
    ) -> Node:
        """A product. What it takes of many constants is one of its own, which is known from the
        start: it is computed for whole rows, with their weights read once."""
        _check_product(channels, terms, bias)
        fixed = [term for term in terms if isinstance(term.piece.node, Constant)]
        rest = [term for term in terms if not isinstance(term.piece.node, Constant)]
        if not rest or sum(term.piece.length for term in fixed) < MANY_CONSTANTS:
            return self.add(Product(channels, grid, terms, bias))
        first = self.add(Product(channels, grid, fixed, bias))
        second = self.add(Product(channels, grid, rest))
        pieces = [Piece(node, 0, channels, identity(grid)) for node in (second, first)]
        return self.add(Pointwise(channels, grid, "add", pieces, 1.0))

    def pointwise(self, function: str, *views: View, number: float | None = None) -> View:
        """A function of views with equal channels and grids, node by node.

        Raises:
            ValueError: the function is unknown, takes another number of views, or needs ``number``.
        """
        check_function(function, len(views), number)
        number = 0.0 if number is None else number
        for view in views:
            if hasattr(view, "pointwise"):  # `Elements`
                return view.pointwise(self, function, views, number)
        if len({(view.channels, view.grid) for view in views}) > 1:
            got = ", ".join(f"({view.channels}, {view.grid})" for view in views)
            text = "graph.pointwise: views must have equal channels and grids"
            raise ValueError(f"{text}; got {got}")
        ends = sorted({end for view in views for end in view.ends()})
        found = []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            pieces = [view.narrow(begin, end - begin).pieces[0] for view in views]
            node = Pointwise(end - begin, views[0].grid, function, pieces, number)
            found.append(self.view(self.add(node)))
        return concatenated(found)


def _check_product(channels: int, terms: list[Term], bias: torch.Tensor | None) -> None:
    """A weight of another shape would read memory that is not its own."""
    for i, term in enumerate(terms):
        shape, expected = tuple(term.weight.shape), (channels, term.piece.length)
        if shape != expected:
            text = f"graph.product: the weight of term {i} must have shape {expected}"
            raise ValueError(f"{text}; got {shape}")
    if bias is not None and tuple(bias.shape) != (channels,):
        text = f"graph.product: bias must have shape ({channels},)"
        raise ValueError(f"{text}; got {tuple(bias.shape)}")
