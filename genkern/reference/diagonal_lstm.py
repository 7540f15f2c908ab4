"""What `diagonal_lstm` means, in plain PyTorch: a loop over diagonals of one convolution and an
LSTM cell."""

import torch
import torch.nn.functional as F


def step(
    input_gates: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weight_hh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Consecutive rows of a diagonal: input_gates (N, 4h, rows), c (N, h, rows) of the pixels on
    their left; h (N, h, 1 + rows) of these, and of the pixel above the first one."""
    o, f, i, g = (input_gates + F.conv1d(h, weight_hh)).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def forward(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None = None,
    c0: torch.Tensor | None = None,
    reverse: bool = False,
) -> torch.Tensor:
    """Returns h (N, h, H, W)."""
    if reverse:
        return forward(input_gates.flip(3), weight_hh, h0, c0).flip(3)
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    if N * hidden * H * W == 0:
        return input_gates.new_zeros(N, hidden, H, W)
    # Of each row the pixel that came last; at the start what lies left of the image. No row is
    # above the first one.
    h = input_gates.new_zeros(N, hidden, H) if h0 is None else h0
    c = input_gates.new_zeros(N, hidden, H) if c0 is None else c0
    h, states = F.pad(h, (1, 0)), []
    for t in range(H + W - 1):
        top, end = max(0, t - W + 1), min(H, t + 1)  # rows that the diagonal r + column = t crosses
        r = torch.arange(top, end, device=h.device)
        above_and_left = h[:, :, top : end + 1]
        new_h, new_c = step(
            input_gates[:, :, r, t - r], above_and_left, c[:, :, top:end], weight_hh
        )
        h = torch.cat([h[:, :, : top + 1], new_h, h[:, :, end + 1 :]], 2)
        c = torch.cat([c[:, :, :top], new_c, c[:, :, end:]], 2)
        states.append(h)
    skewed = torch.stack(states, 3)
    return torch.stack([skewed[:, :, r + 1, r : r + W] for r in range(H)], 2)
