"""What the filtered activation means, in plain PyTorch."""

import torch

from genkern.reference import upfirdn2d
from genkern.reference.activations import ACTIVATIONS


def forward(
    input: torch.Tensor,
    bias: torch.Tensor | None,
    up_filter: torch.Tensor,
    down_filter: torch.Tensor,
    up: int = 2,
    down: int = 2,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    act: str = "lrelu",
    alpha: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
) -> torch.Tensor:
    """input (N, C, H, W), bias (C,), filters (taps,) or (H taps, W taps), padding left, right, top,
    bottom."""
    if bias is not None:
        input = input + bias[:, None, None]
    tall = upfirdn2d.forward(input, up_filter, up, 1, padding, float(up * up))
    tall = ACTIVATIONS[act](tall, alpha) * gain
    if clamp is not None:
        tall = tall.clamp(-clamp, clamp)
    return upfirdn2d.forward(tall, down_filter, 1, down)
