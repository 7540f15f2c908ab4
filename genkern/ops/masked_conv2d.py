"""masked_conv2d: causal 2-D convolution that computes its live taps only."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import masked_conv2d as reference

_OP = "masked_conv2d"
MASK_TYPES = ("A", "B")


def _results(input, weight, bias, exclude_centre, data_channels, dilation, channels_last):
    return spec.empty_image(input, weight.shape[0], channels_last)


def _gradients(upstream, input, weight, bias, *rest):
    *_, channels_last, needs_input, needs_weight, needs_bias = rest
    if needs_input:
        d_input = spec.empty_image(input, weight.shape[1], channels_last)
    else:
        d_input = input.new_empty(0)
    d_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    return d_input, d_weight, weight.new_empty(weight.shape[0] if needs_bias else 0)


def _reference(input, weight, bias, exclude_centre, data_channels, dilation, channels_last):
    mask_type = "A" if exclude_centre else "B"
    return reference.forward(input, weight, bias, mask_type, data_channels, dilation)


def _flops(input, weight, bias, exclude_centre, data_channels, dilation, channels_last) -> int:
    """Two for each live tap and output pixel, padding included."""
    live = reference.live_taps(weight.shape, "A" if exclude_centre else "B", data_channels)
    return 2 * int(live.sum()) * input.shape[0] * input.shape[2] * input.shape[3]


def _backward_flops(upstream, *arguments) -> int:
    *forward, needs_input, needs_weight, _ = arguments
    return (needs_input + needs_weight) * _flops(*forward)


_masked_conv2d = Family(
    _OP,
    "(Tensor input, Tensor weight, Tensor? bias, bool exclude_centre, int data_channels, "
    "int dilation, bool channels_last) -> Tensor",
    results=_results,
    reference=_reference,
    gradients=_gradients,
    flops=(_flops, _backward_flops),
)


def live_taps(
    shape: torch.Size | tuple[int, ...], mask_type: str, data_channels: int
) -> torch.Tensor:
    """Which elements of a weight of ``shape`` are used: the mask that others multiply by."""
    return reference.live_taps(shape, mask_type, data_channels)


def _check(input, weight, bias, mask_type, data_channels, dilation) -> tuple[int, int]:
    """data_channels and dilation, as integers of Python."""
    image, kernel = input.shape, weight.shape
    if len(image) not in (3, 4):
        raise ValueError(
            f"{_OP}: input must have shape (N, C, H, W) or (C, H, W); got {tuple(image)}"
        )
    if len(kernel) != 4 or kernel[0] == 0 or kernel[2] == 0 or kernel[3] == 0:
        raise ValueError(
            f"{_OP}: weight must have shape (C_out, C_in, kh, kw) with C_out, kh and kw at least "
            f"1; got {tuple(kernel)}"
        )
    if image[-3] != kernel[1]:
        raise ValueError(
            f"{_OP}: weight.shape[1] must equal the channels of input = {image[-3]}; "
            f"got weight {tuple(kernel)}"
        )
    if bias is not None and bias.shape != kernel[:1]:
        checks.check_shape(_OP, "bias", bias, kernel[:1], "(weight.shape[0],)")
    if type(mask_type) is not str or (mask_type != "A" and mask_type != "B"):
        checks.check_option(_OP, "mask_type", mask_type, MASK_TYPES)
    if type(data_channels) is not int or data_channels != 1:
        most = max(1, min(kernel[0], kernel[1]))
        data_channels = checks.check_number(
            _OP, "data_channels", data_channels, minimum=1, maximum=most, integer=True
        )
    if type(dilation) is not int or dilation != 1:
        dilation = checks.check_number(_OP, "dilation", dilation, minimum=1, integer=True)
    return data_channels, dilation


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
        TypeError: an argument is not a dense tensor of a supported dtype, or an option has another
            type.
        ValueError: a shape does not fit; ``mask_type``, ``data_channels`` or ``dilation`` is out
            of range.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4.
    """
    if not checks.are_plain(input, weight, input if bias is None else bias):
        tensors = {"input": input, "weight": weight}
        if bias is not None:
            tensors["bias"] = bias
        input, weight, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        bias = rest[0] if rest else None
    data_channels, dilation = _check(input, weight, bias, mask_type, data_channels, dilation)
    image = input if input.ndim == 4 else input.unsqueeze(0)
    options = (mask_type == "A", data_channels, dilation, spec.is_channels_last(image))
    output = _masked_conv2d(image, weight, bias, *options)
    return output if input.ndim == 4 else output.squeeze(0)
