"""instance_norm_act and conditional_batch_norm: statistics, an affine map and an activation."""

import math

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import norm_act as reference

_ACTIVATIONS = tuple(reference.ACTIVATIONS)
_PLACES = {name: place for place, name in enumerate(_ACTIVATIONS)}
_LABELS = (torch.uint8, torch.int16, torch.int32, torch.int64)
Rows = torch.Tensor | None


def _like(tensor, needed, channels_last):
    if not needed:
        return tensor.new_empty(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)


def _results(input, weight, bias, labels, mean, variance, over_batch, *options):
    channels_last, save = options[-2:]
    shape = input.shape[1:2] if over_batch else input.shape[:2]
    if not save or mean is not None:
        shape = (0,)
    buffers = (input.new_empty(shape, dtype=spec.accumulation(input.dtype)) for _ in range(2))
    return _like(input, True, channels_last), *buffers


def _of_rows(input, rows, needed):
    return torch.empty_like(rows) if needed and rows is not None else input.new_empty(0)


def _gradients(upstream, input, weight, bias, *rest):
    channels_last, needs = rest[-4], rest[-3:]
    rows = (_of_rows(input, t, n) for t, n in zip((weight, bias), needs[1:], strict=True))
    return _like(input, needs[0], channels_last), *rows


def _second(g, g_weight, g_bias, upstream, input, weight, bias, *rest):
    channels_last, needs = rest[-8], rest[-4:]
    images = (_like(input, needed, channels_last) for needed in needs[:2])
    rows = (_of_rows(input, t, n) for t, n in zip((weight, bias), needs[2:], strict=True))
    return *images, *rows


def _reference(input, weight, bias, labels, mean, variance, over_batch, act, alpha, eps, _):
    return reference.forward(
        input, weight, bias, labels, mean, variance, over_batch, _ACTIVATIONS[act], alpha, eps
    )


_norm_act = Family(
    "norm_act",
    "(Tensor input, Tensor? weight, Tensor? bias, Tensor? labels, Tensor? mean, Tensor? variance, "
    "bool over_batch, int act, float alpha, float eps, bool channels_last) -> Tensor",
    results=_results,
    reference=_reference,
    constants=3,
    saved=("batch_mean", "batch_variance"),
    returned=True,
    gradients=_gradients,
    second=_second,
)


def _admit(op: str, input: torch.Tensor, weight: Rows, bias: Rows) -> tuple:
    if checks.are_plain(
        input, input if weight is None else weight, input if bias is None else bias
    ):
        return input, weight, bias
    tensors = {"input": input}
    tensors |= {n: t for n, t in (("weight", weight), ("bias", bias)) if t is not None}
    input, *rest = checks.admit(op, checks.PRODUCT, tensors)
    weight = None if weight is None else rest.pop(0)
    return input, weight, None if bias is None else rest.pop(0)


def check_options(op: str, act: str, alpha: float, eps: float) -> tuple[int, float, float]:
    chosen = _PLACES.get(act) if type(act) is str else None
    if chosen is None:
        chosen = checks.check_option(op, "act", act, _ACTIVATIONS)
    if type(alpha) is not float or alpha != alpha:
        alpha = float(checks.check_number(op, "alpha", alpha, minimum=-math.inf))
    if type(eps) is not float or not 0 <= eps < math.inf:
        eps = float(checks.check_number(op, "eps", eps, minimum=0.0))
    return chosen, alpha, eps


def _check_input(op: str, input: torch.Tensor, least: int) -> None:
    if input.ndim < least:
        shape = "(N, C, ...) with a dimension behind C" if least > 2 else "(N, C, ...)"
        raise ValueError(f"{op}: input must have shape {shape}; got {tuple(input.shape)}")


def _check_count(op: str, input: torch.Tensor, count: int, of: str) -> None:
    if count == 1:
        raise ValueError(
            f"{op}: input must have more than 1 value for each {of}; got {tuple(input.shape)}"
        )


