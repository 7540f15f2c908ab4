"""LSTM cells whose state comes from other places of the image."""

import torch

from genkern.sampling.graph import (
    Constant,
    Graph,
    Node,
    Piece,
    Pointwise,
    Product,
    Table,
    Term,
    View,
    identity,
)  # fmt: skip

_O, _F, _I, _G = range(4)


class Cells:
    """c and h at every place, of gates that a product of other places' h adds to.

    Args:
        graph: their nodes are added to it; the product, which reads places of earlier steps, comes
            before the gates, so that these may take its sums as they come.
        gates: (4h, H, W), in the order o, f, i, g.
    """

    def __init__(self, graph: Graph, gates: View, *, early: bool) -> None:
        self.graph, self.gates, self.grid = graph, gates, gates.grid
        self.hidden = gates.channels // 4
        parts = [gates.narrow(q * self.hidden, self.hidden) for q in range(4)]
        ends = sorted({end for part in parts for end in part.ends()})
        self.ranges = list(zip([0, *ends[:-1]], ends, strict=True))
        self.c = [Pointwise(end - begin, self.grid, "cell") for begin, end in self.ranges]
        self.h = [Pointwise(end - begin, self.grid, "state") for begin, end in self.ranges]
        self.first = len(graph.nodes)
        if early:
            self.first = min(graph.nodes.index(piece.node) for piece in gates.pieces)
        self.product = Product(4 * self.hidden, self.grid, [])

    def insert(self, *nodes: Node) -> int:
        """Before the gates; where they end."""
        self.graph.nodes[self.first : self.first] = nodes
        return self.first + len(nodes)

    def add_taps(
        self, table: Table, weight: torch.Tensor, start: tuple[Constant, Table] | None
    ) -> None:
        """weight (4h, h) times h at a table, and times a start state at another."""
        for (begin, end), node in zip(self.ranges, self.h, strict=True):
            piece = Piece(node, 0, node.channels, table)
            self.product.terms.append(Term(piece, weight[:, begin:end]))
        if start is not None:
            state, places = start
            self.product.terms.append(Term(Piece(state, 0, self.hidden, places), weight))

    def close(self, table: Table, start: tuple[Constant, Table] | None) -> View:
        """The cells, whose c comes from a table and from a start state at another; h."""
        add, whole, previous = self.graph.add, identity(self.grid), []
        for (begin, end), node in zip(self.ranges, self.c, strict=True):
            before = Piece(node, 0, end - begin, table)
            if start is not None:
                pieces = [before, Piece(start[0], begin, end - begin, start[1])]
                summed = add(Pointwise(end - begin, self.grid, "add", pieces, 1.0))
                before = Piece(summed, 0, end - begin, whole)
            previous.append(before)
        for i, (begin, end) in enumerate(self.ranges):
            gates = [self._gate(q, begin, end) for q in range(4)]
            self.c[i].pieces = [gates[_F], gates[_I], gates[_G], previous[i]]
            add(self.c[i])
            self.h[i].pieces = [gates[_O], Piece(self.c[i], 0, end - begin, whole)]
            add(self.h[i])
        return View([Piece(h, 0, h.channels, whole) for h in self.h], self.grid)

    def _gate(self, q: int, begin: int, end: int) -> Piece:
        at = q * self.hidden + begin
        own = self.gates.narrow(at, end - begin).pieces[0]
        of_state = Piece(self.product, at, end - begin, identity(self.grid))
        node = Pointwise(end - begin, self.grid, "add", [own, of_state], 1.0)
        return Piece(self.graph.add(node), 0, end - begin, identity(self.grid))


def state_node(state: torch.Tensor) -> Constant:
    """A start state (N, h, 1, W) or (N, h, H, 1)."""
    return Constant(state.shape[1], (state.shape[2], state.shape[3]), state)
