"""Launchers of spectral normalisation: the products with vectors by the library, and one kernel."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.spectral_norm.kernels import spectral_norm_scale_kernel

_OP = "spectral_norm"
_TILE, _WARPS = 1024, 4


def unsupported(weight: torch.Tensor, **others: torch.Tensor | None) -> str | None:
    """Why the kernel cannot take these arguments, or None."""
    return launch.mismatch(_OP, "weight", weight, others)


def _matrix(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """(R, outer * inner), in the dtype that sums are formed in."""
    rows = weight.movedim(dim, 0)
    return rows.reshape(rows.shape[0], rows[:1].numel()).to(spec.accumulation(weight.dtype))


def _scale(x, u, v, sigma, k, dim):
    y, (R, inner) = torch.empty_like(x), (x.shape[dim], x.shape[dim + 1 :].numel())
    if x.numel():
        with launch.on(x):
            spectral_norm_scale_kernel[launch.programs(_OP, triton.cdiv(x.numel(), _TILE))](
                x, u, v, sigma, k, y, R, inner, x.numel(), DTYPE=accumulator(x.dtype), B=_TILE,
                num_warps=_WARPS,
            )  # fmt: skip
    return y


def forward(
    weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, dim: int, save: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    launch.require(unsupported(weight, u=u, v=v))
    matrix = _matrix(weight, dim)
    product = (matrix @ v.to(matrix.dtype)).double()
    sigma = (u.double() @ product).reshape(1)
    return _scale(weight.contiguous(), None, None, sigma, None, dim), sigma


def backward(
    upstream_0: torch.Tensor | None,
    weight: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    sigma: torch.Tensor,
    dim: int,
    needs_weight: bool,
) -> torch.Tensor:
    launch.require(unsupported(weight, u=u, v=v, upstream_0=upstream_0))
    if not needs_weight:
        return weight.new_empty(0)
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    d, exact = upstream_0.contiguous(), spec.accumulation(weight.dtype)
    along = torch.dot(d.reshape(-1).to(exact), weight.reshape(-1).to(exact))
    return _scale(d, u.contiguous(), v.contiguous(), sigma, along.double() / sigma, dim)


def step(
    weights: list[torch.Tensor],
    u: list[torch.Tensor],
    v: list[torch.Tensor],
    dims: list[int],
    steps: int,
    eps: float,
) -> list[torch.Tensor]:
    found = []
    for weight, a, b, dim in zip(weights, u, v, dims, strict=True):
        matrix = _matrix(weight, dim)
        a, b = a.to(matrix.dtype, copy=True), b.to(matrix.dtype, copy=True)
        for _ in range(steps):
            a = F.normalize(matrix @ b, dim=0, eps=eps)
            b = F.normalize(matrix.T @ a, dim=0, eps=eps)
        found.append((a.to(weight.dtype), b.to(weight.dtype)))
    return [a for a, _ in found] + [b for _, b in found]


LAUNCHERS = {
    "spectral_norm_forward": forward,
    "spectral_norm_backward": backward,
    "spectral_norm_step": step,
}


def _calls(dtype: torch.dtype, shape: tuple[int, ...], dim: int):
    w = torch.empty(shape, dtype=dtype, device="meta")
    u, v = w.new_empty(shape[dim]), w.new_empty(w.numel() // shape[dim])
    sigma = w.new_empty(1, dtype=torch.float64)
    yield "spectral_norm_forward", (w, u, v, dim, True)
    yield "spectral_norm_backward", (w, w, u, v, sigma, dim, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype, on meta tensors."""
    for dtype in spec.FLOATING:
        yield from _calls(dtype, (4, 3, 2, 2), 0)


VARIANTS = {"spectral_norm_scale_kernel": 2}  # forward and backward


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, (n, n + 1, n + 2), n % 2)
