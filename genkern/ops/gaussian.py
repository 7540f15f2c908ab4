"""Diagonal Gaussians: KL divergence, reparameterised samples and their density, in one pass."""

import torch

from genkern import checks, library, random, spec
from genkern.family import Family
from genkern.reference import gaussian as reference

Prior = tuple[torch.Tensor, torch.Tensor]
Annealed = float | torch.Tensor
_NONE, _ROWS, _ELEMENTS, _LOG_PROB = range(4)  # what stands beside z: the KL, or log q
_REDUCTIONS = (*checks.REDUCTIONS, "elements")
FREE_BITS_BY = ("element", "dimension", "row")
SCALES = reference.SCALES
_LOGVAR, _BY_ELEMENT, _UNREDUCED = SCALES[0], FREE_BITS_BY[0], _REDUCTIONS[0]


def _z_shape(mu, num_samples) -> tuple[int, ...]:
    return (*mu.shape,) if num_samples is None else (num_samples, *mu.shape)


def _results(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale, kind
):
    shape = _z_shape(mu, num_samples)
    z = mu.new_empty(0 if eps is None and seed is None else shape)
    rows = shape[: len(shape) - mu.ndim + 1]
    return z, mu.new_empty((0, mu.shape[0], mu.shape, rows)[kind])


def _reference(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale, kind
):
    if seed is not None:
        eps = random.philox_normal(seed, _z_shape(mu, num_samples), mu.dtype)
    floor = free_bits if annealed is None else annealed
    z, kl, log_prob = reference.forward(
        mu, logvar, prior_mu, prior_logvar, eps, floor, SCALES[scale], kind == _ELEMENTS
    )
    found = z, (None, kl, kl, log_prob)[kind]
    return (*(mu.new_empty(0) if x is None else x for x in found),)


_gaussian = Family(
    "gaussian",
    "(Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, Tensor? eps, Tensor? seed, "
    "Tensor? annealed, SymInt? num_samples, float free_bits, int scale, int kind) "
    "-> (Tensor, Tensor)",
    results=_results,
    reference=_reference,
    constants=2,
)


def _admit(op, mu, logvar, prior: Prior | None, eps, num_samples):
    """mu, logvar, prior_mu, prior_logvar and eps, in the dtype to compute in; num_samples."""
    tensors = {"mu": mu, "logvar": logvar}
    if prior is not None:
        if not isinstance(prior, (tuple, list)) or len(prior) != 2:
            raise TypeError(f"{op}: prior must be a pair (mu, logvar); got {type(prior).__name__}")
        tensors |= {"prior[0]": prior[0], "prior[1]": prior[1]}
    if eps is not None:
        tensors["eps"] = eps
    mu, *others = checks.admit(op, checks.LOSS, tensors)
    if mu.ndim == 0:
        raise ValueError(f"{op}: mu must have a batch dimension; got a 0-dimensional tensor")
    if num_samples is not None:
        num_samples = checks.check_number(op, "num_samples", num_samples, minimum=0, integer=True)
    for name, tensor in zip(list(tensors)[1:], others, strict=True):
        text = "mu.shape" if name != "eps" or num_samples is None else "(num_samples, *mu.shape)"
        if name == "eps":
            checks.check_shape(op, name, tensor, _z_shape(mu, num_samples), text)
        elif tensor.shape != mu.shape:
            checks.check_broadcast(op, name, tensor, mu.shape, text)
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


def _run(
    op, mu, logvar, scale, kind, prior=None, free_bits=0.0, num_samples=None, eps=None,
    generator=None, with_z=True,
):  # fmt: skip
    """z, and what stands beside it; what was not asked for has no elements."""
    scale = 0 if scale is _LOGVAR else checks.check_option(op, "scale", scale, SCALES)
    if (
        prior is None and eps is None and num_samples is None
        and checks.are_plain(mu, logvar) and mu.shape == logvar.shape and mu.ndim > 0
    ):  # fmt: skip
        prior_mu = prior_logvar = None
    else:
        mu, logvar, prior_mu, prior_logvar, eps, num_samples = _admit(
            op, mu, logvar, prior, eps, num_samples
        )
    given = mu
    # Halves of one tensor are copied here, once, and not by each of the two passes.
    mu, logvar = mu.contiguous(), logvar.contiguous()
    annealed = seed = None
    if type(free_bits) is not float or free_bits != 0.0:
        free_bits, annealed = checks.annealed(op, "free_bits", free_bits, mu, minimum=0)
    if eps is not None and generator is not None:
        raise ValueError(f"{op}: generator must be None where eps is given; got both")
    if with_z and eps is None:
        eps, seed = _noise(op, mu, num_samples, generator)
    z, second = _gaussian(
        mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale, kind
    )
    if not given.is_contiguous():
        z = spec.in_format_of(given, z) if with_z else z
        second = spec.in_format_of(given, second) if kind == _ELEMENTS else second
    return z, second


