"""One Row LSTM layer."""

import math
from typing import Any

import torch
from torch import nn

from genkern import checks
from genkern.nn.masked_conv2d import MaskedConv2d
from genkern.ops.row_lstm import row_lstm


def _check_sizes(features: int, hidden_size: int, kernel_size: int, data_channels: int) -> None:
    sizes = {"features": features, "hidden_size": hidden_size, "kernel_size": kernel_size}
    for name, value in sizes.items():
        checks.check_number("RowLSTM", name, value, minimum=1, integer=True)
    most = min(features, hidden_size)
    checks.check_number(
        "RowLSTM", "data_channels", data_channels, minimum=1, maximum=most, integer=True
    )


class RowLSTM(nn.Module):
    """Row LSTM layer: masked 1 x k input-to-state convolution, `genkern.row_lstm`, residual.

    Args:
        features: channels of the input and the output (2h in the paper).
        hidden_size: channels of the recurrent state (h in the paper).
        kernel_size: odd width k of both convolutions along the row, pixels.
        mask_type: mask of the input-to-state convolution.
        data_channels: colours of the data. The units of the state, and with each unit its four
            gates, belong to that many contiguous groups; so do the features.
        residual: adds a 1 x 1 convolution (mask "B") of the state to the input; otherwise the
            state is the output and ``features`` counts input channels only.
        learned_state: learns the state above the first row, one value a channel; otherwise 0.

    ``state_dict``: ``input_to_state.weight`` (4h, features, 1, k), ``input_to_state.bias`` (4h),
    ``weight_hh`` (4h, h, k), all in the gate order o, f, i, g, units within a gate, whatever
    ``data_channels``; ``h0``, ``c0`` (h); ``output.weight`` (features, h, 1, 1), ``output.bias``.

    Weights of public code load after what their variant asks for, once. Another order of the gates,
    say i, g, f, o, is a permutation::

        order = ["igfo".index(gate) for gate in "ofig"]
        ours = theirs.unflatten(0, (4, -1))[order].flatten(0, 1)  # weights and biases alike

    A bias of the state-to-state convolution is added to ``input_to_state.bias``. A start state for
    each column is an argument of `genkern.row_lstm`: ``h0`` (N, h, W). A candidate g through a
    sigmoid is another recurrence, which no change of the weights makes of this one.

    Shape: (N, features, H, W) to (N, features or hidden_size, H, W), or both without N.

    Raises:
        TypeError, ValueError: a size is not a positive integer, ``kernel_size`` is even, the
            input has another shape,
            ``mask_type`` unknown, or "A" with a residual, which would pass the centre pixel on.

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(features, hidden_size, kernel_size, data_channels)
        if kernel_size % 2 == 0:
            raise ValueError(f"RowLSTM: kernel_size must be odd; got {kernel_size}")
        for name, flag in (("residual", residual), ("learned_state", learned_state)):
            checks.check_bool("RowLSTM", name, flag)
        checks.check_option("RowLSTM", "mask_type", mask_type, ("A", "B"))
        if mask_type == "A" and residual:
            raise ValueError(
                "RowLSTM: residual must be False with mask_type 'A', because the residual passes "
                "the centre pixel on; got True"
            )
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.data_channels = data_channels
        self.input_to_state = MaskedConv2d(
            features,
            4 * hidden_size,
            (1, kernel_size),
            mask_type=mask_type,
            data_channels=data_channels,
            parts=4,  # colours split each gate, so that a unit has one colour
            **place,
        )
        self.weight_hh = nn.Parameter(
            torch.empty(4 * hidden_size, hidden_size, kernel_size, **place)
        )
        self.h0 = nn.Parameter(torch.empty(hidden_size, **place)) if learned_state else None
        self.c0 = nn.Parameter(torch.empty(hidden_size, **place)) if learned_state else None
        self.output = (
            MaskedConv2d(hidden_size, features, 1, data_channels=data_channels, **place)
            if residual
            else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.input_to_state.reset_parameters()
        if self.output is not None:
            self.output.reset_parameters()
        bound = 1.0 / math.sqrt(self.weight_hh[0].numel())
        nn.init.uniform_(self.weight_hh, -bound, bound)
        if self.h0 is not None and self.c0 is not None:
            nn.init.zeros_(self.h0)
            nn.init.zeros_(self.c0)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        checks.check_tensor("RowLSTM", "input", input)
        if input.ndim == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        features = self.input_to_state.in_channels
        if input.ndim != 4 or input.shape[1] != features:
            raise ValueError(
                f"RowLSTM: input must have shape (N, {features}, H, W) or ({features}, H, W); "
                f"got {tuple(input.shape)}"
            )
        gates = self.input_to_state(input)
        shape = (input.shape[0], self.weight_hh.shape[1], input.shape[3])
        h0 = None if self.h0 is None else self.h0[:, None].expand(shape).to(gates.dtype)
        c0 = None if self.c0 is None else self.c0[:, None].expand(shape).to(gates.dtype)
        h, _ = row_lstm(gates, self.weight_hh, h0, c0)
        return h if self.output is None else input + self.output(h)

    def extra_repr(self) -> str:
        _, hidden_size, kernel_size = self.weight_hh.shape
        return (
            f"{self.input_to_state.weight.shape[1]}, {hidden_size}, kernel_size={kernel_size}, "
            f"mask_type={self.input_to_state.mask_type!r}, data_channels={self.data_channels}, "
            f"residual={self.output is not None}, learned_state={self.h0 is not None}"
        )