def instance_norm_act(
    input: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    eps: float = 1e-5,
    act: str = "linear",
    alpha: float = 0.2,
) -> torch.Tensor:
    r"""Instance normalisation, an affine map and an activation; AdaIN where each image has its own.

    .. math:: y = \mathrm{act}\left(w \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b\right)

    with mean and variance (over H W) of each channel of each image. Equivalent to
    ``F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias), alpha)`` and the like; AdaIN to
    ``F.instance_norm(x) * weight[:, :, None, None] + bias[:, :, None, None]``. One pass over each
    plane while it is in the cache; the backward pass computes the activation again.

    Args:
        input: (N, C, ...), at least 3 dimensions, any strides; float32, float64, bfloat16 or
            float16.
        weight: (C,), or (N, C): a style of each image. None for 1.
        bias: likewise; None for 0.
        eps: added to the variance.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish" or
            "gelu", as of `genkern.bias_act`.
        alpha: slope of "lrelu" below 0.

    Returns:
        Shape, dtype and memory format of ``input``; under autocast, the autocast dtype.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or not a number.
        ValueError: an unknown ``act``, an ``eps`` below 0, a shape that does not fit, or planes of
            one value, whose variance says nothing (as F.instance_norm).
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``: twice by kernels,
    beyond that by the formula.
    Source: Ulyanov et al. 2016, "Instance normalization"; Huang and Belongie 2017, "Arbitrary style
    transfer in real-time with adaptive instance normalization", eq. 8.
    """
    op = "instance_norm_act"
    input, weight, bias = _admit(op, input, weight, bias)
    chosen, alpha, eps = check_options(op, act, alpha, eps)
    _check_input(op, input, 3)
    shape = input.shape
    for name, rows in (("weight", weight), ("bias", bias)):
        if rows is not None and rows.shape != shape[:2] and rows.shape != shape[1:2]:
            text = f"(C,) = ({shape[1]},) or (N, C) = {tuple(shape[:2])}"
            raise ValueError(f"{op}: {name} must have shape {text}; got {tuple(rows.shape)}")
    _check_count(op, input, shape[2:].numel(), "channel of each image")
    channels_last = input.ndim == 4 and spec.is_channels_last(input)
    return _norm_act(
        input, weight, bias, None, None, None, False, chosen, alpha, eps, channels_last
    )[0]


