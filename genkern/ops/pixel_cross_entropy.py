"""pixel_cross_entropy: the categorical likelihood of integer images, with or without its head."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import pixel_cross_entropy as reference

_OP = "pixel_cross_entropy"
TARGETS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def _results(features, weight, bias, target, masked, channels_last, save):
    dtype = spec.accumulation(features.dtype)
    saved = target.shape if save else (0,)
    return (
        features.new_empty(target.shape[0]),
        features.new_empty(saved, dtype=dtype),
        features.new_empty(saved, dtype=dtype),
    )


def _gradients(upstream, features, weight, bias, *rest):
    channels_last, needs_features, needs_weight, needs_bias = rest[-4:]
    if not needs_features:
        d_features = features.new_empty(0)
    elif features.ndim == 4:
        d_features = spec.empty_image(features, features.shape[1], channels_last)
    else:
        d_features = features.new_empty(features.shape)
    with_weight, with_bias = weight is not None and needs_weight, bias is not None and needs_bias
    d_weight = torch.empty_like(weight) if with_weight else features.new_empty(0)
    return d_features, d_weight, features.new_empty(bias.shape if with_bias else 0)


def _reference(features, weight, bias, target, masked, channels_last):
    dtype = features.dtype
    if dtype in spec.HALF:  # in single precision, rounded once
        features, weight, bias = (t if t is None else t.float() for t in (features, weight, bias))
    return (reference.forward(features, target, weight, bias, masked).to(dtype),)


def _flops(features, weight, bias, target, masked, channels_last, save=False) -> int:
    """Of the head: two for each feature that a logit is made of."""
    if weight is None:
        return 0
    colours = target.shape[1]
    seen = sum(reference.seen_features(weight.shape[1], colours, masked))
    return 2 * target[:, 0].numel() * seen * (weight.shape[0] // colours)


def _backward_flops(upstream, features, weight, bias, target, maximum, scale, *rest) -> int:
    """The logits once more, and a product for each gradient."""
    *options, needs_features, needs_weight, _ = rest
    products = 1 + needs_features + needs_weight
    return products * _flops(features, weight, bias, target, *options)


_pixel_cross_entropy = Family(
    _OP,
    "(Tensor features, Tensor? weight, Tensor? bias, Tensor target, bool masked, "
    "bool channels_last) -> Tensor",
    results=_results,
    reference=_reference,
    constants=1,
    saved=("maximum", "scale"),
    gradients=_gradients,
    flops=(_flops, _backward_flops),
)


def _check_shapes(features, target, weight, bias, data_channels) -> int:
    """The number of levels."""
    shape, head = features.shape, None if weight is None else weight.shape
    if head is None and bias is not None:
        raise ValueError(f"{_OP}: bias must be None where weight is None; got Tensor")
    if len(shape) != 4 and (head is not None or len(shape) != 5):
        words = "(N, data_channels * levels, H, W) or (N, levels, data_channels, H, W)"
        words = words if head is None else "(N, C_in, H, W)"
        raise ValueError(f"{_OP}: features must have shape {words}; got {tuple(shape)}")
    if head is not None and (len(head) not in (2, 4) or head[2:].numel() != 1):
        raise ValueError(
            f"{_OP}: weight must have shape (levels * data_channels, C_in), or that and (1, 1); "
            f"got {tuple(head)}"
        )
    if head is not None and head[1] != shape[1]:
        raise ValueError(
            f"{_OP}: weight.shape[1] must equal the channels of features = {shape[1]}; "
            f"got weight {tuple(head)}"
        )
    rows, name = (shape[1], "features.shape[1]") if head is None else (head[0], "weight.shape[0]")
    if len(shape) == 5:
        if shape[2] != data_channels:
            raise ValueError(
                f"{_OP}: data_channels must equal features.shape[2] = {shape[2]}; "
                f"got {data_channels}"
            )
        rows *= data_channels
    if rows == 0 or rows % data_channels:
        raise ValueError(
            f"{_OP}: {name} must be levels * data_channels, a multiple of {data_channels} and at "
            f"least that; got {rows}"
        )
    if bias is not None and bias.shape != (rows,):
        checks.check_shape(_OP, "bias", bias, (rows,), "(weight.shape[0],)")
    image = (shape[0], data_channels, shape[-2], shape[-1])
    if target.shape != image:
        checks.check_shape(_OP, "target", target, image, "(N, data_channels, H, W)")
    return rows // data_channels


def pixel_cross_entropy(
    features: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    data_channels: int = 1,
    masked: bool = False,
    reduction: str = "none",
) -> torch.Tensor:
    r"""Negative log-likelihood of integer images under a softmax over levels, in nats per image.

    .. math:: L_n = \sum_{c, p} \Big( \log \sum_l e^{a_{ncl}[p]} - a_{nct}[p] \Big), \quad
        t = x_{nc}[p], \quad a_{ncl}[p] = b_{cl} + \sum_k w_{cl,k} \, f_{nk}[p]

    The logits a are made from ``features`` by a 1x1 convolution, a block of pixels at a time, and
    are never stored, neither forward nor backward: the backward pass makes them again, one product
    more than a head that stores them. Or, without ``weight``, ``features`` are the logits.

    Equivalent to ``F.cross_entropy(F.conv2d(features, weight[:, :, None, None], bias).unflatten(1,
    (data_channels, -1)).transpose(1, 2), target.long(), reduction="none").sum((1, 2, 3))``.

    Args:
        features: (N, C_in, H, W); or logits (N, data_channels * levels, H, W) with the levels of
            colour c in channels [c * levels, (c + 1) * levels), or (N, levels, data_channels, H,
            W) as F.cross_entropy has them. float32, float64, bfloat16 or float16; any strides.
        target: (N, data_channels, H, W), integers in 0 .. levels - 1; uint8, int16, int32 or
            int64. On a CPU another value is an error. On a GPU nobody waits for the values: the
            loss of an image with another value is NaN.
        weight: (levels * data_channels, C_in), or that and (1, 1) as a convolution has it; the
            levels of colour c are rows [c * levels, (c + 1) * levels). Dtype of ``features``.
        bias: (levels * data_channels,) or None.
        data_channels: colours of the data, 1 for grey images.
        masked: the head's own colour mask, as of ``masked_conv2d(features, weight, bias,
            mask_type="B", data_channels=data_channels)``: the features are ``data_channels``
            contiguous groups (sizes differ by at most one), and the logits of colour c are made of
            groups 0 .. c. The other blocks of ``weight`` are skipped, not multiplied: nothing
            leaks through them, not even NaN, and their gradient is exactly 0.
        reduction: "none" gives the nats of each image, "mean" their mean over the images, "sum"
            their sum.

    Returns:
        (N,), or a scalar for "mean" and "sum"; dtype of ``features``, float32 for bfloat16 and
        float16 under autocast.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or an option has another
            type.
        ValueError: a shape does not fit, an option is unknown or out of range, or (on a CPU) a
            target is no level; inside of torch.compile the latter is a RuntimeError.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``features``, ``weight`` and ``bias``.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 2.2 and 3.4.
    """
    if not checks.are_plain(
        features, features if weight is None else weight, features if bias is None else bias
    ):
        given = {"features": features}
        given |= {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
        features, *rest = checks.admit(_OP, checks.LOSS, given)
        weight = None if weight is None else rest.pop(0)
        bias = None if bias is None else rest.pop(0)
    checks.check_target(_OP, target, TARGETS, "features", features)
    if type(data_channels) is not int or data_channels < 1:
        data_channels = checks.check_number(
            _OP, "data_channels", data_channels, minimum=1, integer=True
        )
    levels = _check_shapes(features, target, weight, bias, data_channels)
    if masked is not False:
        checks.check_bool(_OP, "masked", masked)
        if weight is None:
            raise ValueError(f"{_OP}: masked must be False where weight is None; got True")
    if type(reduction) is not str or reduction != "none":
        checks.check_option(_OP, "reduction", reduction, checks.REDUCTIONS)
    if features.ndim == 5:
        features = features.transpose(1, 2)
    channels_last = features.ndim == 4 and spec.is_channels_last(features)
    try:
        (nats,) = _pixel_cross_entropy(features, weight, bias, target, masked, channels_last)
    except (RuntimeError, IndexError):
        checks.check_levels(_OP, target, levels)  # why it did
        raise
    return nats if reduction == "none" else checks.reduce(nats, reduction)
