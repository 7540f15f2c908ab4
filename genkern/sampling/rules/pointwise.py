"""How further activations of torch, choices between two values and `bias_act` are computed."""

import math
from typing import Any

import torch

from genkern.ops.bias_act import ACTIVATIONS
from genkern.sampling.graph import Graph, NoRule, View
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import add, aligned, elu, mul

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@register_step("aten::gelu")
def gelu(graph: Graph, x: View, *, approximate: str = "none") -> View:
    if approximate == "none":
        return graph.pointwise("gelu", x)
    cube = graph.pointwise("mul", x, graph.pointwise("mul", x, x))
    inner = graph.pointwise("add", x, cube, number=0.044715)
    inner = graph.pointwise("mul_number", inner, number=math.sqrt(2 / math.pi))
    half = graph.pointwise("mul_number", x, number=0.5)
    return graph.pointwise("add", half, mul(graph, half, graph.pointwise("tanh", inner)), number=1)


@register_step("aten::_prelu_kernel")
def prelu(graph: Graph, x: View, weight: torch.Tensor) -> View:
    below = mul(graph, clamp(graph, x, None, 0.0), weight)
    return graph.pointwise("add", graph.pointwise("relu", x), below, number=1.0)


@register_step("aten::softplus")
def softplus(graph: Graph, x: View, beta: float = 1, threshold: float = 20) -> View:
    found = graph.pointwise("softplus", mul(graph, x, float(beta)), number=float(threshold))
    return mul(graph, found, 1 / beta)


def clamp(graph: Graph, x: View, least: Any = None, most: Any = None) -> View:
    for name, limit in (("at_least", least), ("at_most", most)):
        if isinstance(limit, (torch.Tensor, View)):
            raise NoRule("sampling: clamp must have numbers as its limits")
        if limit is not None:
            x = graph.pointwise(name, x, number=float(limit))
    return x


for _op in ("clamp", "clip", "hardtanh"):
    register_step(f"aten::{_op}", clamp)
register_step("aten::clamp_min", lambda graph, x, least: clamp(graph, x, least))
register_step("aten::clamp_max", lambda graph, x, most: clamp(graph, x, None, most))


@register_step("aten::pow")
def power(graph: Graph, x: View, exponent: Any) -> View:
    if exponent != 2:
        raise NoRule(f"sampling: the exponent of pow must be 2; got {exponent}")
    return graph.pointwise("mul", x, x)


@register_step("aten::where")
def where(graph: Graph, condition: Any, x: Any, y: Any) -> View:
    """Of a condition that does not depend on the images."""
    if isinstance(condition, View):
        raise NoRule("sampling: the condition of where must not depend on the images")
    parts = (condition.to(torch.get_default_dtype()), x, y)
    return graph.pointwise("select", *aligned(graph, *parts))


@register_step("aten::masked_fill")
def masked_fill(graph: Graph, x: View, mask: torch.Tensor, value: Any) -> View:
    return where(graph, mask, torch.as_tensor(value), x)


def _act(graph: Graph, x: View, act: str, alpha: float) -> View:
    if act == "linear":
        return x
    if act == "lrelu":
        return graph.pointwise("leaky_relu", x, number=alpha)
    if act == "elu":
        return elu(graph, x)
    if act == "selu":
        return elu(graph, x, _SELU_ALPHA, _SELU_SCALE)
    number = math.inf if act == "softplus" else None
    return graph.pointwise("silu" if act == "swish" else act, x, number=number)


@register_step("genkern::bias_act_forward")
def bias_act(graph: Graph, x: View, bias, act, alpha, gain, limit, dim, *ignored) -> View:
    if bias is not None:
        if dim != 1:
            raise NoRule(f"sampling: the bias of bias_act must be along dim 1; got {dim}")
        x = add(graph, x, bias[:, None, None])
    x = mul(graph, _act(graph, x, ACTIVATIONS[act], float(alpha)), float(gain))
    return x if limit is None else clamp(graph, x, -limit, limit)
