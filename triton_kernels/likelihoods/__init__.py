"""Launchers of the likelihoods' Triton kernels: one launch forward, one backward,
one for double backward."""

from collections.abc import Iterator
from typing import Any

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.likelihoods.kernels import (
    likelihoods_backward_kernel,
    likelihoods_forward_kernel,
)
from genkern.triton_kernels.likelihoods.second import likelihoods_backward_backward_kernel

_WARPS = 4
_MAX_SPLITS = 512
_FEWEST_PROGRAMS = 8  # a processor, before long rows are split
_LOGISTIC = 3


def unsupported(
    op: str,
    location: torch.Tensor,
    *,
    integers: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    **others: torch.Tensor | None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    for name, tensor in (("integers", integers), ("mask", mask)):
        if tensor is not None and tensor.device != location.device:
            return f"{op}: {name} must be on {location.device} like location; got {tensor.device}"
    return launch.mismatch(op, "location", location, others)


def _is_shared(location: torch.Tensor, scale: torch.Tensor | None) -> bool:
    return scale is not None and scale.numel() == 1 and location.numel() != 1


def _options(location, scale, D: int, kind: int) -> dict[str, Any]:
    """Tile and specialisations."""
    tile = 512 if location.dtype == torch.float64 else 1024
    warps = 2 * _WARPS if kind == _LOGISTIC and tile == 1024 else _WARPS  # else it spills
    width = next((w for w in (16, 128) if 2 * w >= D), tile)
    return {
        "KIND": kind, "SHARED": _is_shared(location, scale), "DTYPE": accumulator(location.dtype),
        "BR": tile // width, "BC": width, "num_warps": warps,
        "maxnreg": 255,  # else the compiler spills so that more programs fit
    }  # fmt: skip


def _splits(rows: int, D: int, BR: int, BC: int, processors: int) -> tuple[int, int]:
    """Programs of one row, and columns of each: few long rows are split over the processors."""
    if BR > 1:
        return 1, D
    wanted = min(_FEWEST_PROGRAMS * processors // rows, triton.cdiv(D, 2 * BC), _MAX_SPLITS)
    columns = triton.cdiv(triton.cdiv(D, max(1, wanted)), BC) * BC
    return triton.cdiv(D, columns), columns


def _inputs(location, scale, target, integers, mask):
    """Dense, the target whatever it is, the mask as bytes."""
    location, scale, target, mask = launch.dense(
        location, scale, target if integers is None else integers, mask
    )
    return location, scale, target, None if mask is None else mask.view(torch.uint8)


def forward(
    location: torch.Tensor,
    scale: torch.Tensor | None,
    target: torch.Tensor | None,
    integers: torch.Tensor | None,
    mask: torch.Tensor | None,
    kind: int,
    fixed: float,
    levels: int,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    op = "likelihoods_forward"
    launch.require(
        unsupported(op, location, integers=integers, mask=mask, scale=scale, target=target)
    )
    items = target if integers is None else integers
    assert items is not None
    batch = location.ndim - items.ndim + 1
    kept = save and kind == _LOGISTIC
    sums = spec.accumulation(location.dtype)
    slopes = location.new_empty((2, location.numel()) if kept else 0, dtype=sums if kept else None)
    nll = location.new_empty(location.shape[:batch])
    if location.numel() == 0:
        return nll.zero_(), slopes
    R, N = nll.numel(), items.shape[0]
    D = location.numel() // R
    options = _options(location, scale, D, kind)
    splits, columns = _splits(R, D, options["BR"], options["BC"], launch.processors(location))
    to = nll if splits == 1 else location.new_empty((R, splits), dtype=sums)
    programs = launch.programs(op, triton.cdiv(R, options["BR"]) * splits)
    with launch.on(location):
        likelihoods_forward_kernel[programs](
            *_inputs(location, scale, target, integers, mask), to, slopes if kept else None,
            R, N, D, splits, columns, levels, fixed, **options,
        )  # fmt: skip
    if splits > 1:
        nll = to.sum(1).view(nll.shape).to(nll.dtype)
    return nll, slopes


def backward(
    upstream_0: torch.Tensor | None,
    location: torch.Tensor,
    scale: torch.Tensor | None,
    target: torch.Tensor | None,
    integers: torch.Tensor | None,
    mask: torch.Tensor | None,
    slopes: torch.Tensor,
    kind: int,
    fixed: float,
    levels: int,
    needs_location: bool,
    needs_scale: bool,
    needs_target: bool,
) -> tuple[torch.Tensor, ...]:
    op = "likelihoods_backward"
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    launch.require(
        unsupported(op, location, integers=integers, mask=mask, scale=scale, target=target,
                    upstream_0=upstream_0)
    )  # fmt: skip
    needs = (needs_location, needs_scale, needs_target)
    gradients = spec.empty_gradients((location, scale, target), needs)
    d_location, d_scale, d_target = (d if d.numel() else None for d in gradients)
    if location.numel() == 0 or not any(d.numel() for d in gradients):
        return tuple(d.zero_() for d in gradients)
    items = target if integers is None else integers
    assert items is not None
    N, rows = items.shape[0], upstream_0.numel()
    D = location.numel() // rows
    # A program holds all samples of its elements only where it adds over them.
    S = rows // N if d_target is not None else 1
    R = rows // S
    options = _options(location, scale, D, kind)
    tiles = triton.cdiv(D, options["BC"])
    programs = launch.programs(op, triton.cdiv(R, options["BR"]) * tiles)
    shared, partial = d_scale is not None and options["SHARED"], None
    if shared:
        partial = location.new_empty(programs, dtype=spec.accumulation(location.dtype))
    with launch.on(location):
        likelihoods_backward_kernel[programs](
            *launch.dense(upstream_0), *_inputs(location, scale, target, integers, mask),
            slopes if slopes.numel() else None, d_location, None if shared else d_scale, d_target,
            partial, R, N, D, S, tiles, levels, fixed, **options,
        )  # fmt: skip
    if partial is not None and scale is not None:
        total = partial.sum().to(scale.dtype).view(scale.shape)
        gradients = (gradients[0], total, gradients[2])
    return gradients


def backward_backward(
    second_0: torch.Tensor | None, second_1: torch.Tensor | None, second_2: torch.Tensor | None,
    upstream_0: torch.Tensor | None, location: torch.Tensor, scale: torch.Tensor | None,
    target: torch.Tensor | None, integers: torch.Tensor | None, mask: torch.Tensor | None,
    slopes: torch.Tensor, kind: int, fixed: float, levels: int,
    needs_location: bool, needs_scale: bool, needs_target: bool,
    second_needs_upstream_0: bool, second_needs_location: bool, second_needs_scale: bool,
    second_needs_target: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    op = "likelihoods_backward_backward"
    needs = (
        second_needs_upstream_0, second_needs_location, second_needs_scale, second_needs_target
    )  # fmt: skip
    items = target if integers is None else integers
    assert upstream_0 is not None and items is not None
    launch.require(
        unsupported(op, location, integers=integers, mask=mask, scale=scale, target=target,
                    upstream_0=upstream_0, second_0=second_0, second_1=second_1, second_2=second_2)
    )  # fmt: skip
    gradients = spec.empty_gradients((upstream_0, location, scale, target), needs)
    d_upstream, d_location, d_scale, d_target = (d if d.numel() else None for d in gradients)
    if location.numel() == 0 or not any(d.numel() for d in gradients):
        return tuple(d.zero_() for d in gradients)
    N, rows = items.shape[0], upstream_0.numel()
    D = location.numel() // rows
    S = rows // N if d_target is not None else 1
    R = rows // S
    options = _options(location, scale, D, kind)
    options["num_warps"] = 2 * _WARPS  # by 4 it spills
    tiles, sums = triton.cdiv(D, options["BC"]), spec.accumulation(location.dtype)
    programs = launch.programs(op, triton.cdiv(R, options["BR"]) * tiles)
    shared = d_scale is not None and options["SHARED"]
    partial = location.new_empty(programs, dtype=sums) if shared else None
    parts = None if d_upstream is None else location.new_empty((rows, tiles), dtype=sums)
    with launch.on(location):
        likelihoods_backward_backward_kernel[programs](
            *launch.dense(second_0, second_1, second_2, upstream_0),
            *_inputs(location, scale, target, integers, mask),
            slopes if slopes.numel() else None, parts, d_location, None if shared else d_scale,
            d_target, partial, R, N, D, S, tiles, levels, fixed, **options,
        )  # fmt: skip
    found = list(gradients)
    if parts is not None:
        found[0] = parts.sum(1).view(upstream_0.shape).to(upstream_0.dtype)
    if partial is not None and scale is not None:
        found[2] = partial.sum().to(scale.dtype).view(scale.shape)
    return tuple(found)


LAUNCHERS = {
    "likelihoods_forward": forward,
    "likelihoods_backward": backward,
    "likelihoods_backward_backward": backward_backward,
}


def _calls(
    dtype: torch.dtype, kind: int, N: int, D: int, scale: str, S: int = 1, mask: bool = False
) -> Iterator[tuple[str, tuple]]:
    empty = lambda *shape, dtype=dtype: torch.empty(shape, dtype=dtype, device="meta")  # noqa: E731
    whole = (N, D) if S == 1 else (S, N, D)
    location, up = empty(*whole), empty(*whole[:-1])
    spread = {"none": None, "shared": empty(1), "whole": location}[scale]
    target = integers = None
    slopes = empty(0)
    if kind == _LOGISTIC:
        integers = empty(N, D, dtype=torch.uint8)
        slopes = empty(2, location.numel(), dtype=spec.accumulation(dtype))
    else:
        target = empty(N, D)
    bits = empty(N, D, dtype=torch.bool) if mask else None
    call = (location, spread, target, integers, bits)
    options = (kind, 0.5, 256)
    yield "likelihoods_forward", (*call, *options, True)
    needs = (True, spread is not None, target is not None)
    yield "likelihoods_backward", (up, *call, slopes, *options, *needs)
    seconds = (location, spread, target)
    arguments = (up, *call, slopes, *options, *needs, True, *needs)
    yield "likelihoods_backward_backward", (*seconds, *arguments)


# Kinds with the scales they take.
_FORMS = ((0, "none"), (1, "none"), (2, "whole"), (2, "shared"), (2, "none"), (_LOGISTIC, "whole"))


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every kind, tile, mask and samples, as calls on meta tensors."""
    for dtype in spec.FLOATING:
        for kind, scale in _FORMS:
            for D in (12, 200, 8193):  # 8193: split
                yield from _calls(dtype, kind, 3, D, scale)
            yield from _calls(dtype, kind, 3, 200, scale, S=4, mask=True)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, 2, n, 20, "whole")
