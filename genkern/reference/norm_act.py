"""What the ops of norm_act mean, in plain PyTorch."""

import torch

from genkern import spec
from genkern.reference.activations import ACTIVATIONS


def forward(
    input: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    mean: torch.Tensor | None = None,
    variance: torch.Tensor | None = None,
    over_batch: bool = False,
    act: str = "linear",
    alpha: float = 0.2,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result, and the mean and the variance (over count) that it was normalised with.

    input (N, C, ...); weight, bias (C,), (N, C), or a row of (classes, C) for each label; mean,
    variance (C,) or None: of each channel of each image, or ``over_batch`` of each channel.
    """
    ones = [1] * (input.ndim - 2)

    def of_planes(rows: torch.Tensor) -> torch.Tensor:
        return rows.to(x.dtype).view(*rows.shape, *ones)

    x = input.to(spec.accumulation(input.dtype))
    if mean is None or variance is None:
        dims = (*([0] if over_batch else []), *range(2, x.ndim))
        mean = x.mean(dims)
        variance = (x - of_planes(mean)).square().mean(dims)
    h = (x - of_planes(mean)) * torch.rsqrt(of_planes(variance) + eps)
    if weight is not None:
        h = h * of_planes(weight if labels is None else weight[labels])
    if bias is not None:
        h = h + of_planes(bias if labels is None else bias[labels])
    return ACTIVATIONS[act](h, alpha).to(input.dtype), mean, variance
