"""A call of the kernels of norm_act: its tiles, its launches, and the arithmetic between them.

Sums over planes and what is written are kernels; between them stands arithmetic on a few numbers of
each plane, (N, C) tensors. Formulas and names: csrc/norm_act/norm_act.h.
"""

from typing import Any, NamedTuple

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.norm_act.kernels import (
    norm_act_backward_kernel,
    norm_act_moments_kernel,
    norm_act_rows_kernel,
    norm_act_sums_kernel,
)

OP = "norm_act"
_WIDE, _NARROW = (1, 1024), (64, 16)  # planes and elements of a tile
_ROW = 128  # channels of a program that adds images
_FLAT = 3  # the first activations have no curvature
Maybe = torch.Tensor | None


def formatted(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return tensor.contiguous(memory_format=layout)


def _tile(x: torch.Tensor) -> tuple[int, int]:
    return _WIDE if x[0, 0].numel() > _WIDE[1] // 4 else _NARROW


def grid(x: torch.Tensor) -> tuple[int, int, int, int]:
    """Planes, elements of each, tiles of planes, tiles of elements."""
    count, S, (planes, elements) = x.shape[0] * x.shape[1], x[0, 0].numel(), _tile(x)
    return count, S, triton.cdiv(count, planes), triton.cdiv(S, elements)


def _constants(x: torch.Tensor) -> dict[str, Any]:
    (planes, elements), dtype = _tile(x), spec.accumulation(x.dtype)
    found = {"DTYPE": accumulator(dtype), "BP": planes, "BS": elements}
    if dtype == torch.float32:
        return found | {"num_warps": 4}
    # By 8 the sums of float64 are spilled, and by 16 where the compiler stays at 64 registers.
    return found | {"num_warps": 16, "maxnreg": 128}


class Call(NamedTuple):
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
        planes, S, tiles, _ = grid(self.x)
        found = self.mean.new_empty((5 if mode == 1 else 2, *self.x.shape[:2]))
        with launch.on(self.x):
            norm_act_sums_kernel[launch.programs(OP, tiles)](
                self.x, d, g, self.planes, terms, found, planes, S, self.alpha, MODE=mode,
                **self.constants(),
            )  # fmt: skip
        return list(found.unbind(0))


def rows_of(rows: Maybe, labels: Maybe, x: torch.Tensor, otherwise: float) -> torch.Tensor:
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


def prepared(x, weight, bias, labels, mean, variance, constant, options) -> Call:
    over_batch, act, alpha, eps = options
    w, b = rows_of(weight, labels, x, 1.0), rows_of(bias, labels, x, 0.0)
    s = torch.rsqrt(variance.to(w.dtype) + eps).view(-1, x.shape[1])
    mean = mean.to(w.dtype).view(-1, x.shape[1])
    planes = torch.stack([t.expand(x.shape[:2]) for t in (mean, w * s, b)])
    return Call(
        x, w, mean, s, planes, labels, constant, over_batch and not constant, act, float(alpha)
    )


def moments(x: torch.Tensor, over_batch: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the groups, from those of the planes."""
    planes, S, tiles, _ = grid(x)
    found = x.new_empty((2, *x.shape[:2]), dtype=spec.accumulation(x.dtype))
    with launch.on(x):
        norm_act_moments_kernel[launch.programs(OP, tiles)](x, found, planes, S, **_constants(x))
    means, squares = found.unbind(0)
    if not over_batch:
        return means, squares / S
    mean = means.mean(0)
    return mean, squares.mean(0) / S + (means - mean).square().mean(0)


def written(call: Call, d, g, terms, second: bool, needs: tuple[bool, bool], last: bool):
    """Gradients of upstream and x, without elements where they are not needed."""
    up, d_x = (torch.empty_like(call.x) if needed else None for needed in needs)
    if up is not None or d_x is not None:
        planes, S, tiles, blocks = grid(call.x)
        with launch.on(call.x):
            norm_act_backward_kernel[launch.programs(OP, tiles * blocks)](
                call.x, d, g, call.planes, terms, up, d_x, planes, S, blocks, call.alpha,
                SECOND=second, **call.constants(),
            )  # fmt: skip
    return [call.x.new_empty(0) if t is None else formatted(t, last) for t in (up, d_x)]


def summed(call: Call, of_planes: torch.Tensor, like: Maybe, needed: bool) -> torch.Tensor:
    """The sums of planes added to the rows that they belong to."""
    if not needed or like is None:
        return call.x.new_empty(0)
    if like.ndim == 2 and call.labels is None:
        return torch.empty_like(like).copy_(of_planes)
    N, C = of_planes.shape
    rows, blocks = call.x.new_empty(like.shape), triton.cdiv(C, _ROW)
    classes = like.shape[0] if like.ndim == 2 else 1
    with launch.on(call.x):
        norm_act_rows_kernel[launch.programs(OP, classes * blocks)](
            of_planes.contiguous(), call.labels, rows, N, C, blocks,
            DTYPE=accumulator(call.x.dtype), BC=_ROW, num_warps=4,
        )  # fmt: skip
    return torch.empty_like(like).copy_(rows)  # the strides of the parameter


def stacked(call: Call, *terms: torch.Tensor) -> torch.Tensor:
    return torch.stack([t.expand(call.x.shape[:2]) for t in terms])


def second_terms(call: Call, d, g, g_w, g_b):
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
        of_bias, e_c = call.sums(2, d, g, stacked(call, *of_v))
        e_h = s * e_c
        of_weight = of_weight + e_h
    a = average(w * of_bias + g_w * q) - s * (t * g_h + g_mean * t_h)
    a_h = average(w * e_h + g_w * q_h) - 2 * s * t_h * g_h
    terms = stacked(
        call, *of_v, s * w, s * (g_w - s * w * g_h), -s.square() * t_h,
        -s.square() * (a_h + s * t_u), -s * a,
    )  # fmt: skip
    return terms, of_weight, of_bias
