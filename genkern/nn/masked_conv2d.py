"""Masked convolution as a drop-in for nn.Conv2d."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from genkern import checks
from genkern.ops.masked_conv2d import check_options, group_ends, live_taps, masked_conv2d

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

    ======================================================  =============================
    layer of a published model (k, n odd)                   arguments
    ======================================================  =============================
    PixelCNN, first and later ones                          k, mask_type="A"; k, "B"
    Gated PixelCNN, vertical stack                          (n // 2 + 1, n), "rows"
    - as in code that drops the row of the pixel            (n // 2, n), "rows_above"
    Gated PixelCNN, horizontal stack                        (1, n // 2 + 1), "left"
    - its first layer                                       (1, n // 2), "left_before"
    - its first layer, with colours                         (1, n), "A", data_channels=3
    PixelCNN++ down_shifted_conv2d                          (2, 3), "rows"
    PixelCNN++ down_right_shifted_conv2d                    (2, 2), "left"
    PixelCNN++ first layers: down_shift of (2, 3), (1, 3)   (2, 3), (1, 3), "rows_above"
    - right_shift of (2, 1)                                 (2, 1), "left_before"
    ======================================================  =============================

    What follows a vertical "rows" layer moves its output one row down before it meets the pixel's
    own row: ``F.pad(y, (0, 0, 1, 0))[:, :, :-1]``. PixelCNN++ moves the output of its first layers,
    so that its first row (column) is 0 where "rows_above" ("left_before") has the bias. Weight
    normalisation is torch's: ``torch.nn.utils.parametrizations.weight_norm(layer)``.

    Args:
        in_channels, out_channels: channels of the input and the output.
        kernel_size: an integer k or (kh, kw).
        stride: 1.
        padding: "same", or, for the masks "A" and "B", the numbers of rows and columns that "same"
            adds for an odd kernel, dilation * (k // 2).
        dilation: distance between taps, pixels.
        groups: 1; for groups of colours see ``data_channels``.
        bias: whether to add a bias.
        padding_mode: "zeros".
        mask_type: "A", "B", "rows", "rows_above", "left" or "left_before", as `masked_conv2d` draws
            them.
        data_channels: colours of the data; features are split in that many contiguous groups. For
            checkpoints whose colours are interleaved see `contiguous_colours`.
        parts: of the output channels, each with groups of its own: 2 before `gated_activation`.

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
        parts: int = 1,
    ) -> None:
        if isinstance(in_channels, str):
            raise TypeError(
                f"{_OP}: in_channels must be an integer; got {in_channels!r} "
                "(the mask is a keyword: mask_type='A' or 'B')"
            )
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            checks.check_number(_OP, name, value, minimum=1, integer=True)
        check_options(_OP, out_channels, in_channels, mask_type, data_channels, parts)
        checks.check_bool(_OP, "bias", bias)
        _check_fixed(stride, groups, padding_mode)
        kernel, spacing = _pair("kernel_size", kernel_size), _dilation(dilation)
        place: dict[str, Any] = {"device": device, "dtype": _dtype(dtype)}
        self.mask_type, self.data_channels, self.parts = mask_type, data_channels, parts
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            padding=_padding(padding, kernel, spacing, mask_type),  # type: ignore[arg-type]
            dilation=spacing,
            bias=bias,
            **place,
        )

    def reset_parameters(self) -> None:
        _, in_channels, *kernel = self.weight.shape
        live = int(live_taps((1, 1, *kernel), self.mask_type, 1).sum())
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
            parts=self.parts,
        )

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        mask, errors = state_dict.pop(f"{prefix}mask", None), arguments[-1]
        if isinstance(mask, torch.Tensor):
            live = live_taps(self.weight.shape, self.mask_type, self.data_channels, self.parts)
            errors += _mask_errors(f"{prefix}mask", mask, live, self.data_channels, self.parts)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"mask_type={self.mask_type!r}, data_channels={self.data_channels}, "
            f"dilation={self.dilation[0]}, bias={self.bias is not None}"
            + (f", parts={self.parts}" if self.parts != 1 else "")
        )


def _padding(
    given: object, kernel: tuple[int, int], dilation: tuple[int, int], mask_type: str
) -> str | tuple[int, ...]:
    """What keeps the size: rows and columns, or "same" where the two sides differ."""
    sizes = zip(kernel, dilation, strict=True)
    is_even = mask_type in ("A", "B") and kernel[0] % 2 and kernel[1] % 2
    same = tuple(d * (k // 2) for k, d in sizes) if is_even else "same"
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


def _mask_errors(
    name: str, mask: torch.Tensor, live: torch.Tensor, colours: int, parts: int
) -> list[str]:
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
    at, see = tuple(wrong[0]), "mask_type and data_channels"
    if _is_interleaved(given, live, colours, parts):
        see = "genkern.nn.contiguous_colours: its colours are interleaved"
    return [
        f"{name} must be the mask of this layer, {int(live[at])} at {at}; got {given[at].item():g} "
        f"there, and {len(wrong)} elements differ (see {see})"
    ]


def _is_interleaved(given: torch.Tensor, live: torch.Tensor, colours: int, parts: int) -> bool:
    try:
        found = contiguous_colours(given, colours, parts=parts)
    except ValueError:  # groups of other sizes
        return False
    return torch.equal(found, live.to(found.dtype))


def contiguous_colours(
    tensor: torch.Tensor, data_channels: int, *, dims: Sequence[int] | None = None, parts: int = 1
) -> torch.Tensor:
    """Channels whose colours are interleaved, in the contiguous groups of genkern.

    In much public code channel c of a feature map belongs to colour c mod ``data_channels``;
    genkern has the channels of a colour side by side, so that masked products are blocks. This
    permutes what has channels once, for instance a state dict::

        state = {name: nn.contiguous_colours(t, 3) for name, t in checkpoint.items()}

    In a model of masked convolutions, normalisations and functions of each channel, that is all:
    images keep their channels, and logits (channel v * data_channels + c for value v of colour c)
    come out as `pixel_cross_entropy` takes them, the values of a colour side by side.

    Args:
        tensor: a parameter, a mask, a feature map.
        data_channels: colours.
        dims: along which to permute; the first two of a kernel (C_out, C_in, kh, kw), the only one
            of a bias, by default.
        parts: of dimension 0, each interleaved by itself: 2 for the weight and the bias before
            `gated_activation`.

    Returns:
        A copy with the same shape.

    Raises:
        TypeError: ``tensor`` is no tensor, an option is no integer.
        ValueError: ``data_channels`` exceeds the channels, ``parts`` does not divide them, groups
            of the two orders have different sizes (never with 2 or 3 colours).
    """
    op = "contiguous_colours"
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{op}: tensor must be a Tensor; got {type(tensor).__name__}")
    for dim in range(min(tensor.ndim, 2)) if dims is None else dims:
        pieces = parts if dim in (0, -tensor.ndim) else 1
        order = _interleaved(op, tensor.shape[dim], data_channels, pieces)
        tensor = tensor.index_select(dim, torch.tensor(order, device=tensor.device))
    return tensor


def _interleaved(op: str, channels: int, data_channels: int, parts: int) -> list[int]:
    """Where the channels of contiguous groups stand when they are interleaved."""
    checks.check_number(op, "parts", parts, minimum=1, integer=True)
    if channels % parts:
        raise ValueError(f"{op}: parts must divide the channels = {channels}; got {parts}")
    size = channels // parts
    checks.check_number(
        op, "data_channels", data_channels, minimum=1, maximum=max(1, size), integer=True
    )
    colours = [range(c, size, data_channels) for c in range(data_channels)]
    ends = list(itertools.accumulate(map(len, colours)))
    if ends != group_ends(size, data_channels):
        raise ValueError(
            f"{op}: data_channels must divide the channels = {size} if there are more than 3; "
            f"got {data_channels}"
        )
    return [part * size + c for part in range(parts) for colour in colours for c in colour]
