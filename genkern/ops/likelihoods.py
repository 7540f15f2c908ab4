"""Likelihoods of independent elements, Bernoulli, Gaussian, discretized logistic: nats an item."""

import functools
import math

import torch

from genkern import checks, library, spec
from genkern.family import Family
from genkern.reference import likelihoods as reference

# The kernels know the kinds by these numbers.
_BERNOULLI, _CONTINUOUS_BERNOULLI, _GAUSSIAN, _LOGISTIC = range(4)
_SCALES = {_GAUSSIAN: "logvar", _LOGISTIC: "log_scale"}
_TARGETS = (torch.uint8, torch.int32, torch.int64)
_LARGEST = 2**24  # levels: integers that float32 holds exactly
_LOGISTIC_NLL = "discretized_logistic_nll"


def _results(location, scale, target, integers, mask, kind, fixed, levels, save):
    items = target if integers is None else integers
    nats = location.new_empty(location.shape[: location.ndim - items.ndim + 1])
    if not save or kind != _LOGISTIC:
        return nats, location.new_empty(0)
    dtype = spec.accumulation(location.dtype)  # losses may be scaled
    return nats, location.new_empty((2, location.numel()), dtype=dtype)


def _check_levels(target, mask, levels) -> None:
    checks.check_levels(_LOGISTIC_NLL, target if mask is None else target[mask], levels)


def _reference(location, scale, target, integers, mask, kind, fixed, levels):
    if kind == _LOGISTIC:
        if not library.is_transforming():
            _check_levels(integers, mask, levels)
        function = functools.partial(reference.discretized_logistic, levels=levels)
        return (reference.per_item(function, location, scale, integers, mask),)
    if kind == _GAUSSIAN:
        if scale is None:
            scale = location.new_full((), fixed, dtype=spec.accumulation(location.dtype))
        return (reference.per_item(reference.gaussian, location, scale, target, mask),)
    continuous = kind == _CONTINUOUS_BERNOULLI
    bernoulli = lambda logits, _, x: reference.bernoulli(logits, x, continuous)  # noqa: E731
    return (reference.per_item(bernoulli, location, None, target, mask),)


_likelihoods = Family(
    "likelihoods",
    "(Tensor location, Tensor? scale, Tensor? target, Tensor? integers, Tensor? mask, int kind, "
    "float fixed, SymInt levels) -> Tensor",
    results=_results,
    reference=_reference,
    constants=2,
    saved=("slopes",),
    second=lambda *given: spec.empty_gradients(given[3:7], given[-4:]),
)


def _broadcast(op: str, name: str, tensor: torch.Tensor, shape: torch.Size, text: str):
    """``tensor`` of the shape ``shape``, which it has, or which it is repeated to."""
    own = tensor.shape
    if own == shape:
        return tensor
    if len(own) > len(shape) or any(
        a not in (1, b) for a, b in zip(reversed(own), reversed(shape), strict=False)
    ):
        raise ValueError(
            f"{op}: {name} must have the shape {text} = {tuple(shape)}, or one that is repeated to "
            f"it; got {tuple(own)}"
        )
    return tensor.expand(shape)


def _check_target_shape(op: str, name: str, location: torch.Tensor, target: torch.Tensor) -> None:
    shape, own = location.shape, target.shape
    if not shape:
        raise ValueError(f"{op}: {name} must have a batch dimension; got a 0-dimensional tensor")
    if own != shape and (own != shape[1:] or len(own) < 2):
        raise ValueError(
            f"{op}: target must have the shape (N, ...) of {name}, or (N, D, ...) where {name} "
            f"is (S, N, D, ...), S samples; got {tuple(own)} for {tuple(shape)}"
        )


