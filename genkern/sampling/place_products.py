"""Products of elements that have weights of their own at each place, and running sums."""

import numpy as np
import torch

from genkern.sampling.elements import CHANNEL, CHANNELS, NODE, PLACES, code_of, joined
from genkern.sampling.graph import Graph, Node, NoRule, Piece, PlaceProduct, Pointwise, Reach


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
    live = live & (codes & PLACES > 0)
    reaches, weights = [], [weight[:, :, :0]]
    for number in np.unique(codes[live] >> NODE).tolist():
        own = live & (codes >> NODE == number)
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
    return code_of(graph, graph.add(node), torch.arange(C_out), torch.arange(R)[:, None])


def _reach(node: Node, codes: np.ndarray, own: np.ndarray) -> tuple[Reach, np.ndarray]:
    """What rows (R, K) read of a node, and which factor of it each element is."""
    places, channels = np.where(own, (codes & PLACES) - 1, 0), (codes >> CHANNEL) & CHANNELS
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
    if (np.diff(codes.numpy(), axis=1) != 1 << CHANNEL).any():
        raise NoRule("sampling: cumsum must be of rows whose channels are computed together")
    summed = joined(graph, codes[:, :1].numpy(), C)
    total = Pointwise(C, (D, 1), "add", [summed], 1.0)
    total.pieces.append(Piece(total, 0, C, np.arange(-1, D - 1, dtype=np.int32)[:, None]))
    graph.loops.append((len(graph.nodes), len(graph.nodes) + 1))
    graph.by_pixels = True
    return code_of(graph, graph.add(total), torch.arange(C), torch.arange(D)[:, None])
