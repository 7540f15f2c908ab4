"""masked_conv2d: causal 2-D convolution that computes its live taps only."""

import torch

from genkern import checks, library, spec
from genkern.family import Family
from genkern.reference import masked_conv2d as reference

_OP = "masked_conv2d"
MASK_TYPES = ("A", "B", "rows", "rows_above", "left", "left_before")  # kernels know their places
_CODES = {name: code for code, name in enumerate(MASK_TYPES)}
Window = tuple[slice | tuple[int, int], slice | tuple[int, int]]


def _results(input, weight, bias, mask_type, data_channels, parts, dilation, channels_last):
    return spec.empty_image(input, weight.shape[0], channels_last)


def _gradients(upstream, input, weight, bias, *rest):
    *_, channels_last, needs_input, needs_weight, needs_bias = rest
    if needs_input:
        d_input = spec.empty_image(input, weight.shape[1], channels_last)
    else:
        d_input = input.new_empty(0)
    d_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    return d_input, d_weight, weight.new_empty(weight.shape[0] if needs_bias else 0)


def _reference(input, weight, bias, mask_type, data_channels, parts, dilation, channels_last):
    name = MASK_TYPES[mask_type]
    return reference.forward(input, weight, bias, name, data_channels, dilation, parts)


def _flops(input, weight, bias, mask_type, data_channels, parts, dilation, channels_last) -> int:
    """Two for each live tap and output pixel, padding included."""
    live = reference.live_taps(weight.shape, MASK_TYPES[mask_type], data_channels, parts)
    return 2 * int(live.sum()) * input.shape[0] * input.shape[2] * input.shape[3]


def _backward_flops(upstream, *arguments) -> int:
    *forward, needs_input, needs_weight, _ = arguments
    return (needs_input + needs_weight) * _flops(*forward)


_SCHEMA = (
    "(Tensor input, Tensor weight, Tensor? bias, int mask_type, int data_channels, int parts, "
    "int dilation, bool channels_last"
)
_masked_conv2d = Family(
    _OP,
    f"{_SCHEMA}) -> Tensor",
    results=_results,
    reference=_reference,
    gradients=_gradients,
    flops=(_flops, _backward_flops),
)


def _window_results(input, weight, bias, code, colours, parts, dilation, last, *bounds):
    top, bottom, left, right = bounds
    return spec.empty_image(input[:, :, top:bottom, left:right], weight.shape[0], last)


_window = library.define(
    _OP, f"{_OP}_window{_SCHEMA}, int top, int bottom, int left, int right) -> Tensor",
    _window_results,
)  # fmt: skip


group_ends = reference.group_ends
anchor, has_centre, colours = reference.anchor, reference.has_centre, reference.colours


def live_taps(
    shape: torch.Size | tuple[int, ...], mask_type: str, data_channels: int, parts: int = 1
) -> torch.Tensor:
    """Which elements of a weight of ``shape`` are used: the mask that others multiply by."""
    return reference.live_taps(shape, mask_type, data_channels, parts)


