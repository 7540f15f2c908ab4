"""How ops of torch are computed place by place."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genkern.sampling.graph import Graph, Grid, NoRule, Table, Term, View, concatenated, identity
from genkern.sampling.record import register_step


def aligned(graph: Graph, *values: Any) -> list[Any]:
    """Views of one shape, of constants too: what has one channel, row or column is repeated."""
    if any(hasattr(value, "codes") for value in values):  # `Elements` are made alike later
        return list(values)
    channels, H, W = np.broadcast_shapes((1, 1, 1), *(_size(graph, v) for v in values))
    return [_repeated(graph, value, channels, (H, W)) for value in values]


def _size(graph: Graph, value: Any) -> tuple[int, ...]:
    if isinstance(value, View):
        return value.channels, *value.grid
    if value.ndim > 4 or (value.ndim == 4 and value.shape[0] not in (1, graph.images)):
        got = tuple(value.shape)
        raise NoRule(f"sampling: a constant beside features must fit (N, C, H, W); got {got}")
    return tuple(value.shape[-3:])


def _repeated(graph: Graph, value: Any, channels: int, grid: Grid) -> View:
    if isinstance(value, torch.Tensor):
        return graph.constant(value, channels, grid)
    if value.grid != grid:
        value = value.moved(np.ascontiguousarray(np.broadcast_to(identity(value.grid), grid)))
    if value.channels != channels:  # one: a product is one node for all
        ones = torch.ones(channels, 1, dtype=torch.float64, device=graph.device)
        return graph.product(channels, grid, terms_of(value, identity(grid), ones))
    return value


def _unary(op: str, function: str, number: float | None = None) -> None:
    register_step(f"aten::{op}", lambda graph, x: graph.pointwise(function, x, number=number))


for _op in ("relu", "tanh", "sigmoid", "silu", "exp"):
    _unary(_op, _op)
_unary("neg", "mul_number", -1.0)
_unary("trunc", "trunc")
_unary("round", "round")
_unary("sqrt", "sqrt")
_unary("reciprocal", "reciprocal")
register_step("aten::rsqrt", lambda graph, x: inverse_root(graph, x))
for _op in ("clone", "detach", "alias", "contiguous", "lift_fresh"):
    register_step(f"aten::{_op}", lambda graph, x, *ignored, **also: x)


@register_step("aten::_to_copy")
def to_copy(graph: Graph, x: View, *, dtype: torch.dtype | None = None, **also: Any) -> View:
    if dtype == torch.bool:
        raise NoRule("sampling: features must not become bool")
    if dtype in (torch.bfloat16, torch.float16):
        raise NoRule("sampling: features must not become half precision")
    is_float = dtype is None or dtype.is_floating_point
    return x if is_float else graph.pointwise("trunc", x)


@register_step("aten::elu")
def elu(graph: Graph, x: View, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0):
    if input_scale != 1:
        raise NoRule("sampling: elu must have an input scale of 1")
    found = graph.pointwise("elu", x, number=float(alpha))
    return found if scale == 1 else graph.pointwise("mul_number", found, number=float(scale))


@register_step("aten::leaky_relu")
def leaky_relu(graph: Graph, x: View, slope: float = 0.01):
    return graph.pointwise("leaky_relu", x, number=float(slope))


@register_step("aten::glu")
def glu(graph: Graph, x: View, dim: int = -1):
    _check_channels("glu", dim)
    half = x.channels // 2
    gate = graph.pointwise("sigmoid", x.narrow(half, half))
    return graph.pointwise("mul", x.narrow(0, half), gate)


def _sum(graph: Graph, x: Any, y: Any, factor: float) -> View:
    if not isinstance(x, View):
        if factor != 1:
            y, factor = graph.pointwise("mul_number", y, number=factor), 1.0
        x, y = y, x
    if isinstance(y, (int, float)):
        return graph.pointwise("add_number", x, number=factor * float(y))
    return graph.pointwise("add", *aligned(graph, x, y), number=float(factor))


@register_step("aten::add")
def add(graph: Graph, x: Any, y: Any, *, alpha: float = 1):
    return _sum(graph, x, y, alpha)


@register_step("aten::sub")
def sub(graph: Graph, x: Any, y: Any, *, alpha: float = 1):
    return _sum(graph, x, y, -alpha)


@register_step("aten::rsub")
def rsub(graph: Graph, x: View, y: Any, alpha: float = 1):
    return _sum(graph, y if isinstance(y, View) else torch.as_tensor(y), x, -alpha)


@register_step("aten::mul")
def mul(graph: Graph, x: Any, y: Any):
    if not isinstance(x, View):
        x, y = y, x
    if isinstance(y, (int, float)):
        return graph.pointwise("mul_number", x, number=float(y))
    return graph.pointwise("mul", *aligned(graph, x, y))


@register_step("aten::div")
def div(graph: Graph, x: Any, y: Any):
    if isinstance(y, View):
        return mul(graph, graph.pointwise("reciprocal", y), x)
    return mul(graph, x, 1 / y if isinstance(y, torch.Tensor) or y else math.inf)


def inverse_root(graph: Graph, x: View) -> View:
    return graph.pointwise("reciprocal", graph.pointwise("sqrt", x))


# ---- moves -----------------------------------------------------------------------------------


def _check_channels(op: str, dim: int) -> None:
    if dim not in (1, -3):
        raise NoRule(f"sampling: {op} must be along the channels, dim 1; got {dim}")


@register_step("aten::cat")
def cat(graph: Graph, parts: Sequence[Any], dim: int = 0):
    _check_channels("cat", dim)
    grid = next(part for part in parts if isinstance(part, View)).grid
    views = [
        part if isinstance(part, View) else graph.constant(part, part.shape[1], grid)
        for part in parts
    ]
    return concatenated(views)


@register_step("aten::split")
def split(graph: Graph, x: View, size: int, dim: int = 0):
    _check_channels("split", dim)
    starts = range(0, x.channels, size)
    return [x.narrow(start, min(size, x.channels - start)) for start in starts]


@register_step("aten::split_with_sizes")
def split_with_sizes(graph: Graph, x: View, sizes: Sequence[int], dim: int = 0):
    _check_channels("split", dim)
    ends = np.cumsum(sizes).tolist()
    return [x.narrow(end - size, size) for end, size in zip(ends, sizes, strict=True)]


@register_step("aten::slice")
def slice_(graph: Graph, x: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1):
    dim %= 4
    at = slice(start, end, step)
    if dim == 0 and at.indices(1 << 62) == (0, 1 << 62, 1):
        return x
    if dim == 1 and step == 1:
        begin, stop, _ = at.indices(x.channels)
        return x.narrow(begin, stop - begin)
    if dim < 2:
        raise NoRule("sampling: a slice must be along channels, rows or columns")
    table = identity(x.grid)
    return x.moved(table[at] if dim == 2 else table[:, at])


@register_step("aten::constant_pad_nd")
def constant_pad_nd(graph: Graph, x: View, pad: Sequence[int], value: float = 0):
    if value != 0 or any(pad[4:]):
        raise NoRule("sampling: padding must be of rows and columns, with zeros")
    return x.moved(padded(identity(x.grid), list(pad)))


def padded(table: Table, pad: list[int]) -> Table:
    """Rows and columns of nothing (-1) around a table: left, right, top, bottom; negative: cut."""
    left, right, top, bottom = [*pad, 0, 0, 0, 0][:4]
    most = [(max(0, top), max(0, bottom)), (max(0, left), max(0, right))]
    table = np.pad(table, most, constant_values=-1)
    H, W = table.shape
    return table[max(0, -top) : H - max(0, -bottom), max(0, -left) : W - max(0, -right)]


@register_step("aten::flip")
def flip(graph: Graph, x: View, dims: Sequence[int]):
    axes = [dim % 4 - 2 for dim in dims]
    if min(axes) < 0:
        raise NoRule("sampling: a flip must be of rows or columns")
    return x.moved(np.flip(identity(x.grid), tuple(axes)))


@register_step("aten::upsample_nearest2d")
def upsample_nearest2d(graph: Graph, x: View, size: Any, *scales: Any):
    H, W = (int(s) for s in size)
    rows, columns = np.arange(H) * x.grid[0] // H, np.arange(W) * x.grid[1] // W
    return x.moved(identity(x.grid)[rows][:, columns])


# ---- products --------------------------------------------------------------------------------


@functools.lru_cache(4096)
def tap(grid: tuple[int, int], size: tuple[int, int], row: int, column: int, stride: int = 1):
    """Of ``size`` outputs: the place of ``grid`` that stands (row, column) off each, or -1."""
    rows = np.arange(size[0])[:, None] * stride + row
    columns = np.arange(size[1])[None] * stride + column
    inside = (rows >= 0) & (rows < grid[0]) & (columns >= 0) & (columns < grid[1])
    return np.where(inside, rows * grid[1] + columns, -1).astype(np.int32)


def terms_of(x: View, table: Table, weight: torch.Tensor) -> list[Term]:
    """``weight`` (C_out, channels of x) times x at the places of a table."""
    found, at = [], 0
    for piece in x.moved(table).pieces:
        found.append(Term(piece, weight[:, at : at + piece.length]))
        at += piece.length
    return found
