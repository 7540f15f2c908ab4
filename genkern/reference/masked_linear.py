"""What `masked_linear` means, in plain PyTorch.

The kernels skip a dead weight; here it is 0, and its product with a NaN or an infinity of the input
or of an upstream gradient is NaN.
"""

import torch
import torch.nn.functional as F


def live_weights(
    in_degrees: torch.Tensor, out_degrees: torch.Tensor, strict: bool = False
) -> torch.Tensor:
    """The mask that others multiply the weight by, bool (O, I)."""
    out_degrees = out_degrees.unsqueeze(-1)
    return out_degrees > in_degrees if strict else out_degrees >= in_degrees


def forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_degrees: torch.Tensor,
    out_degrees: torch.Tensor,
    strict: bool = False,
) -> torch.Tensor:
    live = live_weights(in_degrees, out_degrees, strict)
    return F.linear(input, torch.where(live, weight, 0), bias)
