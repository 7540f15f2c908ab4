"""Diagonal Gaussians: KL divergence and reparameterised samples, in one pass."""

from collections.abc import Sequence

import torch

from genkern import checks, library, random
from genkern.reference import differentiable_backward
from genkern.reference import gaussian as reference

Prior = tuple[torch.Tensor, torch.Tensor]


def _fake_forward(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, free_bits, with_kl):
    leading = () if num_samples is None else (num_samples,)
    has_z = eps is not None or seed is not None
    z = mu.new_empty((*leading, *mu.shape) if has_z else (0,))
    return z, mu.new_empty(mu.shape[0] if with_kl else 0)


def _fake_backward(
    d_z, d_kl, mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, free_bits, needs_d_eps
):
    d_prior = mu.shape if prior_mu is not None else (0,)
    d_eps = mu.new_empty(eps.shape if needs_d_eps else (0,))
    return (
        mu.new_empty(mu.shape),
        mu.new_empty(mu.shape),
        mu.new_empty(d_prior),
        mu.new_empty(d_prior),
        d_eps,
    )


_forward = library.define(
    "gaussian_forward(Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, "
    "Tensor? eps, Tensor? seed, int? num_samples, float free_bits, bool with_kl) "
    "-> (Tensor, Tensor)",
    _fake_forward,
)
_backward = library.define(
    "gaussian_backward(Tensor? d_z, Tensor? d_kl, Tensor mu, Tensor logvar, Tensor? prior_mu, "
    "Tensor? prior_logvar, Tensor? eps, Tensor? seed, int? num_samples, float free_bits, "
    "bool needs_d_eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


def _reference(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, free_bits, with_kl):
    if seed is not None:
        leading = () if num_samples is None else (num_samples,)
        eps = random.philox_normal(seed, (*leading, *mu.shape), mu.dtype)
    z = mu.new_empty(0) if eps is None else reference.rsample(mu, logvar, eps)
    if not with_kl:
        return z, mu.new_empty(0)
    return z, reference.kl(mu, logvar, prior_mu, prior_logvar, free_bits)


class GaussianFunction(library.Function):
    @staticmethod
    def forward(ctx, mu, logvar, prior_mu, prior_logvar, eps, seed, options):
        inputs = (mu, logvar, prior_mu, prior_logvar, eps, seed)
        ctx.save_for_backward(*inputs)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _forward(*inputs, *options)

    @staticmethod
    def backward(ctx, d_z, d_kl):
        inputs = ctx.saved_tensors
        prior_mu, eps, seed = inputs[2], inputs[4], inputs[5]
        num_samples, free_bits, with_kl = ctx.options
        if eps is None and seed is None:
            d_z = None
        if not with_kl:
            d_kl = None
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph: the formula is differentiable again
            grads = differentiable_backward(
                lambda mu, logvar, prior_mu, prior_logvar, eps: _reference(
                    mu, logvar, prior_mu, prior_logvar, eps, seed, *ctx.options
                ),
                inputs[:5],
                needs[:5],
                (d_z, d_kl),
            )
            return *grads, None, None
        if d_z is None and d_kl is None:
            return (None,) * 7
        d_mu, d_logvar, d_prior_mu, d_prior_logvar, d_eps = _backward(
            None if d_z is None else d_z.contiguous(),
            None if d_kl is None else d_kl.contiguous(),
            *inputs,
            num_samples,
            free_bits,
            needs[4] and d_z is not None,
        )
        has_prior = prior_mu is not None and d_kl is not None
        return (
            d_mu if needs[0] else None,
            d_logvar if needs[1] else None,
            d_prior_mu if has_prior and needs[2] else None,
            d_prior_logvar if has_prior and needs[3] else None,
            d_eps if needs[4] and d_z is not None else None,
            None,
            None,
        )


def _check(op: str, mu, logvar, prior: Prior | None, eps, num_samples) -> None:
    checks.check_like(op, "logvar", logvar, "mu", mu)
    if mu.ndim == 0:
        raise ValueError(f"{op}: mu must have a batch dimension; got a 0-dimensional tensor")
    if logvar.shape != mu.shape:
        checks.check_shape(op, "logvar", logvar, mu.shape, "mu.shape", ValueError)
    if prior is not None:
        if not isinstance(prior, (tuple, list)) or len(prior) != 2:
            raise TypeError(f"{op}: prior must be a pair (mu, logvar); got {type(prior).__name__}")
        for name, tensor in zip(("prior[0]", "prior[1]"), prior, strict=True):
            checks.check_like(op, name, tensor, "mu", mu)
            checks.check_shape(op, name, tensor, mu.shape, "mu.shape", ValueError)
    if num_samples is not None:
        checks.check_number(op, "num_samples", num_samples, minimum=0, integer=True)
    if eps is not None:
        checks.check_like(op, "eps", eps, "mu", mu)
        shape: Sequence[int] = mu.shape if num_samples is None else (num_samples, *mu.shape)
        text = "mu.shape" if num_samples is None else "(num_samples, *mu.shape)"
        checks.check_shape(op, "eps", eps, shape, text, ValueError)


def _checked(op, mu, logvar, prior, eps, num_samples):
    """mu, logvar, prior_mu, prior_logvar and eps, contiguous and in the dtype to compute in."""
    checks.check_tensor(op, "mu", mu)
    if checks.autocast_dtype(mu) is not None and isinstance(logvar, torch.Tensor):
        mu, logvar = mu.float(), logvar.float()  # a loss: single precision under autocast
        prior = None if prior is None else tuple(t.float() for t in prior)
        eps = None if eps is None else eps.float()
    _check(op, mu, logvar, prior, eps, num_samples)
    tensors = (mu, logvar, *(prior or (None, None)), eps)
    return tuple(t if t is None else t.contiguous() for t in tensors)


def _run(op, mu, logvar, prior, free_bits, num_samples, eps, generator, with_z, with_kl):
    plain = checks.are_plain(mu, logvar) and mu.shape == logvar.shape and mu.ndim > 0
    if plain and prior is None and eps is None and num_samples is None:
        inputs = (mu.contiguous(), logvar.contiguous(), None, None, None)
    else:
        inputs = _checked(op, mu, logvar, prior, eps, num_samples)
    seed = random.draw_seed(inputs[0].device, generator) if with_z and eps is None else None
    options = (num_samples, free_bits, with_kl)
    if library.choose("gaussian", inputs[0]) == "reference":
        return _reference(*inputs, seed, *options)
    if checks.needs_grad(*inputs):
        return GaussianFunction.apply(*inputs, seed, options)
    return _forward(*inputs, seed, *options)


def _check_kl_options(op: str, free_bits: float, reduction: str) -> None:
    if free_bits != 0.0 or type(free_bits) is not float:
        checks.check_number(op, "free_bits", free_bits, minimum=0)
    checks.check_option(op, "reduction", reduction, checks.REDUCTIONS)


def gaussian_kl(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    *,
    prior: Prior | None = None,
    free_bits: float = 0.0,
    reduction: str = "none",
) -> torch.Tensor:
    r"""KL divergence of diagonal Gaussians, summed over all but the batch dimension, in nats.

    .. math::
        KL_n = \tfrac12 \sum_j \mu_{nj}^2 + e^{l_{nj}} - 1 - l_{nj}

    to N(0, I), with l = ``logvar``; and to a prior N(\mu_2, e^{l_2})

    .. math::
        KL_n = \tfrac12 \sum_j (\mu - \mu_2)^2 e^{-l_2} + e^{l - l_2} - 1 - (l - l_2).

    Equivalent to ``0.5 * (mu**2 + logvar.expm1() - logvar).flatten(1).sum(1)``, without its
    cancellation around logvar = 0.

    Args:
        mu: (N, ...), float32, float64, bfloat16 or float16; any strides.
        logvar: shape of ``mu``; logarithm of the variance.
        prior: (mu_2, logvar_2), each of the shape of ``mu``; default N(0, I).
        free_bits: floor of each element's KL, nats: max(KL_nj, free_bits). Elements below it
            have no gradient.
        reduction: "none" (N,), "mean" over the batch or "sum".

    Returns:
        (N,) or a scalar, nats, in the dtype of ``mu`` (float32 under autocast).

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: shapes differ, ``free_bits`` is negative, ``reduction`` is unknown.
        RuntimeError: devices or dtypes differ.

    Differentiable any number of times in mu, logvar and the prior.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", app. B; free bits:
    Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
    app. C.8, with the floor applied to each element.
    """
    _check_kl_options("gaussian_kl", free_bits, reduction)
    _, kl = _run("gaussian_kl", mu, logvar, prior, free_bits, None, None, None, False, True)
    return checks.reduce(kl, reduction)


def gaussian_rsample(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    *,
    num_samples: int | None = None,
    eps: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Reparameterised samples of a diagonal Gaussian.

    .. math:: z = \mu + e^{l/2} \epsilon, \quad \epsilon \sim N(0, I)

    Equivalent to ``mu + (0.5 * logvar).exp() * torch.randn_like(mu)``. The noise is a Philox
    stream keyed by a seed that torch's generator draws: the same for any layout, thread count
    and device; the backward pass makes it again instead of storing it.

    Args:
        mu: (N, ...), float32, float64, bfloat16 or float16; any strides.
        logvar: shape of ``mu``; logarithm of the variance.
        num_samples: S draws of each element; default one, without the leading dimension.
        eps: the noise, (N, ...) or (S, N, ...); gradients flow to it.
        generator: draws the seed; default torch's generator of the device.

    Returns:
        (N, ...) or (S, N, ...), in the dtype of ``mu`` (float32 under autocast).

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: shapes differ or ``num_samples`` is negative.
        RuntimeError: devices or dtypes differ.

    Differentiable any number of times in mu, logvar and eps. Inside activation checkpointing the
    generator's state must be preserved (torch's default), or the noise of the second forward
    differs.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4.
    """
    z, _ = _run("gaussian_rsample", mu, logvar, None, 0.0, num_samples, eps, generator, True, False)
    return z


def gaussian_kl_rsample(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    *,
    prior: Prior | None = None,
    free_bits: float = 0.0,
    reduction: str = "none",
    num_samples: int | None = None,
    eps: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`gaussian_rsample` and `gaussian_kl` in one pass forward and one backward.

    Saves mu, logvar and an 8-byte seed for the backward pass.

    Args:
        mu, logvar, prior, free_bits, reduction: as in `gaussian_kl`.
        num_samples, eps, generator: as in `gaussian_rsample`.

    Returns:
        z: (N, ...) or (num_samples, N, ...).
        kl: (N,) or a scalar, nats.

    Raises:
        TypeError, ValueError, RuntimeError: as in `gaussian_kl` and `gaussian_rsample`.

    Differentiable any number of times in mu, logvar, the prior and eps.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4 and app. B.
    """
    _check_kl_options("gaussian_kl_rsample", free_bits, reduction)
    z, kl = _run(
        "gaussian_kl_rsample", mu, logvar, prior, free_bits, num_samples, eps, generator, True, True
    )
    return z, checks.reduce(kl, reduction)
