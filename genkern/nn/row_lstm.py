"""One Row LSTM layer."""

import math

import torch
from torch import nn

from genkern.nn.masked_conv2d import MaskedConv2d
from genkern.ops.row_lstm import row_lstm


class RowLSTM(nn.Module):
    """Row LSTM layer: masked 1 x k input-to-state convolution, `genkern.row_lstm`, residual.

    Args:
        features: channels of the input and the output (2h in the paper).
        hidden_size: channels of the recurrent state (h in the paper).
        kernel_size: odd width k of both convolutions along the row, pixels.
        mask_type: mask of the input-to-state convolution.
        residual: adds a 1 x 1 convolution of the state to the input; otherwise the state is
            the output and ``features`` counts input channels only.
        learned_state: learns the state above the first row, one value a channel; otherwise 0.

    Shape: (N, features, H, W) to (N, features or hidden_size, H, W).
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.1 and 3.3.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        *,
        kernel_size: int = 3,
        mask_type: str = "B",
        data_channels: int = 1,
        residual: bool = True,
        learned_state: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"RowLSTM: kernel_size must be odd and positive; got {kernel_size}")
        self.input_to_state = MaskedConv2d(
            features,
            4 * hidden_size,
            (1, kernel_size),
            mask_type=mask_type,
            data_channels=data_channels,
        )
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size, kernel_size))
        self.h0 = nn.Parameter(torch.zeros(hidden_size)) if learned_state else None
        self.c0 = nn.Parameter(torch.zeros(hidden_size)) if learned_state else None
        self.output = (
            MaskedConv2d(hidden_size, features, 1, data_channels=data_channels)
            if residual
            else None
        )
        bound = 1.0 / math.sqrt(hidden_size * kernel_size)
        nn.init.uniform_(self.weight_hh, -bound, bound)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        gates = self.input_to_state(input)
        shape = (input.shape[0], self.weight_hh.shape[1], input.shape[3])
        h0 = None if self.h0 is None else self.h0[:, None].expand(shape).to(gates.dtype)
        c0 = None if self.c0 is None else self.c0[:, None].expand(shape).to(gates.dtype)
        h, _ = row_lstm(gates, self.weight_hh, h0, c0)
        return h if self.output is None else input + self.output(h)
