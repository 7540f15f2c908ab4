"""Grey of colours."""

import torch


def luminance(items: torch.Tensor) -> torch.Tensor:
    """Levels (N, C, H, W) to (N, 1, H, W): of three colours as ITU-R BT.601 weighs them, of
    others their mean; rounded to a level."""
    C = items.shape[1]
    weights = (0.299, 0.587, 0.114) if C == 3 else (1.0 / C,) * C
    weighed = items.float() * torch.tensor(weights, device=items.device)[:, None, None]
    return weighed.sum(1, keepdim=True).round().to(items.dtype)
