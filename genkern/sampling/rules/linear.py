"""How linear layers over whole images are computed: outputs that see the same inputs together, as
soon as these are there. MADE's layers, by degrees or by a mask that multiplies the weights; NADE's
sums."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from genkern.sampling.elements import Elements, elements_of, settled
from genkern.sampling.graph import Graph, NoRule, View
from genkern.sampling.place_products import kinds_of, place_product, running_sum
from genkern.sampling.record import register_step
from genkern.sampling.rules import aten

_FEW = 8  # outputs of a place at least: lanes of a register
_MOST_WEIGHTS = 2**28


def _linear(graph: Graph, x: Any, weight: torch.Tensor, bias: Any, live: np.ndarray) -> View:
    if isinstance(weight, View) or not isinstance(x, View):
        raise NoRule(
            "sampling: weight and bias of a linear layer must be fixed; got one that depends on "
            "the images"
        )
    own = elements_of(graph, x)
    if own.codes.ndim != 2 or own.batch != 0:
        raise NoRule(
            "sampling: the input of a linear layer must be features (N, inputs); got "
            f"{own.shape_of(graph.images)} with the images in dim {own.batch}"
        )
    weight, codes = weight.detach(), own.codes.numpy()
    patterns, which = kinds_of(live)
    outputs, of = _places(which, len(patterns))
    if outputs.size * live.shape[1] > _MOST_WEIGHTS:
        raise NoRule(f"sampling: a linear layer must have at most {_MOST_WEIGHTS:,} weights")
    chosen = torch.from_numpy(outputs)
    weights = F.pad(weight, (0, 0, 0, 1))[chosen]
    biases = None if bias is None else F.pad(bias.detach(), (0, 1))[chosen]
    made = place_product(graph, codes, weights, patterns[of], biases)
    result = torch.empty(len(weight) + 1, dtype=torch.int64)
    result[chosen] = made
    return settled(graph, result[None, :-1], 0)


def _places(which: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (places, width), those of a place in the same group, filled up with their number;
    and the group of each place."""
    order, sizes = np.argsort(which, kind="stable"), np.bincount(which, minlength=groups)
    most, mean = int(sizes.max()), math.ceil(len(which) / groups)
    width = most if most <= 2 * max(mean, _FEW) else 2 * max(mean, _FEW)
    counts = -(-sizes // width)
    rank = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.repeat(np.cumsum(counts) - counts, sizes) + rank // width
    outputs = np.full((int(counts.sum()), width), len(which))
    outputs[place, rank % width] = order
    return outputs, np.repeat(np.arange(groups), counts)


@register_step("genkern::masked_linear_forward")
def masked_linear(graph: Graph, x: View, weight, bias, in_degrees, out_degrees, strict) -> View:
    seen, sees = in_degrees, out_degrees[:, None]
    live = sees > seen if strict else sees >= seen
    return _linear(graph, x, weight, bias, live.cpu().numpy())


@register_step("aten::mm")
def mm(graph: Graph, x: View, weight: torch.Tensor) -> View:
    return addmm(graph, None, x, weight)


@register_step("aten::addmm")
def addmm(graph: Graph, bias: Any, x: View, weight: torch.Tensor, *, beta=1, alpha=1) -> View:
    """A weight of 0, as of a mask, is not seen."""
    if beta != 1 or alpha != 1 or isinstance(bias, View) or isinstance(weight, View):
        raise NoRule("sampling: a linear layer must have fixed weights")
    return _linear(graph, x, weight.mT, bias, (weight.mT != 0).cpu().numpy())


@register_step("aten::bmm")
def bmm(graph: Graph, x: View, weight: torch.Tensor) -> View:
    """(D, N, I) times (D, I, O)."""
    if not isinstance(x, Elements) or x.batch != 1 or isinstance(weight, View):
        raise NoRule("sampling: bmm must be of features (D, N, I) and fixed weights (D, I, O)")
    codes = x.codes[:, 0].numpy()
    made = place_product(graph, codes, weight.detach().mT, np.ones(codes.shape, bool))
    return settled(graph, made[:, None], 1)


@register_step("aten::mul")
def mul(graph: Graph, x: Any, y: Any) -> View:
    """(N, D, 1) times (D, C): a product for each of the D."""
    x, y = (x, y) if isinstance(x, View) else (y, x)
    if (
        isinstance(x, Elements) and isinstance(y, torch.Tensor) and x.batch == 0
        and x.codes.ndim == 3 and x.codes.shape[2] == 1 < y.shape[-1]
        and y.ndim in (1, 2)
    ):  # fmt: skip
        codes = x.codes[0].numpy()
        weight = y.detach().expand(len(codes), -1)[..., None]
        return settled(graph, place_product(graph, codes, weight, codes >= 0)[None], 0)
    return aten.mul(graph, x, y)


@register_step("aten::cumsum")
def cumsum(graph: Graph, x: View, dim: int, **ignored: Any) -> View:
    if not isinstance(x, Elements) or x.codes.ndim != 3 or (x.batch, dim % 3) != (0, 1):
        raise NoRule("sampling: cumsum must be of features (N, D, C), along D")
    return settled(graph, running_sum(graph, x.codes[0])[None], 0)