def _run_kl(
    op, mu, logvar, prior, scale, free_bits, free_bits_by, capacity, beta, reduction, *noise
):
    """z and the KL, of which the kernel knows the usual kind and free bits of elements."""
    if (
        reduction is _UNREDUCED and free_bits_by is _BY_ELEMENT and capacity is None
        and type(beta) is float and beta == 1.0
    ):  # fmt: skip
        return _run(op, mu, logvar, scale, _ROWS, prior, free_bits, *noise)
    checks.check_option(op, "reduction", reduction, _REDUCTIONS)
    of_groups = checks.check_option(op, "free_bits_by", free_bits_by, FREE_BITS_BY) > 0
    if capacity is not None and reduction == "elements":
        raise ValueError(f"{op}: capacity must be None where reduction is 'elements'; got one")
    kind = _ELEMENTS if reduction == "elements" or free_bits_by == "dimension" else _ROWS
    floor = 0.0 if of_groups else free_bits
    z, kl = _run(op, mu, logvar, scale, kind, prior, floor, *noise)

    def constant(name, value):
        number, tensor = checks.annealed(op, name, value, kl, minimum=0)
        return number if tensor is None else tensor

    if of_groups:
        kl = reference.floor_groups(kl, constant("free_bits", free_bits), free_bits_by)
    if kl.ndim > 1 and reduction != "elements":
        kl = reference.sum_rows(kl)
    if capacity is not None:
        kl = (kl - constant("capacity", capacity)).abs()
    if type(beta) is not float or beta != 1.0:
        kl = kl * constant("beta", beta)
    return z, checks.reduce(kl, reduction)


def gaussian_kl(
    mu: torch.Tensor, logvar: torch.Tensor, *, prior: Prior | None = None, scale: str = "logvar",
    free_bits: Annealed = 0.0, free_bits_by: str = "element", capacity: Annealed | None = None,
    beta: Annealed = 1.0, reduction: str = "none",
) -> torch.Tensor:  # fmt: skip
    r"""KL divergence of diagonal Gaussians, summed over all but the batch dimension, in nats.

    .. math:: KL_n = \tfrac12 \sum_j (\mu - \mu_2)^2 e^{-l_2} + e^{l - l_2} - 1 - (l - l_2)

    to N(mu_2, e^{l_2}) or to N(0, I), with l = ``logvar``. Equivalent to ``0.5 * (mu**2 +
    logvar.expm1() - logvar).flatten(1).sum(1)``, without its cancellation around logvar = 0
    (which the reference backend and, in float64, the GPU's kernel have).

    Args:
        mu: (N, ...), float32, float64, bfloat16 or float16; any strides.
        logvar: shape of ``mu`` or broadcast to it: the scale, as ``scale`` says. Its gradient has
            its own shape, summed in fixed order.
        prior: (mu_2, logvar_2), likewise, on the same scale; default N(0, I).
        scale: what ``logvar`` is: "logvar" l, "log_std" l / 2, or "softplus" s, sigma =
            log(1 + e^s).
        free_bits: floor, nats; what lies below it has no gradient.
        free_bits_by: what the floor holds for: "element" max(KL_nj, f); "dimension" max of the
            mean over the batch and f, so that the mean of the result is sum_j max(mean_n KL_nj,
            f); "row" max(KL_n, f). With "elements", a row or dimension that is below its floor has
            the floor, spread evenly over its elements: their sum, or their mean, is f.
        capacity: C >= 0, nats: \|KL_n - C\| of each row, after the floor.
        beta: factor of the result, at least 0.
        reduction: "none" (N,), "mean" over the batch, "sum" or "elements": the shape of ``mu``.

    A schedule may hand free_bits, capacity and beta as 0-dim tensors on the device of ``mu``,
    which are not read on the host and not checked; no step compiles anew.

    Returns:
        (N,), a scalar or the shape and memory format of ``mu``; nats, in its dtype (float32 under
        autocast).

    Raises:
        TypeError: an argument is not a dense floating-point tensor, or an option has another type.
        ValueError: shapes do not fit, an option is negative or unknown.
        RuntimeError: devices or dtypes differ.

    Differentiable any number of times in mu, logvar and the prior.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", app. B; free bits: Kingma
    et al. 2016, "Improving variational inference with inverse autoregressive flow", app. C.8
    ("dimension"); capacity: Burgess et al. 2018, "Understanding disentangling in beta-VAE", sec. 5.
    """
    return _run_kl(
        "gaussian_kl", mu, logvar, prior, scale, free_bits, free_bits_by, capacity, beta,
        reduction, None, None, None, False,
    )[1]  # fmt: skip


