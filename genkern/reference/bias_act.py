"""What `bias_act` means, in plain PyTorch."""

import torch

from genkern.reference.activations import ACTIVATIONS


def forward(
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    act: str = "linear",
    alpha: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    dim: int = 1,
) -> torch.Tensor:
    """input of any shape, bias (input.shape[dim],)."""
    if bias is not None:
        shape = [1] * input.ndim
        shape[dim] = -1
        input = input + bias.view(shape)
    y = ACTIVATIONS[act](input, alpha) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)
