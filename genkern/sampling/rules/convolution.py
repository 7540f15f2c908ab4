"""How convolutions are computed: their live taps, a node for outputs that see the same."""

import numpy as np
import torch

from genkern.sampling.graph import Graph, Node, NoRule, Piece, View, identity
from genkern.sampling.place_products import kinds_of
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import tap, terms_of

_MOST_KINDS = 8  # of outputs: more are no colours, but weights that happen to be 0


@register_step("aten::convolution")
def convolution(graph, x, weight, bias, stride, padding, dilation, transposed, extra, groups):
    if not isinstance(x, View) or isinstance(weight, View):
        raise NoRule("sampling: a convolution must be of features, with a fixed kernel")
    if groups != 1 or len(set(stride)) > 1 or len(set(dilation)) > 1:
        raise NoRule(
            "sampling: a convolution must have one group, and a stride and a dilation that are the "
            f"same along both dims; got {groups}, {tuple(stride)} and {tuple(dilation)}"
        )
    if transposed:
        return _transposed(graph, x, weight, bias, stride, padding, dilation, extra)
    (step, _), (apart, _) = stride, dilation
    kh, kw = weight.shape[2:]
    reach = [(apart * (k - 1)) for k in (kh, kw)]
    size = [(g + 2 * p - r - 1) // step + 1 for g, p, r in zip(x.grid, padding, reach, strict=True)]
    at = {(u, v): (u * apart - padding[0], v * apart - padding[1])
          for u in range(kh) for v in range(kw)}  # fmt: skip
    tables = {tap_: tap(x.grid, (size[0], size[1]), *off, step) for tap_, off in at.items()}
    nodes = []
    kinds, which = _kinds(weight)
    for k, live in enumerate(kinds):
        rows = slice(None) if len(kinds) == 1 else torch.from_numpy((which == k).nonzero()[0])
        of, own = weight[rows], None if bias is None else bias[rows]
        terms = [
            term
            for (u, v), table in tables.items()
            for begin, end in _runs(live[:, u, v])
            for term in terms_of(x.narrow(begin, end - begin), table, of[:, begin:end, u, v])
        ]
        nodes.append(graph.weighted(len(of), (size[0], size[1]), terms, own))
    return _in_order(nodes, which, (size[0], size[1]))


def _kinds(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The different (C_in, kh, kw) that outputs see, and which of them each output does: what a
    mask has set to 0 is not seen."""
    every, shape = np.zeros(len(weight), np.int64), tuple(weight.shape[1:])
    if weight.all():
        return np.ones((1, *shape), bool), every
    live = (weight != 0).cpu().numpy()
    kinds, which = kinds_of(live.reshape(len(live), -1))
    if len(kinds) > _MOST_KINDS:
        return np.broadcast_to(live.any((0, 1)), (1, *shape)), every
    return kinds.reshape(-1, *shape), which


def _runs(live: np.ndarray) -> list[tuple[int, int]]:
    """The ranges of what is True."""
    if live.all():
        return [(0, len(live))]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], live, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _in_order(nodes: list[Node], which: np.ndarray, grid: tuple[int, int]) -> View:
    """Outputs that are the next channels of the node which[output], those side by side as one
    piece."""
    if len(nodes) == 1:
        return View([Piece(nodes[0], 0, len(which), identity(grid))], grid)
    pieces, taken = [], [0] * len(nodes)
    ends = np.flatnonzero(np.diff(which, append=-1)) + 1
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        k, length = which[begin], end - begin
        pieces.append(Piece(nodes[k], taken[k], length, identity(grid)))
        taken[k] += length
    return View(pieces, grid)


def _transposed(graph: Graph, x: View, weight, bias, stride, padding, dilation, extra):
    _, C_out, kh, kw = weight.shape
    size = [
        (g - 1) * s - 2 * p + d * (k - 1) + e + 1
        for g, s, p, d, k, e in zip(x.grid, stride, padding, dilation, (kh, kw), extra, strict=True)
    ]
    terms = []
    for u in range(kh):
        for v in range(kw):
            rows = _origins(size[0], x.grid[0], stride[0], padding[0] - u * dilation[0])
            columns = _origins(size[1], x.grid[1], stride[1], padding[1] - v * dilation[1])
            both = (rows >= 0)[:, None] & (columns >= 0)[None]
            table = np.where(both, rows[:, None] * x.grid[1] + columns, -1).astype(np.int32)
            terms += terms_of(x, table, weight[:, :, u, v].T)
    return graph.product(C_out, (size[0], size[1]), terms, bias)


def _origins(size: int, source: int, stride: int, shift: int) -> np.ndarray:
    """i with i * stride = output + shift, or -1."""
    at = np.arange(size) + shift
    return np.where((at % stride == 0) & (at >= 0) & (at < source * stride), at // stride, -1)