def gaussian_rsample(
    mu: torch.Tensor, logvar: torch.Tensor, *, scale: str = "logvar",
    num_samples: int | None = None, eps: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # fmt: skip
    r"""Reparameterised samples of a diagonal Gaussian.

    .. math:: z = \mu + e^{l/2} \epsilon, \quad \epsilon \sim N(0, I)

    Equivalent to ``mu + (0.5 * logvar).exp() * torch.randn_like(mu)``. The noise is a Philox
    stream keyed by a seed that torch's generator draws: the same for any layout, thread count
    and device; the backward pass makes it again instead of storing it. Exported and traced
    programs, which run without genkern, draw it with ``torch.randn``.

    Args:
        mu, logvar, scale: as in `gaussian_kl`.
        num_samples: S draws of each element, without copies of ``mu`` and ``logvar``; default
            one, without the leading dimension.
        eps: the noise, (N, ...) or (S, N, ...); gradients flow to it.
        generator: draws the seed; default torch's generator of the device. torch.compile takes
            the default alone.

    Returns:
        (N, ...) or (S, N, ...), in the dtype (float32 under autocast) and memory format of ``mu``.

    Raises:
        TypeError, ValueError, RuntimeError: as in `gaussian_kl`; ``num_samples`` is negative.

    Differentiable any number of times in mu, logvar and eps. Inside activation checkpointing the
    generator's state must be preserved (torch's default), or the noise of the second forward
    differs.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4.
    """
    op = "gaussian_rsample"
    return _run(op, mu, logvar, scale, _NONE, None, 0.0, num_samples, eps, generator)[0]


def gaussian_rsample_and_log_prob(
    mu: torch.Tensor, logvar: torch.Tensor, *, scale: str = "logvar",
    num_samples: int | None = None, eps: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    r"""`gaussian_rsample` and the log-density of what it drew, from the same pass.

    .. math:: \log q(z_n) = -\tfrac12 \sum_j \epsilon_{nj}^2 + l_{nj} + \log 2 \pi

    Equivalent to ``Normal(mu, sigma).log_prob(z).flatten(-mu.ndim + 1).sum(-1)``.

    Args, Raises: as `gaussian_rsample`.
    Returns: z (N, ...) or (S, N, ...), and log_prob (N,) or (S, N), nats.

    The gradient of log_prob is the total one, through z and the parameters: 0 in mu, -1/2 in
    each element of l, -eps in eps. Estimators that drop the score term ("sticking the landing",
    Roeder et al. 2017; DReG, Tucker et al. 2019) take z from here and the density of z at
    detached parameters: ``Normal(mu.detach(), sigma.detach()).log_prob(z)``.
    Differentiable any number of times in mu, logvar and eps.
    Source: Burda et al. 2016, "Importance weighted autoencoders", sec. 3.
    """
    op = "gaussian_rsample_and_log_prob"
    return _run(op, mu, logvar, scale, _LOG_PROB, None, 0.0, num_samples, eps, generator)


def gaussian_kl_rsample(
    mu: torch.Tensor, logvar: torch.Tensor, *, prior: Prior | None = None, scale: str = "logvar",
    free_bits: Annealed = 0.0, free_bits_by: str = "element", capacity: Annealed | None = None,
    beta: Annealed = 1.0, reduction: str = "none", num_samples: int | None = None,
    eps: torch.Tensor | None = None, generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """`gaussian_rsample` and `gaussian_kl` in one pass forward and one backward.

    Saves mu, logvar and an 8-byte seed for the backward pass.

    Args, Raises: as `gaussian_kl` and `gaussian_rsample`.
    Returns: z (N, ...) or (num_samples, N, ...), and the KL as `gaussian_kl`.

    Differentiable any number of times in mu, logvar, the prior and eps.
    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4 and app. B.
    """
    return _run_kl(
        "gaussian_kl_rsample", mu, logvar, prior, scale, free_bits, free_bits_by, capacity, beta,
        reduction, num_samples, eps, generator,
    )  # fmt: skip
