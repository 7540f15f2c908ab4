"""masked_linear: the linear layer of MADE, which computes its live weights only."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import masked_linear as reference

_OP = "masked_linear"
_DEGREES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _results(input, weight, bias, in_degrees, out_degrees, strict):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _gradients(upstream, input, weight, bias, *rest):
    *_, needs_input, needs_weight, needs_bias = rest
    return (
        input.new_empty(input.shape if needs_input else 0),
        torch.empty_like(weight) if needs_weight else weight.new_empty(0),
        weight.new_empty(weight.shape[0] if needs_bias else 0),
    )


def _flops(input, weight, bias, in_degrees, out_degrees, strict) -> int:
    """Two for each live weight and row of the batch."""
    live = reference.live_weights(in_degrees, out_degrees, strict)
    return 2 * int(live.sum()) * input.shape[:-1].numel()


def _backward_flops(upstream, *arguments) -> int:
    *forward, needs_input, needs_weight, _ = arguments
    return (needs_input + needs_weight) * _flops(*forward)


_masked_linear = Family(
    _OP,
    "(Tensor input, Tensor weight, Tensor? bias, Tensor in_degrees, Tensor out_degrees, "
    "bool strict) -> Tensor",
    results=_results,
    reference=reference.forward,
    constants=2,
    gradients=_gradients,
    flops=(_flops, _backward_flops),
)


def _check_degrees(name: str, degrees: torch.Tensor, like: torch.Tensor, size: int) -> torch.Tensor:
    """The degrees, in int64."""
    if not isinstance(degrees, torch.Tensor):
        raise TypeError(f"{_OP}: {name} must be a Tensor; got {type(degrees).__name__}")
    if degrees.dtype not in _DEGREES:
        names = ", ".join(map(spec.dtype_name, _DEGREES))
        raise TypeError(
            f"{_OP}: {name} must be one of {names}; got {spec.dtype_name(degrees.dtype)}"
        )
    if degrees.layout is not torch.strided or degrees.is_nested:
        got = "a nested tensor" if degrees.is_nested else degrees.layout
        raise TypeError(f"{_OP}: {name} must be a dense Tensor; got {got}")
    if degrees.shape != (size,):
        text = "(weight.shape[1],)" if name == "in_degrees" else "(weight.shape[0],)"
        checks.check_shape(_OP, name, degrees, (size,), text)
    if degrees.device != like.device:
        raise RuntimeError(
            f"{_OP}: {name} must be on {like.device} like input; got {degrees.device}"
        )
    return degrees if degrees.dtype is torch.int64 else degrees.long()


def masked_linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    in_degrees: torch.Tensor,
    out_degrees: torch.Tensor,
    strict: bool = False,
) -> torch.Tensor:
    r"""Linear layer whose output o sees the inputs of at most its degree.

    .. math:: y_o = b_o + \sum_{i : \, m_o \ge m_i} w_{oi} \, x_i

    with the degrees m of outputs and inputs; ``strict`` asks for :math:`m_o > m_i`, as the last
    layer of a MADE does.

    Equivalent to ``F.linear(x, w * mask, b)`` with ``mask = out_degrees[:, None] >= in_degrees``,
    but dead weights are skipped, not multiplied: nothing leaks through them, not even NaN, and
    their gradient is exactly 0. On CPUs both sides are sorted by degree, so that a layer with half
    of its weights dead costs half of the products. Degrees are data: other values, as an ensemble
    of orders and connectivities draws at each step, compile nothing anew.

    Args:
        input: (..., I); float32, float64, bfloat16 or float16, any strides.
        weight: (O, I), dtype of ``input``.
        bias: (O,) or None.
        in_degrees: (I,), integers of any size and sign, on the device of ``input``.
        out_degrees: (O,), likewise.
        strict: whether an output sees inputs of its own degree (False) or only lower ones.

    Returns:
        (..., O), dtype of ``input``; under autocast, the autocast dtype.

    Raises:
        TypeError: a tensor is not a dense one of a supported dtype, degrees are not integers, or
            ``strict`` is no bool.
        ValueError: a shape does not fit.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``. Higher derivatives,
    `torch.func` and exported programs run the equivalent formula, in which a NaN of ``input``
    reaches every output.
    Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation", sec. 3.
    """
    if not checks.are_plain(input, weight, input if bias is None else bias):
        tensors = {"input": input, "weight": weight}
        if bias is not None:
            tensors["bias"] = bias
        input, weight, *rest = checks.admit(_OP, checks.PRODUCT, tensors)
        bias = rest[0] if rest else None
    shape = weight.shape
    if len(shape) != 2:
        raise ValueError(f"{_OP}: weight must have shape (O, I); got {tuple(shape)}")
    if input.ndim == 0 or input.shape[-1] != shape[1]:
        raise ValueError(
            f"{_OP}: input must have shape (..., weight.shape[1]) = (..., {shape[1]}); "
            f"got {tuple(input.shape)}"
        )
    if bias is not None and bias.shape != shape[:1]:
        checks.check_shape(_OP, "bias", bias, shape[:1], "(weight.shape[0],)")
    checks.check_bool(_OP, "strict", strict)
    in_degrees = _check_degrees("in_degrees", in_degrees, input, shape[1])
    out_degrees = _check_degrees("out_degrees", out_degrees, input, shape[0])
    return _masked_linear(input, weight, bias, in_degrees, out_degrees, strict)
