"""Masked convolution as a drop-in for nn.Conv2d."""

import math

import torch
from torch import nn

from genkern import checks
from genkern.ops.masked_conv2d import masked_conv2d


class MaskedConv2d(nn.Module):
    """`genkern.masked_conv2d` with a weight and a bias; ``state_dict`` names of nn.Conv2d.

    Args:
        in_channels, out_channels: channels of the input and the output.
        kernel_size: an integer k or (kh, kw); the centre tap is (kh // 2, kw // 2).
        mask_type: "A" excludes the centre pixel (first layer), "B" includes it.
        data_channels: colours of the data; features are split in that many contiguous groups.
        dilation: distance between taps, pixels.
        bias: whether to add a bias.

    The weight is drawn as by nn.Conv2d, with the fan-in of the live taps.

    Shape: (N, in_channels, H, W) to (N, out_channels, H, W), or both without N.

    Raises:
        ValueError: an option is out of range; its name and the range are in the message.

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        mask_type: str = "B",
        data_channels: int = 1,
        dilation: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.check_option("MaskedConv2d", "mask_type", mask_type, ("A", "B"))
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        for name, value, most in (
            ("in_channels", in_channels, math.inf),
            ("out_channels", out_channels, math.inf),
            ("kernel_size", kh, math.inf),
            ("kernel_size", kw, math.inf),
            ("data_channels", data_channels, min(in_channels, out_channels)),
            ("dilation", dilation, math.inf),
        ):
            checks.check_number("MaskedConv2d", name, value, minimum=1, maximum=most, integer=True)
        self.mask_type = mask_type
        self.data_channels = data_channels
        self.dilation = dilation
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, kh, kw, device=device, dtype=dtype)
        )
        self.bias = (
            nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _, in_channels, kh, kw = self.weight.shape
        live_taps = (kh // 2) * kw + kw // 2 + (self.mask_type == "B")
        bound = 1.0 / math.sqrt(max(1, in_channels * live_taps))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return masked_conv2d(
            input,
            self.weight,
            self.bias,
            mask_type=self.mask_type,
            data_channels=self.data_channels,
            dilation=self.dilation,
        )

    def extra_repr(self) -> str:
        out_channels, in_channels, kh, kw = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size=({kh}, {kw}), "
            f"mask_type={self.mask_type!r}, data_channels={self.data_channels}, "
            f"dilation={self.dilation}, bias={self.bias is not None}"
        )
