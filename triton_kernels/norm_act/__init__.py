"""Launchers of the Triton kernels of norm_act."""

import itertools
from collections.abc import Iterator

import torch

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.norm_act.kernels import norm_act_forward_kernel
from genkern.triton_kernels.norm_act.plan import (
    OP,
    Maybe,
    formatted,
    grid,
    moments,
    prepared,
    rows_of,
    second_terms,
    stacked,
    summed,
    written,
)

_ACTIVATIONS = 10


def unsupported(input: torch.Tensor, **others: Maybe) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(OP, "input", input, others)


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
        return formatted(y, channels_last), nothing, nothing.clone()
    if mean is None or variance is None:
        mean, variance = moments(x, over_batch)
    options = (over_batch, act, alpha, eps)
    call = prepared(x, weight, bias, labels, mean, variance, constant, options)
    planes, S, tiles, blocks = grid(x)
    with launch.on(x):
        norm_act_forward_kernel[launch.programs(OP, tiles * blocks)](
            x, call.planes, y, planes, S, blocks, call.alpha, **call.constants()
        )
    if constant or not save:
        return formatted(y, channels_last), nothing, nothing.clone()
    return formatted(y, channels_last), mean, variance


def _empty(input, weight, bias, needs, last):
    """Gradients where x has no elements."""
    found = [formatted(torch.empty_like(input), last) if n else input.new_empty(0)
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
    call = prepared(x, weight, bias, labels, *known, constant, options)
    q, q_h = call.sums(0, d, None, None)
    q_h = call.s * q_h
    t, t_h = call.average(call.weight * q), call.average(call.weight * q_h)
    terms = stacked(call, call.s * call.weight, -call.s.square() * t_h, -call.s * t)
    _, d_x = written(call, d, None, terms, False, (False, needs_input), channels_last)
    d_weight = summed(call, q_h, weight, needs_weight)
    return d_x, d_weight, summed(call, q, bias, needs_bias)


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
    call = prepared(x, weight, bias, labels, *known, constant, options)
    g_w, g_b = (rows_of(t, labels, x, 0.0) for t in (second_1, second_2))
    terms, of_weight, of_bias = second_terms(call, d, g, g_w, g_b)
    up, d_x = written(call, d, g, terms, True, needs[:2], channels_last)
    d_weight = summed(call, of_weight, weight, needs[2])
    return up, d_x, d_weight, summed(call, of_bias, bias, needs[3])


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
    """Every activation in float32 and float64, some in half precision and in large planes, whose
    tile is another, on meta tensors."""
    kinds = ("style", "class", "plain")
    for dtype, act in itertools.product(spec.FLOATING, range(_ACTIVATIONS)):
        if dtype not in spec.HALF or act in (2, 6, 7):
            yield from _call(dtype, 4, 8, 7, act, kinds[act % 3])
        if act in (2, 6, 7):
            yield from _call(dtype, 4, 8, 17, act, kinds[act % 3])


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
