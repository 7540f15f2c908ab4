"""upfirdn2d: upsampling, a small filter and downsampling of images in one pass."""

import math
from collections.abc import Sequence

import torch

from genkern import checks
from genkern.family import Family
from genkern.reference import upfirdn2d as reference

_OP = "upfirdn2d"


def _sizes(input, filter, up, down, left, right, top, bottom):
    """Height and width of the result."""
    shape, taps = input.shape, filter.shape
    H, W = shape[-2] * up + top + bottom, shape[-1] * up + left + right
    return (H - taps[0]) // down + 1, (W - taps[-1]) // down + 1


def _results(input, filter, up, down, left, right, top, bottom, gain):
    sizes = _sizes(input, filter, up, down, left, right, top, bottom)
    return input.new_empty((*input.shape[:2], *sizes))


def _adjoint(upstream, input, filter, up, down, left, right, top, bottom, gain, needs_input):
    """Up and down exchanged, the filter reversed, padding that makes the sizes those of input."""
    (H, W), (h, w) = input.shape[2:], upstream.shape[2:]
    y, x = filter.shape[0] - 1 - top, filter.shape[-1] - 1 - left
    bottom, right = H * up - h * down + top - up + 1, W * up - w * down + left - up + 1
    filter = filter.flip(tuple(range(filter.ndim)))
    return (_upfirdn2d(upstream, filter, down, up, x, right, y, bottom, gain),)


_upfirdn2d = Family(
    _OP,
    "(Tensor input, Tensor filter, int up, int down, int left, int right, int top, int bottom, "
    "float gain) -> Tensor",
    results=_results,
    reference=lambda input, filter, up, down, left, right, top, bottom, gain: reference.forward(
        input, filter, up, down, (left, right, top, bottom), gain
    ),
    constants=1,
    adjoint=_adjoint,
)


def upfirdn2d(
    input: torch.Tensor,
    filter: torch.Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = 1.0,
) -> torch.Tensor:
    r"""Upsamples, filters and downsamples images, each channel alone.

    .. math:: y_i = g \sum_k f_k \, \tilde x_{i d - k + K - 1}, \quad
        \tilde x = \mathrm{pad}(x_0, 0, \ldots, x_1, 0, \ldots)

    Equivalent to u - 1 zeros behind every row and column, ``F.pad``, ``F.conv2d`` with the reversed
    filter, and every d-th row and column of that, in one pass that never multiplies the zeros.
    Along one axis it is ``scipy.signal.upfirdn`` where the padding before is K - 1.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, bfloat16 or float16, any strides.
        filter: (K,) for both axes (separable), or (K_h, K_w); a constant of any supported dtype,
            taken in float32 (float64 for float64 images).
        up: u, pixels that come of one, along each axis: 1 ... 65535.
        down: d, of so many pixels one is kept: 1 ... 65535.
        padding: pixels of zeros around the upsampled image: one number, (x, y), or (left, right,
            top, bottom); negative ones crop.
        gain: g, factor of the result; u^2 keeps the brightness of an upsampled image.

    Returns:
        (N, C, H', W') or (C, H', W'), contiguous, dtype of ``input``, with H' = (H u + top + bottom
        - K_h) // d + 1; under autocast, the autocast dtype.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or not a number.
        ValueError: ``filter`` is larger than the padded image, has another shape or requires grad;
            a number is out of range; the result would have more than 2^40 pixels.
        RuntimeError: devices differ, or there is no memory for the result.

    Differentiable any number of times in ``input`` by kernels: its adjoint is an upfirdn2d with
    ``up`` and ``down`` exchanged. The backward pass keeps nothing of ``input`` but its shape.
    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", app. B.
    """
    if not checks.are_plain(input):
        (input,) = checks.admit(_OP, checks.PRODUCT, {"input": input})
    filter = checks.check_filter(_OP, "filter", filter, input)
    up, down = checks.check_factor(_OP, "up", up), checks.check_factor(_OP, "down", down)
    if type(gain) is not float or gain != gain:
        gain = checks.check_number(_OP, "gain", gain, minimum=-math.inf)
    sides = checks.four_sides(_OP, padding)
    shape = input.shape
    if len(shape) not in (3, 4):
        text = f"{_OP}: input must have shape (N, C, H, W) or (C, H, W)"
        raise ValueError(f"{text}; got {tuple(shape)}")
    rows, columns = _sizes(input, filter, up, down, *sides)
    if rows < 1 or columns < 1:
        padded = shape[-2] * up + sum(sides[2:]), shape[-1] * up + sum(sides[:2])
        raise ValueError(
            f"{_OP}: filter must be no larger than the padded image = {padded}; got "
            f"{(filter.shape[0], filter.shape[-1])}"
        )
    checks.check_area(_OP, rows, columns)
    try:
        if len(shape) == 3:
            return _upfirdn2d(input.unsqueeze(0), filter, up, down, *sides, gain).squeeze(0)
        return _upfirdn2d(input, filter, up, down, *sides, gain)
    except RuntimeError as error:
        if "new_empty" not in str(error):  # what could not be allocated
            raise
        text = f"{_OP}: up and padding must make a result that fits into the memory"
        raise RuntimeError(f"{text}; got {(*shape[:-2], rows, columns)}") from error
