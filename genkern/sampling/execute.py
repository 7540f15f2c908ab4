"""The steps of a plan in plain PyTorch: what the compiled engine is compared with."""

import numpy as np
import torch

from genkern.sampling.functions import FUNCTIONS
from genkern.sampling.graph import (
    Constant,
    Image,
    Lookup,
    Node,
    Piece,
    PlaceProduct,
    Pointwise,
    Product,
)
from genkern.sampling.plan import Plan


class Execution:
    """The caches of a batch, and the step that comes next.

    Args:
        plan: of the model.
        images: (N, C, H, W), network inputs.
    """

    def __init__(self, plan: Plan, images: torch.Tensor) -> None:
        self.plan, self.images = plan, images
        N, _, H, W = images.shape
        self.N, self.next = N, 0
        self.caches: dict[Node, torch.Tensor] = {}
        for node in plan.graph.nodes:
            if isinstance(node, Constant):
                continue
            slots = H * W if isinstance(node, Image) else plan.slots(node).number
            self.caches[node] = images.new_zeros(slots + 1, N, node.channels)
        for c, colour in enumerate(plan.colours):
            self.caches[colour.node][:-1, :, colour.start] = images[:, c].flatten(1).T
        self.weights = {
            node: torch.cat([term.weight for term in node.terms], dim=1)
            for node in plan.graph.nodes
            if isinstance(node, Product) and node.terms
        }

    @property
    def cache_bytes(self) -> int:
        return sum(cache.numel() * cache.element_size() for cache in self.caches.values())

    def read(self, piece: Piece, places: np.ndarray) -> torch.Tensor:
        """(places, N, length)"""
        channels = slice(piece.start, piece.start + piece.length)
        if isinstance(piece.node, Constant):
            return self._constant(piece.node, piece.table.ravel()[places])[..., channels]
        slots = self.plan.slots_read(piece.node, piece.table)[places]
        return self.caches[piece.node][torch.from_numpy(slots.astype(np.int64))][..., channels]

    def _constant(self, node: Constant, at: np.ndarray) -> torch.Tensor:
        value = node.value.to(self.images.dtype).expand(-1, -1, *node.grid).flatten(2)
        padded = torch.cat([value, torch.zeros_like(value[..., :1])], dim=2)
        found = padded[..., torch.from_numpy(at.astype(np.int64))].permute(2, 0, 1)
        return found.expand(-1, self.N, -1)

    def compute(self, node: Node, places: np.ndarray) -> None:
        if isinstance(node, Product):
            found = self.images.new_zeros(len(places), self.N, node.channels)
            if node.terms:
                factors = [self.read(term.piece, places) for term in node.terms]
                found = torch.cat(factors, dim=2) @ self.weights[node].to(found.dtype).T
            if node.bias is not None:
                found = found + node.bias
        elif isinstance(node, PlaceProduct):
            found = self._by_place(node, places)
        elif isinstance(node, Lookup):
            found = node.rows.to(self.images.dtype)[
                self.read(node.pieces[0], places)[..., 0].long()
            ]
        else:
            assert isinstance(node, Pointwise)
            values = [self.read(piece, places) for piece in node.pieces]
            found = FUNCTIONS[node.function](node.number, *values)
        slots = self.plan.slots(node).at[places]
        self.caches[node][torch.from_numpy(slots.astype(np.int64))] = found

    def _by_place(self, node: PlaceProduct, places: np.ndarray) -> torch.Tensor:
        parts = [piece for reach in node.reaches for piece in reach.pieces]
        at = torch.from_numpy(places.astype(np.int64))
        factors = self.images.new_zeros(len(places), self.N, 0)
        factors = torch.cat([factors, *(self.read(piece, places) for piece in parts)], dim=2)
        found = factors @ node.weight[at].to(factors.dtype).mT
        return found if node.bias is None else found + node.bias[at][:, None]

    def step(self) -> None:
        """Computes what the next step needs."""
        k = self.next
        for stage in self.plan.stages:
            batches = self.plan.batches[stage[0]]
            chosen = slice(batches.ends[k], batches.ends[k + 1])
            places = batches.places[chosen]
            waves = np.zeros(len(places), int) if batches.waves is None else batches.waves[chosen]
            for wave in range(int(waves.max(initial=-1)) + 1):
                for node in stage:
                    self.compute(node, places[waves == wave])
        self.next += 1

    def output(self, places: np.ndarray, channels: range) -> torch.Tensor:
        """(N, channels, places) of the model's output."""
        pieces = self.plan.output.narrow(channels.start, len(channels)).pieces
        return torch.cat([self.read(piece, places) for piece in pieces], dim=2).permute(1, 2, 0)

    def accept(self, places: np.ndarray, colours: range, inputs: torch.Tensor) -> None:
        first, at = self.plan.colours[colours.start], torch.from_numpy(places.astype(np.int64))
        channels = slice(first.start, first.start + len(colours))
        self.caches[first.node][at, :, channels] = inputs.permute(2, 0, 1)
