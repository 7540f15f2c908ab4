"""How a gated activation is computed."""

from genkern.sampling.graph import Graph, View
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import add


@register_step("genkern::gated_activation_forward")
def gated_activation(graph: Graph, x: View, condition=None, *ignored):
    if condition is not None:
        if not isinstance(condition, View) and condition.ndim == 2:
            condition = condition[:, :, None, None]
        x = add(graph, x, condition)
    half = x.channels // 2
    return graph.pointwise("gated", x.narrow(0, half), x.narrow(half, half))