def _admit_mask(op: str, mask: torch.Tensor | None, target: torch.Tensor) -> torch.Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor) or mask.layout is not torch.strided or mask.is_nested:
        raise TypeError(f"{op}: mask must be a dense Tensor; got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        got = spec.dtype_name(mask.dtype)
        raise TypeError(f"{op}: mask must be bool, True where an element counts; got {got}")
    if mask.device != target.device:
        raise RuntimeError(f"{op}: mask must be on {target.device}; got {mask.device}")
    return _broadcast(op, "mask", mask, target.shape, "of target").contiguous()


def _run(op, location, scale, target, integers, mask, kind, reduction, fixed=0.0, levels=0):
    if type(reduction) is not str or reduction != "none":
        checks.check_option(op, "reduction", reduction, checks.REDUCTIONS)
    dtype, shape = location.dtype, location.shape
    if scale is not None and scale.shape != shape and (kind == _LOGISTIC or scale.numel() != 1):
        if dtype in spec.HALF:  # the gradient of what is repeated is a sum: not of rounded numbers
            location, scale = location.float(), scale.float()
            target = None if target is None else target.float()
        scale = _broadcast(op, _SCALES[kind], scale, shape, "of mean")
    # Halves of one tensor are copied here, once, and not by each of the two passes.
    tensors = (t if t is None else t.contiguous() for t in (location, scale, target, integers))
    (nats,) = _likelihoods(*tensors, mask, kind, fixed, levels)
    nats = nats if nats.dtype == dtype else nats.to(dtype)
    return nats if reduction == "none" else checks.reduce(nats, reduction)


def bernoulli_nll(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    continuous: bool = False,
    mask: torch.Tensor | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    r"""Negative log-likelihood of independent Bernoulli variables given their logits, in nats.

    .. math:: -\log p(x_n) = \sum_i \log(1 + e^{a_{ni}}) - x_{ni} a_{ni}

    with a = ``logits``. Equivalent to ``F.binary_cross_entropy_with_logits(a, x,
    reduction="none").flatten(1).sum(1)``, without its cancellation at large logits. For x between
    0 and 1 that is no density: ``continuous=True`` adds the log-normaliser of the continuous
    Bernoulli, -log(a / tanh(a / 2)), which is -log 2 at a = 0, and makes it log((e^a - 1) / a) -
    x a: ``-torch.distributions.ContinuousBernoulli(logits=a).log_prob(x)``, summed.

    Args:
        logits: (N, ...), or (S, N, ...), S samples of the logits of each item; float32, float64,
            bfloat16 or float16, any strides.
        target: (N, ...), in [0, 1], which is not checked; dtype of ``logits``.
        continuous: whether x is a real number in [0, 1], and not an event.
        mask: (N, ...) or a shape that is repeated to it; bool. Where it is False, elements add
            nothing and have a gradient of 0, whatever stands there.
        reduction: "none" (N,) or (S, N), "mean" over these or "sum".

    Returns:
        (N,), (S, N) or a scalar, nats of an item, in the dtype of ``logits`` (float32 under
        autocast); of a density, they may be negative.

    Raises:
        TypeError: a tensor or an option has another type; ValueError: shapes do not fit, or
        ``reduction`` is unknown; RuntimeError: devices or dtypes differ.

    Differentiable any number of times in ``logits`` and ``target``: twice by kernels.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", app. C.1; Loaiza-Ganem and
    Cunningham 2019, "The continuous Bernoulli", eq. 6 and 7.
    """
    op = "bernoulli_nll"
    checks.check_bool(op, "continuous", continuous)
    if not checks.are_plain(logits, target):
        logits, target = checks.admit(op, checks.LOSS, {"logits": logits, "target": target})
    _check_target_shape(op, "logits", logits, target)
    mask = _admit_mask(op, mask, target)
    kind = _CONTINUOUS_BERNOULLI if continuous else _BERNOULLI
    return _run(op, logits, None, target, None, mask, kind, reduction)


def gaussian_nll(
    mean: torch.Tensor,
    logvar: torch.Tensor | float,
    target: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    r"""Negative log-likelihood of independent Gaussian variables, with its constant, in nats.

    .. math:: -\log p(x_n) = \tfrac12 \sum_i (x_{ni} - m_{ni})^2 e^{-l_{ni}} + l_{ni} + \log 2 \pi

    Equivalent to ``0.5 * ((x - mean)**2 * (-logvar).exp() + logvar + math.log(2 * math.pi))``,
    summed, in one pass; one shared value is not repeated in memory, and neither is its gradient.

    Args:
        mean: (N, ...), or (S, N, ...), S samples of each item; dtypes as in `bernoulli_nll`.
        logvar: l, logarithm of the variance: a number; a tensor of one element, one variance for
            all; the shape of ``mean``; or a shape that is repeated to it, as (C, 1, 1).
        target: (N, ...); dtype of ``mean``.
        mask, reduction: as in `bernoulli_nll`.

    Returns:
        As `bernoulli_nll`, dtype of ``mean``.

    Raises:
        TypeError, ValueError, RuntimeError: as in `bernoulli_nll`.

    Differentiable any number of times in ``mean``, ``logvar`` and ``target``. The gradient of one
    shared variance is summed in an order that the shape alone fixes.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", app. C.2; the best shared
    variance: `gaussian_optimal_logvar`.
    """
    op = "gaussian_nll"
    fixed, scale = 0.0, None
    if isinstance(logvar, torch.Tensor):
        scale = logvar
    else:
        fixed = float(checks.check_number(op, "logvar", logvar, minimum=-math.inf))
    if not checks.are_plain(mean, mean if scale is None else scale, target):
        tensors = {"mean": mean, "target": target}
        if scale is not None:
            tensors |= {"logvar": scale}
        mean, target, *rest = checks.admit(op, checks.LOSS, tensors)
        scale = rest[0] if rest else None
    _check_target_shape(op, "mean", mean, target)
    mask = _admit_mask(op, mask, target)
    return _run(op, mean, scale, target, None, mask, _GAUSSIAN, reduction, fixed)


def gaussian_optimal_logvar(
    mean: torch.Tensor, target: torch.Tensor, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    r"""The shared logvar with the smallest `gaussian_nll`: that of the sigma-VAE.

    .. math:: l^* = \log \frac{1}{M} \sum_{ni} (x_{ni} - m_{ni})^2

    over the M elements of all items: ``torch.log(F.mse_loss(mean, target))``. With it the sum of
    `gaussian_nll` is M / 2 (l* + 1 + log 2 pi), and since l* is its optimum, the gradient of the
    mean is the same whether one flows through l* or not.

    Args:
        mean: (N, ...) or (S, N, ...), floating-point, any strides.
        target: (N, ...); dtype of ``mean``.
        mask: as in `bernoulli_nll`: elements that count.

    Returns:
        A scalar in the dtype of ``mean``, float32 for bfloat16 and float16; -inf where the mean
        is the target.

    Raises:
        TypeError, ValueError, RuntimeError: as in `bernoulli_nll`.

    Differentiable any number of times in ``mean`` and ``target``.
    Source: Rybkin et al. 2021, "Simple and effective VAE training with calibrated decoders", sec.
    3.1 and eq. 7.
    """
    op = "gaussian_optimal_logvar"
    mean, target = checks.admit(op, checks.LOSS, {"mean": mean, "target": target})
    _check_target_shape(op, "mean", mean, target)
    mask = _admit_mask(op, mask, target)
    dtype = spec.accumulation(mean.dtype)
    return reference.optimal_logvar(mean.to(dtype), target.to(dtype), mask)


def discretized_logistic_nll(
    mean: torch.Tensor,
    log_scale: torch.Tensor,
    target: torch.Tensor,
    *,
    levels: int = 256,
    mask: torch.Tensor | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    r"""Negative log-likelihood of integers under logistics that are cut into bins, in nats.

    .. math::
        -\log P(v_n) = -\sum_i \log \left[\sigma\left(\tfrac{x_{ni} + h - m_{ni}}{s_{ni}}\right) -
        \sigma\left(\tfrac{x_{ni} - h - m_{ni}}{s_{ni}}\right)\right],
        \quad x = 2 v / (levels - 1) - 1, \; h = 1 / (levels - 1)

    where the bins of v = 0 and v = levels - 1 reach to -inf and +inf, and
    log s = max(log-scale, -7). Equivalent to ``-torch.log(torch.sigmoid((x + h - m) / s) -
    torch.sigmoid((x - h - m) / s)).flatten(1).sum(1)``, without its cancellation. With two levels
    it is `bernoulli_nll` of the logits m / s.

    Args:
        mean: m, (N, ...) or (S, N, ...), of data in [-1, 1]; dtypes as in `bernoulli_nll`.
        log_scale: the shape of ``mean``, or one that is repeated to it, as one scale a channel.
        target: (N, ...); uint8, int32 or int64 in 0 .. levels - 1.
        levels: how many values an element may have; 2 to 2^24.
        mask, reduction: as in `bernoulli_nll`; where the mask is False, any integer may stand.

    Returns:
        As `bernoulli_nll`, dtype of ``mean``; on CUDA NaN for an item with a target of no level.

    Raises:
        TypeError, ValueError, RuntimeError: as in `bernoulli_nll`; ValueError also where, on the
            CPU, a target is outside of 0 .. levels - 1 (a RuntimeError inside of torch.compile).

    Differentiable any number of times in ``mean`` and ``log_scale``; log-scales below -7 have no
    gradient.
    Source: Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
    app. C.1 (discretized logistic likelihood).
    """
    op = _LOGISTIC_NLL
    levels = checks.check_number(op, "levels", levels, minimum=2, maximum=_LARGEST, integer=True)
    if not checks.are_plain(mean, log_scale):
        mean, log_scale = checks.admit(op, checks.LOSS, {"mean": mean, "log_scale": log_scale})
    checks.check_target(op, target, _TARGETS, "mean", mean)
    _check_target_shape(op, "mean", mean, target)
    mask = _admit_mask(op, mask, target)
    try:
        return _run(op, mean, log_scale, None, target, mask, _LOGISTIC, reduction, levels=levels)
    except RuntimeError:
        _check_levels(target, mask, levels)  # why it did
        raise
