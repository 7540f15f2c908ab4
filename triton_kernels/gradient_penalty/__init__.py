"""Launchers of the gradient penalties' Triton kernels: two launches forward, one backward, and
three of second order."""

import itertools
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.gradient_penalty.kernels import (
    gradient_penalty_apply_kernel,
    gradient_penalty_items_kernel,
    gradient_penalty_sums_kernel,
)

_OP = "gradient_penalty"
_TILE, _ITEMS, _WARPS = 1024, 128, 4
# Of a thread of the one program over all items: left to itself, the compiler spills to stay at 32,
# so that more programs fit beside it.
_REGISTERS = 64
_PROGRAMS, _MAX_SPLITS = 8, 64  # of a processor, before rows are split; of a row
_MEAN = 1


def unsupported(
    gradient: torch.Tensor, *, annealed: torch.Tensor | None = None, **others: torch.Tensor | None
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    if annealed is not None and annealed.device != gradient.device:
        return f"{_OP}: target must be on {gradient.device}; got {annealed.device}"
    return launch.mismatch(_OP, "gradient", gradient, others)


def _cut(g: torch.Tensor) -> tuple[int, int, int, int]:
    """Rows, columns, programs of a row, and tiles of each."""
    N = g.shape[0]
    D = g.numel() // N if N else 0
    tiles = triton.cdiv(D, _TILE)
    wanted = min(_MAX_SPLITS, tiles, _PROGRAMS * launch.processors(g) // max(1, N))
    each = triton.cdiv(tiles, max(1, wanted))
    return N, D, max(1, triton.cdiv(tiles, max(1, each))), each


def _kind(kind: int, one_sided: bool) -> dict[str, bool]:
    return {"OF_SQUARE": kind in (1, 2), "ONE_SIDED": one_sided}


def _share(N: int, reduction: int) -> float:
    return 1.0 / max(1, N) if reduction == _MEAN else 1.0


def _sums(a: torch.Tensor, b: torch.Tensor, N: int, D: int, splits: int, tiles: int):
    sums = a.new_empty((N, splits), dtype=torch.float64)
    with launch.on(a):
        gradient_penalty_sums_kernel[launch.programs(_OP, N * splits)](
            a, b, sums, D, splits, tiles, B=_TILE, num_warps=_WARPS
        )
    return sums


def forward(
    gradient: torch.Tensor,
    annealed: torch.Tensor | None,
    kind: int,
    target: float,
    weight: float,
    one_sided: bool,
    reduction: int,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    launch.require(unsupported(gradient, annealed=annealed))
    g = gradient.contiguous()
    N, D, splits, tiles = _cut(g)
    out = g.new_empty(() if reduction else N)
    norms = g.new_empty(N, dtype=torch.float64)
    if N == 0:
        return out.fill_(float("nan") if reduction == _MEAN else 0.0), norms
    sums = _sums(g, g, N, D, splits, tiles)
    with launch.on(g):
        gradient_penalty_items_kernel[(1,)](
            sums, norms, annealed, out, None, N, splits, target, weight, _share(N, reduction),
            SECOND=False, REDUCES=reduction > 0, **_kind(kind, one_sided), B=_ITEMS,
            num_warps=_WARPS, maxnreg=_REGISTERS,
        )  # fmt: skip
    return out, norms if save else norms[:0]


def _apply(g, h, upstream, norms, products, annealed, options, y):
    N, D, splits, tiles = _cut(g)
    kind, target, weight, one_sided, reduction = options
    if N and D:
        with launch.on(g):
            gradient_penalty_apply_kernel[launch.programs(_OP, N * splits)](
                g, h, upstream.contiguous(), norms, products, annealed, y, D, splits, tiles,
                target, weight, _share(N, reduction), REDUCES=reduction > 0,
                **_kind(kind, one_sided), DTYPE=accumulator(g.dtype), B=_TILE, num_warps=_WARPS,
            )  # fmt: skip
    return y


def backward(
    upstream_0: torch.Tensor | None,
    gradient: torch.Tensor,
    annealed: torch.Tensor | None,
    norms: torch.Tensor,
    kind: int,
    target: float,
    weight: float,
    one_sided: bool,
    reduction: int,
    needs_gradient: bool,
) -> torch.Tensor:
    launch.require(unsupported(gradient, annealed=annealed, upstream_0=upstream_0))
    if not needs_gradient:
        return gradient.new_empty(0)
    g, options = gradient.contiguous(), (kind, target, weight, one_sided, reduction)
    return _apply(g, None, upstream_0, norms, None, annealed, options, torch.empty_like(g))


def backward_backward(
    second_0: torch.Tensor | None,
    upstream_0: torch.Tensor | None,
    gradient: torch.Tensor,
    annealed: torch.Tensor | None,
    norms: torch.Tensor,
    kind: int,
    target: float,
    weight: float,
    one_sided: bool,
    reduction: int,
    needs_gradient: bool,
    second_needs_upstream_0: bool,
    second_needs_gradient: bool,
) -> tuple[torch.Tensor, ...]:
    given = {"upstream_0": upstream_0, "second_0": second_0}
    launch.require(unsupported(gradient, annealed=annealed, **given))
    assert upstream_0 is not None and second_0 is not None
    g, h = gradient.contiguous(), second_0.contiguous()
    N, D, splits, tiles = _cut(g)
    d_u = g.new_empty(upstream_0.shape if second_needs_upstream_0 else 0)
    d_g = g.new_empty(g.shape if second_needs_gradient else 0)
    if N == 0:
        return d_u.zero_(), d_g
    products = g.new_empty(N, dtype=torch.float64)
    sums = _sums(g, h, N, D, splits, tiles)
    with launch.on(g):
        gradient_penalty_items_kernel[(1,)](
            sums, norms, annealed, d_u if second_needs_upstream_0 else None, products, N, splits,
            target, weight, _share(N, reduction), SECOND=True, REDUCES=reduction > 0,
            **_kind(kind, one_sided), B=_ITEMS, num_warps=_WARPS, maxnreg=_REGISTERS,
        )  # fmt: skip
    if second_needs_gradient:
        options = (kind, target, weight, one_sided, reduction)
        _apply(g, h, upstream_0, norms, products, annealed, options, d_g)
    return d_u, d_g


MAX_LAUNCHES = {"gradient_penalty_forward": 2, "gradient_penalty_backward_backward": 3}
LAUNCHERS = {
    "gradient_penalty_forward": forward,
    "gradient_penalty_backward": backward,
    "gradient_penalty_backward_backward": backward_backward,
}


def _calls(dtype: torch.dtype, N: int, D: int, kind: int, reduction: int, annealed: bool):
    g = torch.empty(N, D, dtype=dtype, device="meta")
    target = torch.empty((), dtype=torch.float64, device="meta") if annealed else None
    options = (kind, 1.0, 10.0, kind == 3, reduction)
    up, norms = g.new_empty(() if reduction else N), g.new_empty(N, dtype=torch.float64)
    yield "gradient_penalty_forward", (g, target, *options, True)
    yield "gradient_penalty_backward", (up, g, target, norms, *options, True)
    needs = (True, True, True)
    yield "gradient_penalty_backward_backward", (g, up, g, target, norms, *options, *needs)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every formula and reduction, on meta tensors."""
    for dtype, kind in itertools.product(spec.FLOATING, (0, 1, 3)):
        for reduction in (0, 1):
            yield from _calls(dtype, 4, 3000, kind, reduction, kind == 0 and reduction == 1)


# First and second order are two variants of one kernel.
VARIANTS = {"gradient_penalty_items_kernel": 2, "gradient_penalty_apply_kernel": 2}


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, n, 37 * n, 0, 1, False)
