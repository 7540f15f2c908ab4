"""Spectral normalisation: all weights of a network in one call."""

from collections.abc import Sequence

import torch

from genkern import checks
from genkern.reference import spectral_norm as reference

_OP = "spectral_norm"


def spectral_norm_step(
    weights: Sequence[torch.Tensor],
    u: Sequence[torch.Tensor],
    v: Sequence[torch.Tensor],
    *,
    dim: int | Sequence[int] = 0,
    steps: int = 1,
    eps: float = 1e-12,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    dims = [dim] * len(weights) if isinstance(dim, int) else dim
    with torch.no_grad():
        each = [reference.step(w, a, b, d, steps, eps)
                for w, a, b, d in zip(weights, u, v, dims, strict=True)]  # fmt: skip
    return [a for a, _ in each], [b for _, b in each]


def spectral_norm(
    weights: Sequence[torch.Tensor],
    u: Sequence[torch.Tensor],
    v: Sequence[torch.Tensor],
    *,
    dim: int | Sequence[int] = 0,
) -> list[torch.Tensor]:
    dims = [dim] * len(weights) if isinstance(dim, int) else dim
    return [reference.forward(w, a, b, d) for w, a, b, d in zip(weights, u, v, dims, strict=True)]
