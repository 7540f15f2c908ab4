"""How concat_elu is computed."""

from genkern.sampling.graph import Graph, View, concatenated
from genkern.sampling.record import register_step


@register_step("genkern::concat_elu_forward")
def concat_elu(graph: Graph, x: View, *ignored):
    both = ("elu", "elu_of_minus")
    return concatenated([graph.pointwise(name, x, number=1.0) for name in both])
