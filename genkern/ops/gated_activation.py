"""gated_activation: the activation of the Gated PixelCNN and of WaveNet, with its condition."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import gated_activation as reference

_OP = "gated_activation"


def _gradients(upstream, input, condition, channels_last, needs_input, needs_condition):
    d_input, d_condition = input.new_empty(0), input.new_empty(0)
    if needs_input:
        d_input = spec.empty_image(input, input.shape[1], channels_last)
    if needs_condition and condition.ndim == 4:
        d_condition = spec.empty_image(input, input.shape[1], channels_last)
    elif needs_condition:
        d_condition = input.new_empty(condition.shape)
    return d_input, d_condition


_gated_activation = Family(
    _OP,
    "(Tensor input, Tensor? condition, bool channels_last) -> Tensor",
    results=lambda input, condition, channels_last: spec.empty_image(
        input, input.shape[1] // 2, channels_last
    ),
    reference=lambda input, condition, channels_last: reference.forward(input, condition),
    gradients=_gradients,
)


def gated_activation(
    input: torch.Tensor, condition: torch.Tensor | None = None, *, recompute: bool = False
) -> torch.Tensor:
    r"""Gated activation of the two halves of the channels.

    .. math:: y = \tanh(a + c_a) \odot \sigma(b + c_b), \quad [a, b] = x, \; [c_a, c_b] = c

    Equivalent to ``a, b = (x + c[:, :, None, None]).chunk(2, 1); torch.tanh(a) *
    torch.sigmoid(b)``, in one pass; the backward pass computes both functions again instead of
    storing them.

    Args:
        input: (N, 2C, H, W) or (2C, H, W); float32, float64, bfloat16 or float16, any strides.
        condition: (N, 2C), one value a channel, as of a class; or the shape of ``input``, as of an
            image; (2C,) or (2C, H, W) without N. Dtype of ``input``.
        recompute: whether an op of genkern that reads the result, a `masked_conv2d` say, keeps
            ``input``, which is kept anyway, instead of the result, and forms that again in its
            backward pass, with the same bits: a third of the memory that the two would keep, for
            the time of one more forward pass. Ops of torch keep the result, and so do compiled
            graphs, and images without N. After a backward pass that freed the graph of the result,
            another one through such an op is an error, even for its weight alone.

    Returns:
        (N, C, H, W) or (C, H, W), dtype and memory format of ``input``; under autocast, the
        autocast dtype.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or no bool.
        ValueError: a shape does not fit, or the number of channels is odd.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input`` and ``condition``.
    Source: van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", sec.
    2.1 and 2.3 (eq. 2 and 4).
    """
    if not checks.are_plain(input, input if condition is None else condition):
        tensors = (
            {"input": input} if condition is None else {"input": input, "condition": condition}
        )
        input, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        condition = rest[0] if rest else None
    shape = input.shape
    if len(shape) not in (3, 4) or shape[-3] % 2:
        raise ValueError(
            f"{_OP}: input must have shape (N, 2C, H, W) or (2C, H, W); got {tuple(shape)}"
        )
    if condition is not None and condition.shape not in (shape, shape[:-2]):
        raise ValueError(
            f"{_OP}: condition must have shape {tuple(shape[:-2])} or that of input = "
            f"{tuple(shape)}; got {tuple(condition.shape)}"
        )
    checks.check_bool(_OP, "recompute", recompute)
    if len(shape) == 4:
        call = _gated_activation.formed_again if recompute else _gated_activation
        return call(input, condition, spec.is_channels_last(input))
    alone = None if condition is None else condition.unsqueeze(0)
    return _gated_activation(input.unsqueeze(0), alone, False).squeeze(0)
