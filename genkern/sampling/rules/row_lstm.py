"""How a Row LSTM is computed: what the state above adds to the gates is a product of a row."""

import numpy as np

from genkern.sampling.graph import Graph, View
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import tap
from genkern.sampling.rules.cells import Cells, state_node


@register_step("genkern::row_lstm_forward")
def row_lstm(graph: Graph, gates: View, weight_hh, h0=None, c0=None, *ignored):
    (H, W), k = gates.grid, weight_hh.shape[2]
    cells = Cells(graph, gates, early=True)
    states = [None if s is None else state_node(s[:, :, None]) for s in (h0, c0)]

    def start(state, column):
        """Of the first row: the state above it, ``column`` columns on."""
        if state is None:
            return None
        top = np.arange(H)[:, None] == 0
        return state, np.where(top, tap((1, W), (1, W), 0, column), -1).astype(np.int32)

    for v in range(k):
        column = v - k // 2
        above = tap((H, W), (H, W), -1, column)
        cells.add_taps(above, weight_hh[:, :, v], start(states[0], column))
    cells.insert(*(state for state in states if state is not None), cells.product)
    h = cells.close(tap((H, W), (H, W), -1, 0), start(states[1], 0))
    graph.loops.append((cells.first, len(graph.nodes)))
    nothing = View([], (0, 0))  # h_n, c_n and what the backward pass keeps
    return [h, nothing, nothing, nothing, nothing]
