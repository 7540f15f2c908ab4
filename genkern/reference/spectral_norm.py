"""What spectral normalisation means, in plain PyTorch: of one weight, as a matrix."""

import torch
import torch.nn.functional as F


def matrix(weight: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """(rows, columns): dimension ``dim`` against all others."""
    rows = weight.movedim(dim, 0)
    return rows.reshape(rows.shape[0], rows[:1].numel())


def step(
    weight: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    dim: int = 0,
    steps: int = 1,
    eps: float = 1e-12,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Power iteration: u (rows,) and v (columns,) nearer to the largest singular vectors."""
    w = matrix(weight, dim)
    for _ in range(steps):
        u = F.normalize(w @ v, dim=0, eps=eps)
        v = F.normalize(w.T @ u, dim=0, eps=eps)
    return u, v


def forward(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """W / (u^T W v), u and v constants."""
    return weight / (u @ (matrix(weight, dim) @ v))
