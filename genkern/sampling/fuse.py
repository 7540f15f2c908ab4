"""Nodes into stages: a product, and the pointwise nodes that take its channels as they come.

A stage has units; every value in it is one or several registers of that many channels. What a
stage keeps to itself is never stored.
"""

from dataclasses import dataclass, field
from math import gcd

import numpy as np

from genkern.sampling.graph import Lookup, Node, Piece, PlaceProduct, Pointwise, Product, identity
from genkern.sampling.plan import Plan

MOST_PARTS = 8


@dataclass(eq=False)
class Stage:
    """Nodes that are computed together, at the same places of the same steps."""

    units: int
    is_scan: bool
    nodes: list[Node] = field(default_factory=list)


def stages_of(plan: Plan) -> tuple[list[Stage], set[Node]]:
    """The stages, and the nodes that others read from the caches."""
    return _Fusion(plan).run()


class _Fusion:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stages: list[Stage] = []
        self.of: dict[Node, int] = {}
        self.stored = {piece.node for piece in plan.output.pieces}

    def run(self) -> tuple[list[Stage], set[Node]]:
        units = self._units()
        for members in self.plan.stages:
            if self.plan.batches[members[0]].waves is not None:  # wave by wave: together
                width = gcd(*(units[node] for node in members))
                self._add(Stage(width, is_scan=True), members)
                continue
            for node in members:
                index = self._host(node)
                if index is None:
                    self._add(Stage(units[node], is_scan=False), [node])
                else:
                    self.stages[index].nodes.append(node)
                    self.of[node] = index
        for node in self.of:
            for piece in pieces_of(node):
                if not self._is_inside(node, piece):
                    self.stored.add(piece.node)
        return self.stages, self.stored

    def _add(self, stage: Stage, nodes: list[Node]) -> None:
        stage.nodes = list(nodes)
        self.of |= dict.fromkeys(nodes, len(self.stages))
        self.stages.append(stage)

    def _units(self) -> dict[Node, int]:
        """Channels of a register of each node: what is taken of it begins and ends at registers."""
        found = {node: node.channels for members in self.plan.stages for node in members}
        for node in reversed(found):  # a gate's halves, then the sum that it reads, then its terms
            if isinstance(node, Pointwise):
                for piece in node.pieces:
                    if piece.node in found and is_identity(piece):
                        own = gcd(piece.start, piece.length, found[node])
                        found[piece.node] = gcd(found[piece.node], own)
        for node, units in found.items():
            if node.channels // units > MOST_PARTS:
                found[node] = node.channels
        return found

    def _host(self, node: Node) -> int | None:
        """The stage that a pointwise node joins."""
        if not isinstance(node, Pointwise) or isinstance(node, Lookup):
            return None
        latest = max((self.of.get(piece.node, -1) for piece in node.pieces), default=-1)
        if latest < 0:
            return None
        stage = self.stages[latest]
        if stage.is_scan or node.channels % stage.units or not self._same(node, stage):
            return None
        for piece in node.pieces:
            inside = self.of.get(piece.node) == latest
            if inside and not (is_identity(piece) and self._aligned(piece, stage)):
                return None
        return latest

    def _same(self, node: Node, stage: Stage) -> bool:
        mine, its = self.plan.batches[node], self.plan.batches[stage.nodes[0]]
        if mine is its:
            return True
        return np.array_equal(mine.places, its.places) and np.array_equal(mine.ends, its.ends)

    def _aligned(self, piece: Piece, stage: Stage) -> bool:
        return piece.start % stage.units == 0 and piece.length % stage.units == 0

    def _is_inside(self, node: Node, piece: Piece) -> bool:
        own = self.of[node]
        return (
            isinstance(node, Pointwise) and self.of.get(piece.node) == own and is_identity(piece)
            and self._aligned(piece, self.stages[own])
        )  # fmt: skip


def pieces_of(node: Node) -> list[Piece]:
    if isinstance(node, Product):
        return [term.piece for term in node.terms]
    if isinstance(node, PlaceProduct):
        return [piece for reach in node.reaches for piece in reach.pieces]
    return node.pieces if isinstance(node, Pointwise) else []


def is_identity(piece: Piece) -> bool:
    whole = identity(piece.node.grid)
    return piece.table is whole or np.array_equal(piece.table, whole)


class Registers:
    """Which registers of a stage hold what."""

    def __init__(self, stage: Stage) -> None:
        self.units = stage.units
        self.first: dict[Node, int] = {}
        self.count = 4  # what is loaded for an operation

    def take(self, node: Node) -> int:
        self.first[node] = self.count
        self.count += node.channels // self.units
        return self.first[node]

    def temporary(self, index: int) -> int:
        return index
