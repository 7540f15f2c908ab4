"""What `upfirdn2d` means, in plain PyTorch."""

import torch
import torch.nn.functional as F


def forward(
    input: torch.Tensor,
    filter: torch.Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> torch.Tensor:
    """input (N, C, H, W); filter (taps,) or (H taps, W taps); padding left, right, top, bottom."""
    N, C, H, W = input.shape
    x = input.to(filter.dtype).reshape(N * C, 1, H, 1, W, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(N * C, 1, H * up, W * up)
    left, right, top, bottom = padding
    x = F.pad(x, [max(side, 0) for side in padding])  # what is below 0 crops
    x = x[:, :, max(-top, 0) : x.shape[2] - max(-bottom, 0)]
    x = x[..., max(-left, 0) : x.shape[3] - max(-right, 0)]
    kernel = filter.outer(filter) if filter.ndim == 1 else filter
    y = F.conv2d(x, (kernel * gain).flip(0, 1)[None, None])[:, :, ::down, ::down]
    return y.reshape(N, C, *y.shape[2:]).to(input.dtype)
