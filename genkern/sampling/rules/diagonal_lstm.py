"""How a diagonal LSTM is computed: left to right with the pixels, or right to left a row at a time,
as soon as something needs the row."""

import numpy as np

from genkern.sampling.graph import Graph, View
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import tap
from genkern.sampling.rules.cells import Cells, state_node


@register_step("genkern::diagonal_lstm_forward")
def diagonal_lstm(graph: Graph, gates: View, weight_hh, h0=None, c0=None, reverse=False, *ignored):
    H, W = gates.grid
    cells = Cells(graph, gates, early=False)
    begins = np.arange(W)[None] == (W - 1 if reverse else 0)
    of_start = np.where(begins, np.arange(H)[:, None], -1).astype(np.int32)
    starts = [None if s is None else (state_node(s[:, :, :, None]), of_start) for s in (h0, c0)]
    side = tap((H, W), (H, W), 0, 1 if reverse else -1)
    cells.add_taps(tap((H, W), (H, W), -1, 0), weight_hh[:, :, 0], None)
    cells.add_taps(side, weight_hh[:, :, 1], starts[0])
    for start in starts:
        if start is not None:
            graph.add(start[0])
    first = len(graph.nodes)
    graph.add(cells.product)
    h = cells.close(side, starts[1])
    (graph.scans if reverse else graph.loops).append((first, len(graph.nodes)))
    graph.by_pixels |= not reverse
    nothing = View([], (0, 0))  # what the backward pass keeps
    return [h, nothing, nothing]
