"""What the gradient penalties mean, in plain PyTorch."""

import torch


def terms(
    gradient: torch.Tensor,
    kind: str = "wgan_gp",
    target: float | torch.Tensor = 1.0,
    weight: float = 10.0,
    one_sided: bool = False,
) -> torch.Tensor:
    """gradient (N, ...): the penalty of each item, (N,)."""
    square = gradient.square().reshape(gradient.shape[0], gradient[:1].numel()).sum(1)
    if kind in ("r1", "r2"):
        return 0.5 * weight * square
    is_zero = square == 0  # where a root has no derivative, and the penalty's is defined as 0
    norm = torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, square).sqrt())
    excess = norm - target
    return weight * (torch.relu(excess) if one_sided else excess).square()


def forward(
    gradient: torch.Tensor,
    kind: str = "wgan_gp",
    target: float | torch.Tensor = 1.0,
    weight: float = 10.0,
    one_sided: bool = False,
    reduction: str = "mean",
) -> torch.Tensor:
    values = terms(gradient, kind, target, weight, one_sided)
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values