def check_options(
    op: str, C_out: int, C_in: int, mask_type: str, data_channels: int, parts: int
) -> tuple[int, int]:
    """data_channels and parts, as integers of Python."""
    checks.check_option(op, "mask_type", mask_type, MASK_TYPES)
    parts = checks.check_number(op, "parts", parts, minimum=1, integer=True)
    if C_out % parts:
        raise ValueError(f"{op}: parts must divide the output channels = {C_out}; got {parts}")
    most = max(1, min(C_out // parts, C_in))
    data_channels = checks.check_number(
        op, "data_channels", data_channels, minimum=1, maximum=most, integer=True
    )
    if data_channels > 1 and not reference.has_centre(mask_type):
        raise ValueError(
            f"{op}: data_channels must be 1 for mask_type {mask_type!r}, whose taps see all "
            f"colours of a pixel; got {data_channels}"
        )
    return data_channels, parts


def _check(input, weight, bias, mask_type, data_channels, parts, dilation) -> tuple[int, ...]:
    """The options of the op, as integers."""
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
    if (
        type(mask_type) is not str or mask_type not in _CODES
        or type(data_channels) is not int or data_channels != 1
        or type(parts) is not int or parts != 1
    ):  # fmt: skip
        data_channels, parts = check_options(
            _OP, kernel[0], kernel[1], mask_type, data_channels, parts
        )
    if type(dilation) is not int or dilation != 1:
        dilation = checks.check_number(_OP, "dilation", dilation, minimum=1, integer=True)
    return _CODES[mask_type], data_channels, parts, dilation


def _bounds(window: object, H: int, W: int) -> list[int]:
    """top, bottom, left, right of a window of an image of H x W pixels."""
    pair = tuple(window) if isinstance(window, (tuple, list)) else ()
    if len(pair) != 2:
        raise TypeError(f"{_OP}: window must be a pair (rows, columns); got {window!r}")
    found: list[int] = []
    for name, part, size in zip(("rows", "columns"), pair, (H, W), strict=True):
        if isinstance(part, slice):
            step, ends = part.step, [part.start, part.stop]
            ends = [default if e is None else e for e, default in zip(ends, (0, size), strict=True)]
        else:
            step, ends = None, list(part) if isinstance(part, (tuple, list)) else []
        if len(ends) != 2 or step not in (None, 1):
            raise TypeError(
                f"{_OP}: window {name} must be a slice of step 1 or a pair (start, stop); "
                f"got {part!r}"
            )
        for word, end in zip(("start", "stop"), ends, strict=True):
            low = found[-1] if word == "stop" else 0
            found.append(
                checks.check_number(
                    _OP, f"window {name} {word}", end, minimum=low, maximum=size, integer=True
                )
            )
    return found


def _evaluate_window(image, weight, bias, options, window) -> torch.Tensor:
    """The output in a window; the reference forms all of it."""
    top, bottom, left, right = _bounds(window, image.shape[2], image.shape[3])
    if torch.is_grad_enabled():
        for name, tensor in (("input", image), ("weight", weight), ("bias", bias)):
            if tensor is not None and tensor.requires_grad:
                raise ValueError(
                    f"{_OP}: window must be None where a gradient is needed (it has none: see "
                    f"torch.no_grad); got {window!r} and {name} that requires grad"
                )
    if library.choose(_OP, image) == "reference":
        return _reference(image, weight, bias, *options)[:, :, top:bottom, left:right]
    return _window(image, weight, bias, *options, top, bottom, left, right)


def masked_conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    mask_type: str = "B",
    data_channels: int = 1,
    dilation: int = 1,
    parts: int = 1,
    window: Window | None = None,
) -> torch.Tensor:
    r"""Causal convolution in raster order: an output pixel sees earlier pixels only.

    .. math:: y_o[p] = b_o + \sum_{i} \sum_{t \in \mathrm{live}(o, i)} w_{oi}[t] \, x_i[p + t]

    Which taps of a 3x5 kernel are live (``#``), and where the output pixel stands: on the tap ``o``
    if that is live, on the tap ``x`` if it is not, or beside the kernel, at ``^``::

        "A"          "B"          "rows"       "rows_above"   "left"       "left_before"
        # # # # #    # # # # #    # # # # #    # # # # #      # # # # #    # # # # #
        # # x . .    # # o . .    # # # # #    # # # # #      # # # # #    # # # # #
        . . . . .    . . . . .    # # o # #    # # # # #      # # # # o    # # # # # ^
                                                   ^

    "A" and "B" are the masks of PixelCNN, with their centre at (kh // 2, kw // 2). The others
    have no dead tap: the kernel stands with its last row in the pixel's own row ("rows", "left",
    "left_before") or in the one above ("rows_above"), with its column kw // 2 in the pixel's own
    ("rows", "rows_above"), or with its last column in the pixel's own ("left") or in the one before
    ("left_before"). Only "rows" sees later pixels, those of its own row: a layer that reads its
    output moves it one row down. Zero padding keeps the size; stride 1; with ``dilation`` d, the
    distances between taps, and between them and the pixel, are d times as long.

    With ``data_channels`` colours, the input and the output channels are split in that many
    contiguous groups (sizes differ by at most one), and the tap on the pixel itself connects input
    group g' to output group g where g' < g ("A") or g' <= g ("B", "left"). Of the others, whose
    taps see all colours of a pixel, "rows" and "rows_above" belong in a stack that is moved down,
    and a first layer to the left that lets a colour see the earlier ones of its own pixel is "A" on
    a kernel of (1, 2 k + 1): k pixels, then the colours. With ``parts`` (2: the halves of
    `gated_activation`, 4: the gates of an LSTM) each part of the output channels is split in groups
    of its own.

    "A" and "B" are ``F.conv2d(input, weight * mask, bias, padding="same", dilation=dilation)``
    (for odd kernels), the others ``F.conv2d(F.pad(input, ...), weight, bias)``; dead taps are
    skipped, not multiplied: nothing leaks through them, not even NaN, and their gradient is exactly
    0. Type "A" on a 1x1 kernel with one colour returns the bias.

    Args:
        input: (N, C_in, H, W) or (C_in, H, W); float32, float64, bfloat16 or float16, any strides.
        weight: (C_out, C_in, kh, kw), dtype of ``input``.
        bias: (C_out,) or None.
        mask_type: "A" (first layer: the pixel itself is excluded), "B", or one of the forms
            without dead taps: "rows", "rows_above", "left", "left_before".
        data_channels: colours of the data, 1 for grey images; at most C_in and C_out / parts.
        dilation: distance between taps, in pixels.
        parts: of the output channels, each with groups of its own; divides C_out.
        window: (rows, columns), each a slice or a pair (start, stop): the output of these pixels
            alone, with the bits that the whole output has there (same backend, same options). The
            work is that of the pixels of the window; the weight is packed anew at each call. There
            is no gradient.

    Returns:
        (N, C_out, H, W) or (C_out, H, W), dtype and memory format of ``input``; under autocast,
        the autocast dtype. With a window, its rows and columns.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or an option has another
            type.
        ValueError: a shape does not fit; an option is out of range; a gradient is needed of a
            window.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.4 ("A", "B");
    van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", sec. 2.3, and
    Salimans et al. 2017, "PixelCNN++", sec. 2.4 (the others).
    """
    if not checks.are_plain(input, weight, input if bias is None else bias):
        tensors = {"input": input, "weight": weight}
        if bias is not None:
            tensors["bias"] = bias
        input, weight, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        bias = rest[0] if rest else None
    options = _check(input, weight, bias, mask_type, data_channels, parts, dilation)
    image = input if input.ndim == 4 else input.unsqueeze(0)
    options = (*options, spec.is_channels_last(image))
    if window is None:
        output = _masked_conv2d(image, weight, bias, *options)
    else:
        output = _evaluate_window(image, weight, bias, options, window)
    return output if input.ndim == 4 else output.squeeze(0)