def conditional_batch_norm(
    input: torch.Tensor,
    labels: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    act: str = "linear",
    alpha: float = 0.2,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    r"""Batch normalisation whose affine map is that of each image's class, and an activation.

    .. math:: y_n = \mathrm{act}\left(w_{l_n} \frac{x_n - \mu}{\sqrt{\sigma^2 + \epsilon}}
              + b_{l_n}\right)

    Equivalent to ``act(F.batch_norm(x, running_mean, running_var, training=training) *
    weight[labels][:, :, None, None] + bias[labels][:, :, None, None])``, but that nothing is
    written: the running statistics after the call are results. Sums over the images of a class are
    formed in the order of the batch, with equal bits at any number of threads.

    Args:
        input: (N, C, ...), any strides; float32, float64, bfloat16 or float16.
        labels: (N,), integers in 0 .. classes - 1; uint8, int16, int32 or int64. On a CPU another
            value is an error; on a GPU nobody waits for the values, and that image is NaN. None:
            one affine map for all, or none.
        weight: (classes, C); (C,) where ``labels`` is None. None for 1.
        bias: likewise; None for 0.
        running_mean, running_var: (C,), floating point; None, both, in training only: nothing
            runs.
        training: normalise by mean and variance of the batch, over N and all but C; otherwise by
            the running ones, which have no gradient.
        momentum: weight of the batch in the running statistics: (1 - momentum) r + momentum s,
            where s is the mean and the unbiased variance.
        eps: added to the variance, which is over the count.
        act, alpha: as of `genkern.instance_norm_act`.

    Returns:
        output: shape, dtype and memory format of ``input``; under autocast, the autocast dtype.
        running_mean, running_var: after the call, constants; without training those given.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or not a number.
        ValueError: an unknown ``act``, a number or a shape that does not fit, (on a CPU) a label
            that is no class, or training on one value a channel (as F.batch_norm).
        RuntimeError: dtypes or devices differ; inside of torch.compile, a label that is no class.

    Differentiable any number of times in ``input``, ``weight`` and ``bias``: twice by kernels,
    beyond that by the formula.
    Source: Dumoulin et al. 2017, "A learned representation for artistic style", eq. 5; de Vries et
    al. 2017, sec. 3; Ioffe and Szegedy 2015, algorithms 1 and 2.
    """
    op = "conditional_batch_norm"
    input, weight, bias = _admit(op, input, weight, bias)
    chosen, alpha, eps = check_options(op, act, alpha, eps)
    checks.check_bool(op, "training", training)
    if type(momentum) is not float or not 0 <= momentum <= 1:
        momentum = checks.check_number(op, "momentum", momentum, minimum=0.0, maximum=1.0)
    _check_input(op, input, 2)
    _check_rows(op, input, labels, weight, bias)
    running = _check_running(op, input, running_mean, running_var, training)
    channels_last = input.ndim == 4 and spec.is_channels_last(input)
    options = (True, chosen, alpha, eps, channels_last)
    rows = None if labels is None else labels.long()
    try:
        y, mean, variance = _norm_act(input, weight, bias, rows, *running, *options)
    except (RuntimeError, IndexError):
        table = bias if weight is None else weight
        if labels is not None and table is not None:
            checks.check_levels(op, labels, table.shape[0], "labels")  # why it did
        raise
    count = input.numel() // max(1, input.shape[1])
    if not training or running_mean is None or running_var is None or count == 0:
        return y, running_mean, running_var
    with torch.no_grad():
        unbiased = variance * (count / (count - 1))
        return (
            y,
            torch.lerp(running_mean, mean.to(running_mean.dtype), momentum),
            torch.lerp(running_var, unbiased.to(running_var.dtype), momentum),
        )


def _check_rows(op: str, input: torch.Tensor, labels: Rows, weight: Rows, bias: Rows) -> None:
    """Shapes of the affine maps, and the labels that choose among them."""
    C, text = input.shape[1], "(C,)"
    shape: tuple[int, ...] = (C,)
    if labels is not None:
        checks.check_target(op, labels, _LABELS, "input", input, "labels")
        checks.check_shape(op, "labels", labels, input.shape[:1], "(N,)")
        rows = weight if weight is not None else bias
        if rows is None:
            raise ValueError(f"{op}: labels must be None without weight and bias; got Tensor")
        shape, text = (rows.shape[0] if rows.ndim else 1, C), "(classes, C)"
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != shape:
            checks.check_shape(op, name, tensor, shape, text)


def _check_running(
    op: str, input: torch.Tensor, mean: Rows, variance: Rows, training: bool
) -> tuple[Rows, Rows]:
    """The running statistics where they are used, in the dtype that sums are formed in."""
    if training:
        _check_count(op, input, input.numel() // max(1, input.shape[1]), "channel in training")
    if (mean is None) != (variance is None) or (mean is None and not training):
        given = ["running_mean"] * (mean is not None) + ["running_var"] * (variance is not None)
        got = " alone".join([*given, ""]) or "neither"
        need = "both be given, or neither in training"
        raise ValueError(f"{op}: running_mean and running_var must {need}; got {got}")
    if mean is None or variance is None:
        return None, None
    plain, shape = checks.are_plain(input, mean, variance), input.shape[1:2]
    for name, tensor in (("running_mean", mean), ("running_var", variance)):
        if not plain:
            checks.check_tensor(op, name, tensor)
        if tensor.shape != shape:
            checks.check_shape(op, name, tensor, shape, "(C,)")
        if not plain and tensor.device != input.device:
            raise RuntimeError(
                f"{op}: {name} must be on {input.device} like input; got {tensor.device}"
            )
    if training:
        return None, None
    dtype = spec.accumulation(input.dtype)
    return mean.detach().to(dtype), variance.detach().to(dtype)
