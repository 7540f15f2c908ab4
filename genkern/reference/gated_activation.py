"""What `gated_activation` means, in plain PyTorch."""

import torch


def forward(input: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
    """input (N, 2C, H, W); condition (N, 2C) or the shape of the input."""
    if condition is not None:
        input = input + (condition[:, :, None, None] if condition.ndim == 2 else condition)
    a, b = input.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)
