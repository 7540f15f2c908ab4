"""Launchers of the Triton kernels of norm_act.

Sums over planes and what is written are kernels; between them stands arithmetic on a few numbers of
each plane, (N, C) tensors. Formulas and names: csrc/norm_act/norm_act.h.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.norm_act.kernels import (
    norm_act_backward_kernel,
    norm_act_forward_kernel,
    norm_act_moments_kernel,
    norm_act_rows_kernel,
    norm_act_sums_kernel,
)

_OP = "norm_act"
_WIDE, _NARROW = (1, 1024), (64, 16)  # planes and elements of a tile
_ROW = 128  # channels of a program that adds images
_FLAT, _ACTIVATIONS = 3, 10  # the first ones have no curvature
Maybe = torch.Tensor | None


def unsupported(input: torch.Tensor, **others: Maybe) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(_OP, "input", input, others)


def _formatted(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return tensor.contiguous(memory_format=layout)


def _tile(x: torch.Tensor) -> tuple[int, int]:
    return _WIDE if x[0, 0].numel() > _WIDE[1] // 4 else _NARROW


def _grid(x: torch.Tensor) -> tuple[int, int, int, int]:
    """Planes, elements of each, tiles of planes, tiles of elements."""
    count, S, (planes, elements) = x.shape[0] * x.shape[1], x[0, 0].numel(), _tile(x)
    return count, S, triton.cdiv(count, planes), triton.cdiv(S, elements)


def _constants(x: torch.Tensor) -> dict[str, Any]:
    planes, elements = _tile(x)
    return {"DTYPE": accumulator(x.dtype), "BP": planes, "BS": elements, "num_warps": 4}


class _Call(NamedTuple):
    """x (N, C, ...) and what holds for its planes, (N, C) or (1, C), in the type of sums."""

    x: torch.Tensor
    weight: torch.Tensor
    mean: torch.Tensor
    s: torch.Tensor  # 1 / sqrt(variance + eps)
    planes: torch.Tensor  # (3, N C): mean, scale, shift
    labels: Maybe
    constant: bool
    over_batch: bool
    act: int
    alpha: float

    def constants(self) -> dict[str, Any]:
        return {"ACT": self.act, **_constants(self.x)}

    def average(self, of_planes: torch.Tensor) -> torch.Tensor:
        """The mean over a group from sums over planes: 0 where the statistics are constants."""
        if self.constant:
            return of_planes.new_zeros(1, 1)
        average = of_planes / self.x[0, 0].numel()
        return average.mean(0, keepdim=True) if self.over_batch else average

    def sums(self, mode: int, d: torch.Tensor, g: Maybe, terms: Maybe) -> list[torch.Tensor]:
        planes, S, tiles, _ = _grid(self.x)
        found = self.mean.new_empty((5 if mode == 1 else 2, *self.x.shape[:2]))
        with launch.on(self.x):
            norm_act_sums_kernel[launch.programs(_OP, tiles)](
                self.x, d, g, self.planes, terms, found, planes, S, self.alpha, MODE=mode,
                **self.constants(),
            )  # fmt: skip
        return list(found.unbind(0))


def _rows_of(rows: Maybe, labels: Maybe, x: torch.Tensor, otherwise: float) -> torch.Tensor:
    """The affine map of each image, (N, C) or (1, C); NaN for a label that is no class."""
    dtype = spec.accumulation(x.dtype)
    if rows is None:
        return torch.full((1, x.shape[1]), otherwise, dtype=dtype, device=x.device)
    rows = rows.to(dtype)
    if labels is None:
        return rows.view(-1, x.shape[1])
    known = (labels >= 0) & (labels < rows.shape[0])
    found = rows[torch.where(known, labels, 0)]
    return torch.where(known[:, None], found, torch.nan)


def _prepared(x, weight, bias, labels, mean, variance, constant, options) -> _Call:
    over_batch, act, alpha, eps = options
    w, b = _rows_of(weight, labels, x, 1.0), _rows_of(bias, labels, x, 0.0)
    s = torch.rsqrt(variance.to(w.dtype) + eps).view(-1, x.shape[1])
    mean = mean.to(w.dtype).view(-1, x.shape[1])
    planes = torch.stack([t.expand(x.shape[:2]) for t in (mean, w * s, b)])
    return _Call(
        x, w, mean, s, planes, labels, constant, over_batch and not constant, act, float(alpha)
    )


def _moments(x: torch.Tensor, over_batch: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the groups, from those of the planes."""
    planes, S, tiles, _ = _grid(x)
    found = x.new_empty((2, *x.shape[:2]), dtype=spec.accumulation(x.dtype))
    with launch.on(x):
        norm_act_moments_kernel[launch.programs(_OP, tiles)](x, found, planes, S, **_constants(x))
    means, squares = found.unbind(0)
    if not over_batch:
        return means, squares / S
    mean = means.mean(0)
    return mean, squares.mean(0) / S + (means - mean).square().mean(0)


