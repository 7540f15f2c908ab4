"""What `row_lstm` means, in plain PyTorch: a loop over rows of one convolution and an LSTM cell."""

import torch
import torch.nn.functional as F


def step(
    input_gates_row: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weight_hh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """input_gates_row (N, 4h, W); h, c (N, h, W); weight_hh (4h, h, k); gate order o, f, i, g."""
    gates = input_gates_row
    if gates.numel():
        gates = gates + F.conv1d(h, weight_hh, padding=weight_hh.shape[2] // 2)
    o, f, i, g = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def forward(
    input_gates: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor | None = None,
    c0: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns h (N, h, H, W), h_n (N, h, W), c_n (N, h, W)."""
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    h = input_gates.new_zeros(N, hidden, W) if h0 is None else h0
    c = input_gates.new_zeros(N, hidden, W) if c0 is None else c0
    rows = []
    for r in range(H):
        h, c = step(input_gates[:, :, r], h, c, weight_hh)
        rows.append(h)
    output = torch.stack(rows, dim=2) if rows else input_gates.new_zeros(N, hidden, 0, W)
    return output, h, c
