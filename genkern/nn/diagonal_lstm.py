"""One Diagonal BiLSTM layer."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from genkern import checks
from genkern.nn.masked_conv2d import MaskedConv2d
from genkern.ops.diagonal_lstm import diagonal_lstm


class _Direction(nn.Module):
    """Masked 1 x 1 input-to-state convolution and the recurrence of one direction."""

    def __init__(
        self, features: int, hidden_size: int, reverse: bool, learned_state: bool, **options: Any
    ) -> None:
        super().__init__()
        place = {"device": options["device"], "dtype": options["dtype"]}
        self.reverse = reverse
        # Colours split each gate, so that a unit has one colour.
        self.input_to_state = MaskedConv2d(features, 4 * hidden_size, 1, parts=4, **options)
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size, 2, **place))
        self.h0 = nn.Parameter(torch.empty(hidden_size, **place)) if learned_state else None
        self.c0 = nn.Parameter(torch.empty(hidden_size, **place)) if learned_state else None

    def reset_parameters(self) -> None:
        self.input_to_state.reset_parameters()
        bound = 1.0 / math.sqrt(self.weight_hh[0].numel())
        nn.init.uniform_(self.weight_hh, -bound, bound)
        if self.h0 is not None and self.c0 is not None:
            nn.init.zeros_(self.h0)
            nn.init.zeros_(self.c0)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        gates = self.input_to_state(input)
        shape = (input.shape[0], self.weight_hh.shape[1], input.shape[2])
        h0 = None if self.h0 is None else self.h0[:, None].expand(shape).to(gates.dtype)
        c0 = None if self.c0 is None else self.c0[:, None].expand(shape).to(gates.dtype)
        return diagonal_lstm(gates, self.weight_hh, h0, c0, reverse=self.reverse)


class DiagonalBiLSTM(nn.Module):
    """Diagonal BiLSTM layer: from the left and from the right, `genkern.diagonal_lstm`; residual.

    The right-to-left states of a row have seen all of it. They move down by one row (zeros come in
    on top) before they are added to the left-to-right ones, so that no pixel sees a later one.

    Args:
        features: channels of the input and the output (2h in the paper).
        hidden_size: channels of the recurrent state of each direction (h in the paper).
        data_channels: colours of the data. The units of the state, and with each unit its four
            gates, belong to that many contiguous groups; so do the features.
        residual: adds a 1 x 1 convolution (mask "B") of the sum of the states to the input;
            otherwise the sum is the output and ``features`` counts input channels only.
        learned_state: learns the state that rows start with, one value a channel and direction;
            otherwise 0. (Rows of the paper's padded map start with what the bias made of the
            padding: see `genkern.diagonal_lstm`.)

    ``state_dict``, for ``left`` and ``right``, where the direction starts:
    ``left.input_to_state.weight`` (4h, features, 1, 1), ``left.input_to_state.bias`` (4h),
    ``left.weight_hh`` (4h, h, 2), taps [row above, same row], all in the gate order o, f, i, g,
    units within a gate, whatever ``data_channels``; ``left.h0``, ``left.c0`` (h);
    ``output.weight`` (features, h, 1, 1), ``output.bias``.

    Shape: (N, features, H, W) to (N, features or hidden_size, H, W), or both without N.

    Raises:
        TypeError, ValueError: a size is not a positive integer, a flag is no bool, the input has
            another shape.

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.2 and 3.3.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        *,
        data_channels: int = 1,
        residual: bool = True,
        learned_state: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = "DiagonalBiLSTM"
        for size, value in (("features", features), ("hidden_size", hidden_size)):
            checks.check_number(name, size, value, minimum=1, integer=True)
        most = min(features, hidden_size)
        checks.check_number(
            name, "data_channels", data_channels, minimum=1, maximum=most, integer=True
        )
        for flag, given in (("residual", residual), ("learned_state", learned_state)):
            checks.check_bool(name, flag, given)
        options: dict[str, Any] = {"data_channels": data_channels, "device": device, "dtype": dtype}
        self.left = _Direction(features, hidden_size, False, learned_state, **options)
        self.right = _Direction(features, hidden_size, True, learned_state, **options)
        self.output = MaskedConv2d(hidden_size, features, 1, **options) if residual else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.left.reset_parameters()
        self.right.reset_parameters()
        if self.output is not None:
            self.output.reset_parameters()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        checks.check_tensor("DiagonalBiLSTM", "input", input)
        if input.ndim == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        features = self.left.input_to_state.in_channels
        if input.ndim != 4 or input.shape[1] != features:
            raise ValueError(
                f"DiagonalBiLSTM: input must have shape (N, {features}, H, W) or "
                f"({features}, H, W); got {tuple(input.shape)}"
            )
        h = self.left(input) + F.pad(self.right(input), (0, 0, 1, 0))[:, :, :-1]
        return h if self.output is None else input + self.output(h)

    def extra_repr(self) -> str:
        layer = self.left.input_to_state
        return (
            f"{layer.in_channels}, {layer.out_channels // 4}, data_channels={layer.data_channels}, "
            f"residual={self.output is not None}, learned_state={self.left.h0 is not None}"
        )