def forward(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    labels: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    over_batch: bool,
    act: int,
    alpha: float,
    eps: float,
    channels_last: bool,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    launch.require(unsupported(input, weight=weight, bias=bias))
    (x,) = launch.dense(input)
    assert x is not None
    y, dtype = torch.empty_like(x), spec.accumulation(x.dtype)
    shape = x.shape[1:2] if over_batch else x.shape[:2]
    constant = mean is not None
    nothing = x.new_empty(0 if constant or not save else shape, dtype=dtype)
    if x.numel() == 0:
        return _formatted(y, channels_last), nothing, nothing.clone()
    if mean is None or variance is None:
        mean, variance = _moments(x, over_batch)
    options = (over_batch, act, alpha, eps)
    call = _prepared(x, weight, bias, labels, mean, variance, constant, options)
    planes, S, tiles, blocks = _grid(x)
    with launch.on(x):
        norm_act_forward_kernel[launch.programs(_OP, tiles * blocks)](
            x, call.planes, y, planes, S, blocks, call.alpha, **call.constants()
        )
    if constant or not save:
        return _formatted(y, channels_last), nothing, nothing.clone()
    return _formatted(y, channels_last), mean, variance


def _written(call: _Call, d, g, terms, second: bool, needs: tuple[bool, bool], last: bool):
    """Gradients of upstream and x, without elements where they are not needed."""
    up, d_x = (torch.empty_like(call.x) if needed else None for needed in needs)
    if up is not None or d_x is not None:
        planes, S, tiles, blocks = _grid(call.x)
        with launch.on(call.x):
            norm_act_backward_kernel[launch.programs(_OP, tiles * blocks)](
                call.x, d, g, call.planes, terms, up, d_x, planes, S, blocks, call.alpha,
                SECOND=second, **call.constants(),
            )  # fmt: skip
    return [call.x.new_empty(0) if t is None else _formatted(t, last) for t in (up, d_x)]


def _summed(call: _Call, of_planes: torch.Tensor, like: Maybe, needed: bool) -> torch.Tensor:
    """The sums of planes added to the rows that they belong to."""
    if not needed or like is None:
        return call.x.new_empty(0)
    if like.ndim == 2 and call.labels is None:
        return of_planes.to(like.dtype)
    N, C = of_planes.shape
    rows, blocks = call.x.new_empty(like.shape), triton.cdiv(C, _ROW)
    classes = like.shape[0] if like.ndim == 2 else 1
    with launch.on(call.x):
        norm_act_rows_kernel[launch.programs(_OP, classes * blocks)](
            of_planes.contiguous(), call.labels, rows, N, C, blocks,
            DTYPE=accumulator(call.x.dtype), BC=_ROW, num_warps=4,
        )  # fmt: skip
    return rows


def _stacked(call: _Call, *terms: torch.Tensor) -> torch.Tensor:
    return torch.stack([t.expand(call.x.shape[:2]) for t in terms])


def _empty(input, weight, bias, needs, last):
    """Gradients where x has no elements."""
    found = [_formatted(torch.empty_like(input), last) if n else input.new_empty(0)
             for n in needs[:-2]]  # fmt: skip
    found += [
        input.new_empty(0) if t is None or not n else torch.zeros_like(t)
        for t, n in zip((weight, bias), needs[-2:], strict=True)
    ]
    return tuple(found)


def backward(
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    labels: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    batch_mean: torch.Tensor,
    batch_variance: torch.Tensor,
    over_batch: bool,
    act: int,
    alpha: float,
    eps: float,
    channels_last: bool,
    needs_input: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    launch.require(unsupported(input, weight=weight, bias=bias, upstream_0=upstream_0))
    x, d = launch.dense(input, upstream_0)
    assert x is not None and d is not None
    if x.numel() == 0:
        return _empty(x, weight, bias, (needs_input, needs_weight, needs_bias), channels_last)
    constant, options = mean is not None, (over_batch, act, alpha, eps)
    known = (mean, variance) if constant else (batch_mean, batch_variance)
    call = _prepared(x, weight, bias, labels, *known, constant, options)
    q, q_h = call.sums(0, d, None, None)
    q_h = call.s * q_h
    t, t_h = call.average(call.weight * q), call.average(call.weight * q_h)
    terms = _stacked(call, call.s * call.weight, -call.s.square() * t_h, -call.s * t)
    _, d_x = _written(call, d, None, terms, False, (False, needs_input), channels_last)
    d_weight = _summed(call, q_h, weight, needs_weight)
    return d_x, d_weight, _summed(call, q, bias, needs_bias)


def backward_backward(
    second_0: torch.Tensor | None,
    second_1: torch.Tensor | None,
    second_2: torch.Tensor | None,
    upstream_0: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    labels: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    batch_mean: torch.Tensor,
    batch_variance: torch.Tensor,
    over_batch: bool,
    act: int,
    alpha: float,
    eps: float,
    channels_last: bool,
    needs_input: bool,
    needs_weight: bool,
    needs_bias: bool,
    second_needs_upstream_0: bool,
    second_needs_input: bool,
    second_needs_weight: bool,
    second_needs_bias: bool,
) -> tuple[torch.Tensor, ...]:
    others = {"upstream_0": upstream_0, "second_0": second_0}
    launch.require(unsupported(input, weight=weight, bias=bias, **others))
    x, d, g = launch.dense(input, upstream_0, second_0)
    assert x is not None and d is not None
    needs = (second_needs_upstream_0, second_needs_input, second_needs_weight, second_needs_bias)
    if x.numel() == 0:
        return _empty(x, weight, bias, needs, channels_last)
    constant, options = mean is not None, (over_batch, act, alpha, eps)
    known = (mean, variance) if constant else (batch_mean, batch_variance)
    call = _prepared(x, weight, bias, labels, *known, constant, options)
    g_w, g_b = (_rows_of(t, labels, x, 0.0) for t in (second_1, second_2))
    terms, of_weight, of_bias = _second_terms(call, d, g, g_w, g_b)
    up, d_x = _written(call, d, g, terms, True, needs[:2], channels_last)
    d_weight = _summed(call, of_weight, weight, needs[2])
    return up, d_x, d_weight, _summed(call, of_bias, bias, needs[3])


def _second_terms(call: _Call, d, g, g_w, g_b):
    """What the kernel forms v and d_x of, and the sums of planes behind d_weight and d_bias."""
    w, s, average = call.weight, call.s, call.average
    q, q_c, g_sum, g_c, q_g = call.sums(1, d, g, None)
    q_h, g_h = s * q_c, average(s * g_c)
    t, t_h, g_mean = average(w * q), average(w * q_h), average(g_sum)
    t_u = average(w * q_g) - t * g_mean - t_h * g_h
    of_v = (w * s, s * (g_w - w * s * g_h), g_b - w * s * g_mean)
    of_weight, of_bias = s * (q_g - g_mean * q - g_h * q_h), torch.zeros_like(q)
    e_h = of_bias
    if call.act >= _FLAT:
        of_bias, e_c = call.sums(2, d, g, _stacked(call, *of_v))
        e_h = s * e_c
        of_weight = of_weight + e_h
    a = average(w * of_bias + g_w * q) - s * (t * g_h + g_mean * t_h)
    a_h = average(w * e_h + g_w * q_h) - 2 * s * t_h * g_h
    terms = _stacked(
        call, *of_v, s * w, s * (g_w - s * w * g_h), -s.square() * t_h,
        -s.square() * (a_h + s * t_u), -s * a,
    )  # fmt: skip
    return terms, of_weight, of_bias


LAUNCHERS = {
    "norm_act_forward": forward,
    "norm_act_backward": backward,
    "norm_act_backward_backward": backward_backward,
}


def _call(dtype: torch.dtype, N: int, C: int, side: int, act: int, kind: str):
    """``kind``: "style", "class", or "plain" by given statistics."""
    x = torch.empty(N, C, side, side, dtype=dtype, device="meta")
    w = x.new_empty((C,) if kind == "plain" else (N, C))
    labels = x.new_empty(N, dtype=torch.long) if kind == "class" else None
    known = x.new_empty(C, dtype=spec.accumulation(dtype))
    given = (known, known) if kind == "plain" else (None, None)
    over_batch = kind != "style"
    shape = (0,) if kind == "plain" else (C,) if over_batch else (N, C)
    saved = [x.new_empty(shape, dtype=known.dtype) for _ in range(2)]
    options = (over_batch, act, 0.2, 1e-5, False)
    yield "norm_act_forward", (x, w, w, labels, *given, *options, True)
    rest = (x, x, w, w, labels, *given, *saved, *options, True, True, True)
    yield "norm_act_backward", rest
    second = x if kind != "plain" else None
    yield "norm_act_backward_backward", (second, w, w, *rest, True, True, True, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every activation in float32 and float64, some in half precision, on meta tensors."""
    kinds = ("style", "class", "plain")
    for dtype, act in itertools.product(spec.FLOATING, range(_ACTIVATIONS)):
        if dtype not in spec.HALF or act in (2, 6, 7):
            yield from _call(dtype, 4, 8, 7, act, kinds[act % 3])


# Moments and result; sums, gradients and both affine maps; of double backward the sums of e, too.
MAX_LAUNCHES = {
    "norm_act_forward": 2,
    "norm_act_backward": 4,
    "norm_act_backward_backward": 5,
}
# Two tiles; of what is of the first and of the second order, two each.
VARIANTS = {
    "norm_act_moments_kernel": 2,
    "norm_act_forward_kernel": 2,
    "norm_act_sums_kernel": 4,
    "norm_act_backward_kernel": 4,
}


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _call(torch.float32, n, n + 1, n + 1, 2, "class")
