"""Masked convolution as a drop-in for nn.Conv2d."""

import math
from typing import Any

import torch
from torch import nn

from genkern import checks
from genkern.ops.masked_conv2d import MASK_TYPES, live_taps, masked_conv2d

_OP = "MaskedConv2d"
_FIXED = "a masked convolution keeps the size of the image, so that a pixel stays in its place"


def _pair(name: str, value: object) -> tuple[int, int]:
    """(height, width) of an option that is one positive integer or two."""
    pair = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"{_OP}: {name} must be an integer or two of them; got {value!r}")
    height, width = (checks.check_number(_OP, name, n, minimum=1, integer=True) for n in pair)
    return height, width


class MaskedConv2d(nn.Conv2d):
    """`genkern.masked_conv2d` as an nn.Conv2d.

    Arguments, attributes and ``state_dict`` names are those of nn.Conv2d; what a masked
    convolution does not have, it refuses and says why. A checkpoint may hold the ``mask`` that
    public code multiplies the weight by: it is compared with the mask of this layer and dropped.

    Args:
        in_channels, out_channels: channels of the input and the output.
        kernel_size: an integer k or (kh, kw); the centre tap is (kh // 2, kw // 2).
        stride: 1.
        padding: "same", or the numbers of rows and columns that "same" adds for an odd kernel,
            dilation * (k // 2).
        dilation: distance between taps, pixels.
        groups: 1; for groups of colours see ``data_channels``.
        bias: whether to add a bias.
        padding_mode: "zeros".
        mask_type: "A" excludes the centre pixel (first layer), "B" includes it.
        data_channels: colours of the data; features are split in that many contiguous groups.

    The weight is drawn as by nn.Conv2d, with the fan-in of the live taps.

    Shape: (N, in_channels, H, W) to (N, out_channels, H, W), or both without N.

    Raises:
        TypeError, ValueError: an option has another type or is out of range; its name and the
            range are in the message.

    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = "same",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mask_type: str = "B",
        data_channels: int = 1,
    ) -> None:
        if isinstance(in_channels, str):
            raise TypeError(
                f"{_OP}: in_channels must be an integer; got {in_channels!r} "
                "(the mask is a keyword: mask_type='A' or 'B')"
            )
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            checks.check_number(_OP, name, value, minimum=1, integer=True)
        most = min(in_channels, out_channels)
        checks.check_number(
            _OP, "data_channels", data_channels, minimum=1, maximum=most, integer=True
        )
        checks.check_option(_OP, "mask_type", mask_type, MASK_TYPES)
        checks.check_bool(_OP, "bias", bias)
        _check_fixed(stride, groups, padding_mode)
        kernel, spacing = _pair("kernel_size", kernel_size), _dilation(dilation)
        place: dict[str, Any] = {"device": device, "dtype": _dtype(dtype)}
        self.mask_type, self.data_channels = mask_type, data_channels
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            padding=_padding(padding, kernel, spacing),  # type: ignore[arg-type]
            dilation=spacing,
            bias=bias,
            **place,
        )

    def reset_parameters(self) -> None:
        _, in_channels, kh, kw = self.weight.shape
        live = (kh // 2) * kw + kw // 2 + (self.mask_type == "B")
        bound = 1.0 / math.sqrt(max(1, in_channels * live))
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
            dilation=self.dilation if isinstance(self.dilation, int) else self.dilation[0],
        )

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        mask, errors = state_dict.pop(f"{prefix}mask", None), arguments[-1]
        if isinstance(mask, torch.Tensor):
            live = live_taps(self.weight.shape, self.mask_type, self.data_channels)
            errors += _mask_errors(f"{prefix}mask", mask, live)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"mask_type={self.mask_type!r}, data_channels={self.data_channels}, "
            f"dilation={self.dilation[0]}, bias={self.bias is not None}"
        )


def _padding(
    given: object, kernel: tuple[int, int], dilation: tuple[int, int]
) -> str | tuple[int, ...]:
    """What keeps the size: rows and columns, or "same" where the two sides differ."""
    sizes = zip(kernel, dilation, strict=True)
    same = tuple(d * (k // 2) for k, d in sizes) if kernel[0] % 2 and kernel[1] % 2 else "same"
    pair = (given, given) if type(given) is int else given
    if given != "same" and (not isinstance(pair, (tuple, list)) or tuple(pair) != same):
        also = "" if same == "same" else f" or {same}"
        raise ValueError(f"{_OP}: padding must be 'same'{also} ({_FIXED}); got {given!r}")
    return same


def _dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    if dtype is not None and dtype not in checks.FLOATING:
        names = ", ".join(map(checks.dtype_name, checks.FLOATING))
        raise TypeError(f"{_OP}: dtype must be one of {names}; got {dtype}")
    return dtype


def _dilation(value: object) -> tuple[int, int]:
    pair = _pair("dilation", value)
    if pair[0] != pair[1]:
        raise ValueError(f"{_OP}: dilation must be the same along both axes; got {value!r}")
    return pair


def _check_fixed(stride: object, groups: object, padding_mode: object) -> None:
    """The options of nn.Conv2d that have one value here."""
    if _pair("stride", stride) != (1, 1):
        raise ValueError(f"{_OP}: stride must be 1 ({_FIXED}); got {stride!r}")
    checks.check_number(_OP, "groups", groups, minimum=1, integer=True)
    if groups != 1:
        raise ValueError(
            f"{_OP}: groups must be 1 (colours have an order: data_channels); got {groups!r}"
        )
    checks.check_option(_OP, "padding_mode", padding_mode, ("zeros",))


def _mask_errors(name: str, mask: torch.Tensor, live: torch.Tensor) -> list[str]:
    """Where the mask of a checkpoint is not that of the layer."""
    if mask.is_meta:
        return [f"{name} must hold the mask of this layer; got a tensor on meta"]
    try:
        given = mask.detach().cpu().expand(live.shape)
    except RuntimeError:
        return [f"{name} must have shape {tuple(live.shape)}; got {tuple(mask.shape)}"]
    wrong = (given != live.to(given.dtype)).nonzero().tolist()
    if not wrong:
        return []
    at = tuple(wrong[0])
    return [
        f"{name} must be the mask of this layer, {int(live[at])} at {at}; got {given[at].item():g} "
        f"there, and {len(wrong)} elements differ (see mask_type and data_channels)"
    ]
