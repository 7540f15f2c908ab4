"""masked_conv2d: causal 2-D convolution that computes its live taps only."""

import torch

from genkern import checks, library
from genkern.reference import differentiable_backward
from genkern.reference import masked_conv2d as reference

_OP = "masked_conv2d"
_OPTIONS = "bool exclude_centre, int data_channels, int dilation, bool channels_last"


def _empty_image(like, channels, channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)


def _fake_forward(
    input, weight, bias, exclude_centre, data_channels, dilation, channels_last
) -> torch.Tensor:
    return _empty_image(input, weight.shape[0], channels_last)


def _fake_backward(
    d_output,
    input,
    weight,
    exclude_centre,
    data_channels,
    dilation,
    channels_last,
    need_input,
    need_weight,
    need_bias,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        _empty_image(input, weight.shape[1], channels_last) if need_input else input.new_empty(0),
        weight.new_empty(weight.shape if need_weight else 0),
        weight.new_empty(weight.shape[0] if need_bias else 0),
    )


_forward = library.define(
    f"masked_conv2d_forward(Tensor input, Tensor weight, Tensor? bias, {_OPTIONS}) -> Tensor",
    _fake_forward,
)
_backward = library.define(
    f"masked_conv2d_backward(Tensor d_output, Tensor input, Tensor weight, {_OPTIONS}, "
    "bool need_input, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)


def _is_channels_last(image: torch.Tensor) -> bool:
    # The channel dimension runs fastest, and not merely because the others have one element.
    return not image.is_contiguous() and image.stride(1) == 1 and image.shape[1] > 1


class MaskedConv2dFunction(library.Function):
    @staticmethod
    def forward(ctx, input, weight, bias, options):
        ctx.save_for_backward(input, weight, bias)
        ctx.options = options
        return _forward(input, weight, bias, *options, _is_channels_last(input))

    @staticmethod
    def backward(ctx, d_output):
        input, weight, bias = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        exclude_centre, data_channels, dilation = ctx.options
        if torch.is_grad_enabled():  # create_graph: the formula is differentiable again
            mask_type = "A" if exclude_centre else "B"
            grads = differentiable_backward(
                lambda x, w, b: reference.forward(x, w, b, mask_type, data_channels, dilation),
                (input, weight, bias),
                needs,
                (d_output,),
            )
            return *grads, None
        channels_last = _is_channels_last(input)
        d_input, d_weight, d_bias = _backward(
            d_output, input, weight, *ctx.options, channels_last, *needs
        )
        if needs[1] and d_weight.stride() != weight.stride():
            d_weight = torch.empty_like(weight).copy_(d_weight)
        return (
            d_input if needs[0] else None,
            d_weight if needs[1] else None,
            d_bias if needs[2] else None,
            None,
        )


def _check(input, weight, bias, mask_type, data_channels, dilation) -> None:
    if not checks.are_plain(input, weight):
        checks.check_tensor(_OP, "input", input)
        checks.check_like(_OP, "weight", weight, "input", input)
    image, kernel = input.shape, weight.shape
    if len(image) not in (3, 4):
        raise RuntimeError(
            f"{_OP}: input must have shape (N, C, H, W) or (C, H, W); got {tuple(image)}"
        )
    if len(kernel) != 4 or kernel[0] == 0 or kernel[2] == 0 or kernel[3] == 0:
        raise RuntimeError(
            f"{_OP}: weight must have shape (C_out, C_in, kh, kw) with C_out, kh and kw at least "
            f"1; got {tuple(kernel)}"
        )
    if image[-3] != kernel[1]:
        raise RuntimeError(
            f"{_OP}: weight.shape[1] must equal the channels of input = {image[-3]}; "
            f"got weight {tuple(kernel)}"
        )
    if bias is not None:
        checks.check_like(_OP, "bias", bias, "input", input)
        if bias.shape != kernel[:1]:
            checks.check_shape(_OP, "bias", bias, kernel[:1], "(weight.shape[0],)")
    if mask_type != "A" and mask_type != "B":
        checks.check_option(_OP, "mask_type", mask_type, ("A", "B"))
    if data_channels != 1:
        most = max(1, min(kernel[0], kernel[1]))
        checks.check_number(
            _OP, "data_channels", data_channels, minimum=1, maximum=most, integer=True
        )
    if dilation != 1:
        checks.check_number(_OP, "dilation", dilation, minimum=1, integer=True)


def masked_conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    mask_type: str = "B",
    data_channels: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    r"""Causal convolution in raster order: an output pixel sees earlier pixels only.

    .. math:: y_o[p] = b_o + \sum_{i} \sum_{t \in \mathrm{live}(o, i)} w_{oi}[t] \, x_i[p + t]

    With the centre tap at (kh // 2, kw // 2): the rows above it and the taps to its left are
    live; the centre is live for mask "B" and dead for mask "A"; all others are dead. With
    ``data_channels`` colours, the input and the output channels are split in that many contiguous
    groups (sizes differ by at most one), and the centre connects input group g' to output group g
    where g' < g ("A") or g' <= g ("B"). Zero padding keeps the size; stride 1.

    Equivalent to ``F.conv2d(input, weight * mask, bias, padding="same", dilation=dilation)``
    (for odd kernels), but dead taps are skipped, not multiplied: nothing leaks through them, not
    even NaN, and their gradient is exactly 0. Type "A" on a 1x1 kernel with one colour returns
    the bias.

    Args:
        input: (N, C_in, H, W) or (C_in, H, W); float32, float64, bfloat16 or float16, any strides.
        weight: (C_out, C_in, kh, kw), dtype of ``input``.
        bias: (C_out,) or None.
        mask_type: "A" (first layer: the pixel itself is excluded) or "B".
        data_channels: colours of the data, 1 for grey images; at most C_in and C_out.
        dilation: distance between taps, in pixels.

    Returns:
        (N, C_out, H, W) or (C_out, H, W), dtype and memory format of ``input``; under autocast,
        the autocast dtype.

    Raises:
        TypeError: an argument is not a tensor of a supported dtype.
        RuntimeError: shapes, dtypes or devices do not fit.
        ValueError: ``mask_type``, ``data_channels`` or ``dilation`` is out of range.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4.
    """
    if isinstance(input, torch.Tensor):
        dtype = checks.autocast_dtype(input)
        if dtype is not None and input.dtype != torch.float64:
            input, weight = input.to(dtype), weight.to(dtype)
            bias = bias if bias is None else bias.to(dtype)
    _check(input, weight, bias, mask_type, data_channels, dilation)
    if input.ndim == 3:
        image = input.unsqueeze(0)
        return _convolve(image, weight, bias, mask_type, data_channels, dilation).squeeze(0)
    return _convolve(input, weight, bias, mask_type, data_channels, dilation)


def _convolve(input, weight, bias, mask_type, data_channels, dilation) -> torch.Tensor:
    if library.choose(_OP, input) == "reference":
        return reference.forward(input, weight, bias, mask_type, data_channels, dilation)
    options = (mask_type == "A", data_channels, dilation)
    if checks.needs_grad(input, weight, bias):
        return MaskedConv2dFunction.apply(input, weight, bias, options)
    return _forward(input, weight, bias, *options, _is_channels_last(input))
