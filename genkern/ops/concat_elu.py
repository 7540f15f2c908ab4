"""concat_elu: the nonlinearity of PixelCNN++."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import concat_elu as reference

_OP = "concat_elu"


def _gradients(upstream, input, channels_last, needs_input):
    if not needs_input:
        return input.new_empty(0)
    return spec.empty_image(input, input.shape[1], channels_last)


_concat_elu = Family(
    _OP,
    "(Tensor input, bool channels_last) -> Tensor",
    results=lambda input, channels_last: spec.empty_image(input, 2 * input.shape[1], channels_last),
    reference=lambda input, channels_last: reference.forward(input),
    gradients=_gradients,
)


def concat_elu(input: torch.Tensor, *, recompute: bool = False) -> torch.Tensor:
    r"""ELU of the input and of its negative, side by side on the channels.

    .. math:: y = \mathrm{elu}([x, -x]), \quad \mathrm{elu}(v) = v > 0 \mathbin{?} v : e^v - 1

    Equivalent to ``F.elu(torch.cat([x, -x], 1))``, in one pass and with one exponential for both
    halves; the backward pass computes it again from the input and stores nothing else.

    Args:
        input: (N, C, ...), of two or more dimensions; float32, float64, bfloat16 or float16, any
            strides.
        recompute: whether an op of genkern that reads the result, a `masked_conv2d` say, keeps
            ``input``, which is kept anyway, instead of the result, and forms that again in its
            backward pass, with the same bits: two thirds of the memory that the two would keep,
            for the time of one more forward pass. Ops of torch keep the result, and so do compiled
            graphs. After a backward pass that freed the graph of the result, another one through
            such an op is an error, even for its weight alone.

    Returns:
        (N, 2C, ...), dtype of ``input`` and, for images, its memory format; under autocast, the
        autocast dtype.

    Raises:
        TypeError: ``input`` is not a dense tensor of a supported dtype, ``recompute`` no bool.
        ValueError: it has fewer than two dimensions.

    Differentiable any number of times.
    Source: Salimans et al. 2017, "PixelCNN++", sec. 2 and its published code.
    """
    if not checks.are_plain(input):
        (input,) = checks.admit(_OP, checks.PRODUCT, {"input": input})
    if input.ndim < 2:
        raise ValueError(f"{_OP}: input must have shape (N, C, ...); got {tuple(input.shape)}")
    checks.check_bool(_OP, "recompute", recompute)
    call = _concat_elu.formed_again if recompute else _concat_elu
    return call(input, input.ndim == 4 and spec.is_channels_last(input))
