"""filtered_act: an activation between upsampling and downsampling, in one pass."""

import math
from collections.abc import Sequence

import torch

from genkern import checks
from genkern.family import Family
from genkern.reference import filtered_act as reference

_OP = "filtered_act"
ACTIVATIONS = tuple(reference.ACTIVATIONS)
_FLAT = tuple(map(ACTIVATIONS.index, ("linear", "relu", "lrelu")))


def _tall(input, up_filter, up, left, right, top, bottom):
    """Height and width of the image that is activated."""
    H, W = input.shape[2] * up + top + bottom, input.shape[3] * up + left + right
    return H - up_filter.shape[0] + 1, W - up_filter.shape[-1] + 1


def _results(input, bias, up_filter, down_filter, up, down, left, right, top, bottom, *options):
    H, W = _tall(input, up_filter, up, left, right, top, bottom)
    h, w = (H - down_filter.shape[0]) // down + 1, (W - down_filter.shape[-1]) // down + 1
    return input.new_empty((*input.shape[:2], h, w))


def _second(second_0, second_1, upstream_0, input, bias, *rest):
    needs_upstream, needs_input, needs_bias = rest[-3:]
    return (
        input.new_empty(upstream_0.shape if needs_upstream else 0),
        input.new_empty(input.shape if needs_input else 0),
        input.new_empty(bias.shape if needs_bias and bias is not None else 0),
    )


def _reference(input, bias, up_filter, down_filter, up, down, left, right, top, bottom, act, *rest):
    sides, exact = (left, right, top, bottom), up_filter.dtype
    bias = None if bias is None else bias.to(exact)
    options = (up, down, sides, ACTIVATIONS[act], *rest)
    y = reference.forward(input.to(exact), bias, up_filter, down_filter, *options)
    return y.to(input.dtype)


_filtered_act = Family(
    _OP,
    "(Tensor input, Tensor? bias, Tensor up_filter, Tensor down_filter, int up, int down, "
    "int left, int right, int top, int bottom, int act, float alpha, float gain, float? clamp) "
    "-> Tensor",
    results=_results,
    reference=_reference,
    constants=2,
    second=_second,
    flat=lambda *options: options[6] in _FLAT,
)


def _check_sizes(input, up_filter, down_filter, up, down, sides):
    H, W = _tall(input, up_filter, up, *sides)
    if H < 1 or W < 1:
        raise ValueError(
            f"{_OP}: up_filter must be no larger than the padded image = "
            f"{(H + up_filter.shape[0] - 1, W + up_filter.shape[-1] - 1)}; got "
            f"{(up_filter.shape[0], up_filter.shape[-1])}"
        )
    if down_filter.shape[0] > H or down_filter.shape[-1] > W:
        raise ValueError(
            f"{_OP}: down_filter must be no larger than the upsampled image = {(H, W)}; got "
            f"{(down_filter.shape[0], down_filter.shape[-1])}"
        )
    checks.check_area(_OP, H, W)


def filtered_act(
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    up_filter: torch.Tensor,
    down_filter: torch.Tensor,
    up: int = 2,
    down: int = 2,
    padding: int | Sequence[int] = 0,
    act: str = "lrelu",
    alpha: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
) -> torch.Tensor:
    r"""Activation of an upsampled image, downsampled again: a nonlinearity with little aliasing.

    .. math:: y = D \, \mathrm{clamp}(g \cdot \mathrm{act}(U (x + b)), -c, c)

    U puts u - 1 zeros behind every pixel, pads and filters with u^2 times ``up_filter``; D filters
    with ``down_filter`` and keeps every d-th row and column. Equivalent to ``upfirdn2d(bias_act(
    upfirdn2d(x + b, up_filter, up=u, padding=p, gain=u * u), ...), down_filter, down=d)`` in one
    pass: the large image between the filters is never stored, and no gradient keeps it.

    Args:
        input: (N, C, H, W); float32, float64, bfloat16 or float16, any strides.
        bias: (C,), dtype of ``input``.
        up_filter, down_filter: (K,) for both axes (separable), or (K_h, K_w); constants of any
            supported dtype, taken in float32 (float64 for float64 images).
        up, down: u and d, 1 ... 65535.
        padding: pixels of zeros around the upsampled image: one number, (x, y), or (left, right,
            top, bottom); negative ones crop. Where u = d, K_u + K_d - 1 - u an axis keep the size:
            (11, 10, 11, 10) for filters of 12 taps and u = 2.
        act, alpha, gain, clamp: as in `bias_act`.

    Returns:
        (N, C, H', W'), contiguous, dtype of ``input``, with H' = (H u + top + bottom - K_u + 1
        - K_d) // d + 1; under autocast, the autocast dtype.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or not a number.
        ValueError: a filter is larger than its image, has another shape or requires grad; an
            unknown ``act``; a number or a shape that does not fit.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input`` and ``bias``: twice by kernels, which form the
    upsampled rows again, beyond that by the formula. Second derivatives in the input are 0 for
    "linear", "relu" and "lrelu", and cost nothing.
    Source: Karras et al. 2021, "Alias-free generative adversarial networks", sec. 3.2, app. D.
    """
    if not checks.are_plain(input, input if bias is None else bias):
        tensors = {"input": input} if bias is None else {"input": input, "bias": bias}
        input, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        bias = rest[0] if rest else None
    up_filter = checks.check_filter(_OP, "up_filter", up_filter, input)
    down_filter = checks.check_filter(_OP, "down_filter", down_filter, input)
    up, down = checks.check_factor(_OP, "up", up), checks.check_factor(_OP, "down", down)
    sides = checks.four_sides(_OP, padding)
    chosen = checks.check_option(_OP, "act", act, ACTIVATIONS)
    if type(alpha) is not float:
        alpha = checks.check_number(_OP, "alpha", alpha, minimum=-math.inf)
    if type(gain) is not float:
        gain = checks.check_number(_OP, "gain", gain, minimum=-math.inf)
    if clamp is not None:
        clamp = checks.check_number(_OP, "clamp", clamp, minimum=0.0)
    if input.ndim != 4:
        raise ValueError(f"{_OP}: input must have shape (N, C, H, W); got {tuple(input.shape)}")
    if bias is not None and bias.shape != input.shape[1:2]:
        checks.check_shape(_OP, "bias", bias, input.shape[1:2], "(input.shape[1],)")
    _check_sizes(input, up_filter, down_filter, up, down, sides)
    return _filtered_act(
        input, bias, up_filter, down_filter, up, down, *sides, chosen, alpha, gain, clamp
    )
