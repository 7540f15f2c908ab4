"""bias_act: a bias, an activation, a gain and a clamp in one pass."""

import math

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import bias_act as reference

_OP = "bias_act"
ACTIVATIONS = tuple(reference.ACTIVATIONS)
_PLACES = {name: place for place, name in enumerate(ACTIVATIONS)}
_INFINITY = math.inf
_FLAT = tuple(map(ACTIVATIONS.index, ("linear", "relu", "lrelu")))


def _like(tensor, needed, channels_last):
    if not needed:
        return tensor.new_empty(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)


def _of_bias(input, bias, needed):
    return input.new_empty(bias.shape if needed and bias is not None else 0)


def _gradients(
    upstream, input, bias, act, alpha, gain, clamp, dim, channels_last, needs_input, needs_bias
):
    return _like(input, needs_input, channels_last), _of_bias(input, bias, needs_bias)


def _second(second_0, second_1, upstream, input, bias, *options):
    channels_last, needs = options[5], options[-3:]
    images = (_like(input, needed, channels_last) for needed in needs[:2])
    return *images, _of_bias(input, bias, needs[2])


_bias_act = Family(
    _OP,
    "(Tensor input, Tensor? bias, int act, float alpha, float gain, float? clamp, int dim, "
    "bool channels_last) -> Tensor",
    results=lambda input, bias, *options: _like(input, True, options[-1]),
    reference=lambda input, bias, act, alpha, gain, clamp, dim, channels_last: reference.forward(
        input, bias, ACTIVATIONS[act], alpha, gain, clamp, dim
    ),
    gradients=_gradients,
    second=_second,
    flat=lambda act, *options: act in _FLAT,
)


def _checked(act, alpha, gain, clamp, dim) -> tuple:
    """The place of the activation and the numbers, or an error."""
    chosen = checks.check_option(_OP, "act", act, ACTIVATIONS)
    alpha = checks.check_number(_OP, "alpha", alpha, minimum=-math.inf)
    gain = checks.check_number(_OP, "gain", gain, minimum=-math.inf)
    if clamp is not None:
        clamp = checks.check_number(_OP, "clamp", clamp, minimum=0.0)
    dim = checks.check_number(_OP, "dim", dim, minimum=-math.inf, integer=True)
    return chosen, alpha, gain, clamp, dim


def bias_act(
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    act: str = "linear",
    alpha: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    dim: int = 1,
) -> torch.Tensor:
    r"""Activation of the input with a bias, times a gain, clamped.

    .. math:: y = \mathrm{clamp}(g \cdot \mathrm{act}(x + b), -c, c)

    Equivalent to ``(g * F.leaky_relu(x + b[:, None, None], alpha)).clamp(-c, c)`` and the like, in
    one pass; the backward pass computes the activation again and stores nothing. Double backward,
    as gradient penalties need it, is one pass of a kernel too.

    Args:
        input: any shape and strides; float32, float64, bfloat16 or float16.
        bias: (input.shape[dim],), dtype of ``input``.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish" (x
            times its sigmoid) or "gelu" (x times the normal distribution function).
        alpha: slope of "lrelu" below 0.
        gain: factor behind the activation.
        clamp: largest absolute value of the result; its gradient is 0 beyond it.
        dim: of the bias.

    Returns:
        Shape and dtype of ``input`` and, where ``dim`` is 1, its memory format; under autocast,
        the autocast dtype.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or not a number.
        ValueError: an unknown ``act``, a ``clamp`` below 0, a ``dim`` or a shape that does not fit.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input`` and ``bias``: twice by kernels, beyond that by
    the formula. Second derivatives of "linear", "relu" and "lrelu" are 0 and cost nothing.
    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", app. B
    (gain and leaky ReLU); Hendrycks and Gimpel 2016 (gelu), Klambauer et al. 2017 (selu).
    """
    if not checks.are_plain(input, input if bias is None else bias):
        tensors = {"input": input} if bias is None else {"input": input, "bias": bias}
        input, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        bias = rest[0] if rest else None
    chosen = _PLACES.get(act) if type(act) is str else None
    if (  # the usual types pass in a few comparisons; the checks cost as much as a small op
        chosen is None or type(alpha) is not float or type(gain) is not float
        or type(dim) is not int or not -_INFINITY <= alpha <= _INFINITY
        or not -_INFINITY <= gain <= _INFINITY
        or (clamp is not None and (type(clamp) is not float or not 0 <= clamp <= _INFINITY))
    ):  # fmt: skip
        chosen, alpha, gain, clamp, dim = _checked(act, alpha, gain, clamp, dim)
    ndim = input.ndim
    if bias is None:
        dim = 0
    else:
        if not -ndim <= dim < ndim:
            raise ValueError(f"{_OP}: dim must be in [{-ndim}, {ndim - 1}]; got {dim}")
        dim %= ndim
        if bias.ndim != 1 or bias.size(0) != input.size(dim):
            text = f"(input.shape[{dim}],)"
            checks.check_shape(_OP, "bias", bias, (input.shape[dim],), text)
    channels_last = ndim == 4 and (bias is None or dim == 1) and spec.is_channels_last(input)
    return _bias_act(input, bias, chosen, alpha, gain, clamp, dim, channels_last)
