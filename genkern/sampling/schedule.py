"""When each place of each node is computed, and where it is kept.

Steps draw places of the images. A node is computed at a place as late as something needs it, but a
whole row at once where the row can be known by then: what sees rows above alone, the vertical stack
of a Gated PixelCNN for instance, then is one product a row. Values are kept until their last use:
in as many rows as are needed at a time (a ring), or for a step.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from genkern.sampling.graph import Constant, Graph, Image, Node, NoSteps, View, identity

NEVER = np.iinfo(np.int32).max
Times = dict[Node, np.ndarray]  # of each place, flat; of what a table does not name, -1, at the end


class Order(NamedTuple):
    """In which step each image node is drawn at each place, (H, W) int32, and how many leading
    steps are given."""

    drawn: dict[Node, np.ndarray]
    given: int


def known(graph: Graph, order: Order) -> Times:
    """The first step at which each place of each node can be computed."""
    times: Times = {}
    for node in graph.nodes:
        times[node] = np.zeros(node.grid[0] * node.grid[1] + 1, np.int32)
        if isinstance(node, Image):
            drawn = order.drawn[node].ravel()
            times[node][:-1] = np.where(drawn < order.given, 0, drawn + 1)
    for first, last, is_scan in parts(graph):
        while any([_know(graph, i, times, last, is_scan) for i in range(first, last)]):
            if last - first == 1:
                break
    return times


def parts(graph: Graph) -> Iterator[tuple[int, int, bool]]:
    """Ranges of nodes: loops, whether each is a scan, and single nodes."""
    ranges = dict(graph.loops) | dict(graph.scans)
    scans, i = dict(graph.scans), 0
    while i < len(graph.nodes):
        last = ranges.get(i, i + 1)
        yield i, last, i in scans
        i = last


def _know(graph: Graph, i: int, times: Times, last: int, is_scan: bool) -> bool:
    """Updates one node; whether it changed."""
    node, changed = graph.nodes[i], False
    for source, table in node.reads():
        late = times[source][:-1] if is_whole(source, table) else times[source][table.ravel()]
        if not is_scan and source in graph.nodes[i:last]:
            late = np.where(table.ravel() < 0, 0, late + 1)
        if (late > times[node][:-1]).any():
            np.maximum(times[node][:-1], late, out=times[node][:-1])
            changed = True
    return changed


def needed(graph: Graph, order: Order, output: View, due: np.ndarray, known: Times) -> Times:
    """The step in which each place of each node is computed, or `NEVER`.

    Args:
        due: of each channel of the output, (P, H, W): the step that needs it.

    Raises:
        ValueError: something is needed before it can be known.
    """
    times = {node: np.full_like(known[node], NEVER) for node in graph.nodes}
    at = 0
    for piece in output.pieces:
        soonest = due[at : at + piece.length].min(axis=0).ravel()
        np.minimum.at(times[piece.node], piece.table.ravel(), soonest)
        at += piece.length
    for first, last, is_scan in reversed(list(parts(graph))):
        before = None
        while True:
            _need(graph, first, last, is_scan, times, known)
            after = [times[node].copy() for node in graph.nodes[first:last]]
            if last - first == 1 or (
                before is not None
                and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
            ):
                break
            before = after
    return times


def _need(graph: Graph, first: int, last: int, is_scan: bool, times: Times, known: Times) -> None:
    members = graph.nodes[first:last]
    if is_scan:  # all of its nodes are computed together
        soonest = np.minimum.reduce([times[node] for node in members])
        latest = np.maximum.reduce([known[node] for node in members])
        for node in members:
            times[node][:], known[node][:] = soonest, latest
    for i in range(last - 1, first - 1, -1):
        node = graph.nodes[i]
        if isinstance(node, (Image, Constant)):
            continue
        _by_rows(node, times[node], known[node])
        for source, table in node.reads():
            soonest = times[node][:-1]
            if not is_scan and source in graph.nodes[i:last]:
                soonest = np.where(soonest == NEVER, NEVER, soonest - 1)
            if is_whole(source, table):
                np.minimum(times[source][:-1], soonest, out=times[source][:-1])
            else:
                np.minimum.at(times[source], table.ravel(), soonest)


def is_whole(source: Node, table: np.ndarray) -> bool:
    """Whether each place reads the same place."""
    return table is identity(source.grid)


def _by_rows(node: Node, times: np.ndarray, known: np.ndarray) -> None:
    """Takes the rows together that can be; refuses what cannot be known in time."""
    times[-1] = NEVER
    soonest, earliest = times[:-1].reshape(node.grid), known[:-1].reshape(node.grid)
    if (earliest > soonest).any():
        raise NoSteps("sampling: the parameters of a pixel depend on pixels drawn after it")
    used, first = soonest != NEVER, soonest.min(axis=1, initial=NEVER)
    whole = np.where(used, earliest, 0).max(axis=1, initial=0) <= first
    if whole.any():
        np.copyto(soonest, first[:, None], where=used & whole[:, None])


class Batches:
    """The places of a node in the order in which they are computed.

    Attributes:
        places: of all steps, one after the other.
        ends: (steps + 1,): those of step k are places[ends[k] : ends[k + 1]].
        waves: None, or, of a scan, the depth of each place within its step: what reads a place of
            the same step comes in a later wave.
    """

    def __init__(self, times: np.ndarray, steps: int, waves: np.ndarray | None = None) -> None:
        keys = (times[:-1],) if waves is None else (waves, times[:-1])
        order = np.lexsort(keys)
        self.places = order[: int((times[:-1] != NEVER).sum())].astype(np.int32)
        self.ends = np.searchsorted(times[:-1][self.places], np.arange(steps + 1))
        self.waves = None if waves is None else waves[self.places]


def waves_of(members: list[Node], times: np.ndarray) -> np.ndarray:
    """How many places of the same step each place of a scan has to wait for."""
    depth = np.zeros(len(times), np.int32)
    tables = [t.ravel() for node in members for source, t in node.reads() if source in members]
    own = times[:-1]
    while True:
        found = depth[:-1]
        for table in tables:
            same = (table >= 0) & (table != np.arange(len(table))) & (times[table] == own)
            found = np.maximum(found, np.where(same & (own != NEVER), depth[table] + 1, 0))
        if np.array_equal(found, depth[:-1]):
            return found
        depth[:-1] = found


class Slots(NamedTuple):
    """Where the places of a node are kept: ``at`` (places + 1,) int32, and how many slots there
    are. Slot ``number``, which the last one names, is always zero."""

    at: np.ndarray
    number: int


def slots_of(node: Node, times: np.ndarray, last_use: np.ndarray, batches: Batches) -> Slots:
    """In a ring of rows, or, where all use is in the step itself, in the order of its places."""
    H, W = node.grid
    used, at = times[:-1] != NEVER, np.zeros(H * W + 1, np.int32)
    if batches.waves is None and (last_use[:-1] <= times[:-1])[used].all():
        sizes = np.diff(batches.ends)
        place = np.arange(len(batches.places)) - np.repeat(batches.ends[:-1], sizes)
        at[batches.places] = place
        count = int(sizes.max(initial=0))
    else:
        rows = _ring(times[:-1].reshape(H, W), last_use[:-1].reshape(H, W))
        at[:-1] = ((np.arange(H) % rows)[:, None] * W + np.arange(W)).ravel()
        count = rows * W
    at[-1] = count
    return Slots(at, count)


def _ring(times: np.ndarray, last_use: np.ndarray) -> int:
    """The least number of rows of which each place has been used before it is written again."""
    H = len(times)
    busy = np.where(times == NEVER, -1, np.maximum(last_use, times))
    for rows in range(1, H):
        if (busy[:-rows] < times[rows:]).all():
            return rows
    return max(H, 1)


def last_uses(
    graph: Graph, output: View, order: Order, times: Times, due: Callable[[int], np.ndarray]
) -> Times:
    """The last step that reads each place of each node."""
    found = {node: np.full_like(times[node], -1) for node in graph.nodes}
    for node in graph.nodes:
        at = np.where(times[node][:-1] == NEVER, -1, times[node][:-1])
        for source, table in node.reads():
            if is_whole(source, table):
                np.maximum(found[source][:-1], at, out=found[source][:-1])
            else:
                np.maximum.at(found[source], table.ravel(), at)
    start = 0
    for piece in output.pieces:
        np.maximum.at(found[piece.node], piece.table.ravel(), due(start))
        start += piece.length
    return found
