"""Normalisation: by fixed statistics an affine map; by those of an image nothing that is causal."""

from collections.abc import Callable

import torch

from genkern.sampling.graph import Graph, NoRule, View
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import add, mul
from genkern.sampling.rules.channels import sees_all


def _normalised(graph: Graph, x: View, weight, bias, mean, variance, eps: float) -> list[View]:
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    found = add(graph, mul(graph, x, scale[:, None, None]), shift[:, None, None])
    nothing = View([], (0, 0))  # what the backward pass keeps
    return [found, nothing, nothing]


@register_step("aten::_native_batch_norm_legit_no_training")
def batch_norm_of_running(graph: Graph, x: View, weight, bias, mean, variance, momentum, eps):
    return _normalised(graph, x, weight, bias, mean, variance, eps)


@register_step("aten::native_batch_norm")
def batch_norm(graph: Graph, x: View, weight, bias, mean, variance, training, momentum, eps):
    if training or mean is None:
        raise sees_all("a norm by the statistics of the batch or of an image")
    return _normalised(graph, x, weight, bias, mean, variance, eps)


def _refused(what: str) -> Callable[..., View]:
    def rule(*ignored, **also) -> View:
        raise sees_all(what)

    return rule


for _op, _name in (
    ("native_group_norm", "group norm"),
    ("adaptive_avg_pool2d", "a mean over pixels"),
    ("_adaptive_avg_pool2d", "a mean over pixels"),
):
    register_step(f"aten::{_op}", _refused(_name))
register_step("genkern::instance_norm_act_forward", _refused("instance norm"))


def _random(*ignored, **also) -> torch.Tensor:
    raise NoRule("sampling: dropout must be off; call F.dropout(x, training=self.training)")


for _op in ("native_dropout", "bernoulli", "empty_like"):  # the first thing that each form does
    register_step(f"aten::{_op}", _random)
