"""Diagonal Gaussians: KL divergence and reparameterised samples, in one pass."""

from collections.abc import Sequence

import torch

from genkern import checks, library, random
from genkern.family import Family
from genkern.reference import gaussian as reference

Prior = tuple[torch.Tensor, torch.Tensor]
FreeBits = float | torch.Tensor


def _z_shape(mu, num_samples) -> tuple[int, ...]:
    return (*mu.shape,) if num_samples is None else (num_samples, *mu.shape)


def _results(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, with_kl
):
    has_z = eps is not None or seed is not None
    z = mu.new_empty(_z_shape(mu, num_samples) if has_z else (0,))
    return z, mu.new_empty(mu.shape[0] if with_kl else 0)


def _reference(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, with_kl
):
    if seed is not None:
        eps = random.philox_normal(seed, _z_shape(mu, num_samples), mu.dtype)
    z = mu.new_empty(0) if eps is None else reference.rsample(mu, logvar, eps)
    if not with_kl:
        return z, mu.new_empty(0)
    floor = free_bits if annealed is None else annealed
    return z, reference.kl(mu, logvar, prior_mu, prior_logvar, floor)


_gaussian = Family(
    "gaussian",
    "(Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, Tensor? eps, Tensor? seed, "
    "Tensor? annealed, SymInt? num_samples, float free_bits, bool with_kl) -> (Tensor, Tensor)",
    results=_results,
    reference=_reference,
    constants=2,
)


def _check_pair(op: str, prior: object) -> None:
    if not isinstance(prior, (tuple, list)) or len(prior) != 2:
        raise TypeError(f"{op}: prior must be a pair (mu, logvar); got {type(prior).__name__}")


def _admit(op, mu, logvar, prior: Prior | None, eps, num_samples):
    """mu, logvar, prior_mu, prior_logvar and eps, in the dtype to compute in; num_samples."""
    tensors = {"mu": mu, "logvar": logvar}
    if prior is not None:
        _check_pair(op, prior)
        tensors |= {"prior[0]": prior[0], "prior[1]": prior[1]}
    if eps is not None:
        tensors["eps"] = eps
    mu, *others = checks.admit(op, checks.LOSS, tensors)
    if mu.ndim == 0:
        raise ValueError(f"{op}: mu must have a batch dimension; got a 0-dimensional tensor")
    if num_samples is not None:
        num_samples = checks.check_number(op, "num_samples", num_samples, minimum=0, integer=True)
    for name, tensor in zip(list(tensors)[1:], others, strict=True):
        shape: Sequence[int] = mu.shape
        text = "mu.shape"
        if name == "eps" and num_samples is not None:
            shape, text = (num_samples, *mu.shape), "(num_samples, *mu.shape)"
        if tensor.shape != shape:
            checks.check_shape(op, name, tensor, shape, text)
    eps = others.pop() if eps is not None else None
    logvar, prior_mu, prior_logvar = others if prior is not None else (*others, None, None)
    return mu, logvar, prior_mu, prior_logvar, eps, num_samples


def _noise(op, mu, num_samples, generator):
    """(eps, seed): the noise itself where the program has to run without genkern."""
    if generator is not None and not isinstance(generator, torch.Generator):
        got = type(generator).__name__
        raise TypeError(f"{op}: generator must be a torch.Generator; got {got}")
    if not library.is_exporting():
        return None, random.draw_seed(mu.device, generator)
    shape = _z_shape(mu, num_samples)
    if generator is None:
        return torch.randn(shape, dtype=mu.dtype, device=mu.device), None
    return torch.randn(shape, dtype=mu.dtype, device=mu.device, generator=generator), None


def _run(op, mu, logvar, prior, free_bits, num_samples, eps, generator, with_z, with_kl):
    if (
        prior is None and eps is None and num_samples is None
        and checks.are_plain(mu, logvar) and mu.shape == logvar.shape and mu.ndim > 0
    ):  # fmt: skip
        prior_mu = prior_logvar = None
    else:
        mu, logvar, prior_mu, prior_logvar, eps, num_samples = _admit(
            op, mu, logvar, prior, eps, num_samples
        )
    # Halves of one tensor are copied here, once, and not by each of the two passes.
    mu, logvar = mu.contiguous(), logvar.contiguous()
    annealed = seed = None
    if type(free_bits) is not float or free_bits != 0.0:
        free_bits, annealed = checks.annealed(op, "free_bits", free_bits, mu, minimum=0)
    if eps is not None and generator is not None:
        raise ValueError(f"{op}: generator must be None where eps is given; got both")
    if with_z and eps is None:
        eps, seed = _noise(op, mu, num_samples, generator)
    return _gaussian(
        mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, with_kl
    )


def gaussian_kl(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    *,
    prior: Prior | None = None,
    free_bits: FreeBits = 0.0,
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
            have no gradient. A schedule may hand a 0-dim tensor on the device of ``mu``, which is
            not read on the host and not checked.
        reduction: "none" (N,), "mean" over the batch or "sum".

    Returns:
        (N,) or a scalar, nats, in the dtype of ``mu`` (float32 under autocast).

    Raises:
        TypeError: an argument is not a dense floating-point tensor, or an option has another type.
        ValueError: shapes differ, ``free_bits`` is negative, ``reduction`` is unknown.
        RuntimeError: devices or dtypes differ.

    Differentiable any number of times in mu, logvar and the prior.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", app. B; free bits:
    Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
    app. C.8, with the floor applied to each element.
    """
    if type(reduction) is not str or reduction != "none":
        checks.check_option("gaussian_kl", "reduction", reduction, checks.REDUCTIONS)
    _, kl = _run("gaussian_kl", mu, logvar, prior, free_bits, None, None, None, False, True)
    return kl if reduction == "none" else checks.reduce(kl, reduction)


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
    and device; the backward pass makes it again instead of storing it. Exported and traced
    programs, which run without genkern, draw it with ``torch.randn``.

    Args:
        mu: (N, ...), float32, float64, bfloat16 or float16; any strides.
        logvar: shape of ``mu``; logarithm of the variance.
        num_samples: S draws of each element; default one, without the leading dimension.
        eps: the noise, (N, ...) or (S, N, ...); gradients flow to it.
        generator: draws the seed; default torch's generator of the device. torch.compile takes
            the default alone.

    Returns:
        (N, ...) or (S, N, ...), in the dtype of ``mu`` (float32 under autocast).

    Raises:
        TypeError: an argument is not a dense floating-point tensor, or an option has another type.
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
    free_bits: FreeBits = 0.0,
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
    if type(reduction) is not str or reduction != "none":
        checks.check_option("gaussian_kl_rsample", "reduction", reduction, checks.REDUCTIONS)
    z, kl = _run(
        "gaussian_kl_rsample", mu, logvar, prior, free_bits, num_samples, eps, generator, True, True
    )
    return z, checks.reduce(kl, reduction)
