"""Diagonal Gaussians: KL divergence, reparameterised samples and their density, in one pass."""

from typing import NamedTuple

import torch

from genkern import checks, library, random, spec
from genkern.family import Family
from genkern.reference import gaussian as reference

Prior = tuple[torch.Tensor, torch.Tensor]
Annealed = float | torch.Tensor
_NONE, _ROWS, _ELEMENTS = range(3)  # of the KL
_REDUCTIONS = (*checks.REDUCTIONS, "elements")
FREE_BITS_BY = ("element", "dimension", "row")
SCALES = reference.SCALES


def _z_shape(mu, num_samples) -> tuple[int, ...]:
    return (*mu.shape,) if num_samples is None else (num_samples, *mu.shape)


def _results(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale, kl,
    with_log_prob,
):  # fmt: skip
    has_z = eps is not None or seed is not None
    shape = _z_shape(mu, num_samples)
    rows = shape[: len(shape) - mu.ndim + 1]
    shapes = shape if has_z else 0, (0, mu.shape[0], mu.shape)[kl], rows if with_log_prob else 0
    return (*(mu.new_empty(s) for s in shapes),)


def _reference(
    mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale, kl,
    with_log_prob,
):  # fmt: skip
    if seed is not None:
        eps = random.philox_normal(seed, _z_shape(mu, num_samples), mu.dtype)
    floor = free_bits if annealed is None else annealed
    found = reference.forward(
        mu, logvar, prior_mu, prior_logvar, eps, floor, SCALES[scale], kl == _ELEMENTS
    )
    wanted = (eps is not None, kl != _NONE, with_log_prob)
    return (*(x if w else mu.new_empty(0) for x, w in zip(found, wanted, strict=True)),)


_gaussian = Family(
    "gaussian",
    "(Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, Tensor? eps, Tensor? seed, "
    "Tensor? annealed, SymInt? num_samples, float free_bits, int scale, int kl, "
    "bool with_log_prob) -> (Tensor, Tensor, Tensor)",
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


class _Objective(NamedTuple):
    """What becomes of the KL."""

    free_bits: Annealed
    free_bits_by: str
    capacity: Annealed | None
    beta: Annealed
    reduction: str

    def check(self, op: str) -> None:
        checks.check_option(op, "reduction", self.reduction, _REDUCTIONS)
        checks.check_option(op, "free_bits_by", self.free_bits_by, FREE_BITS_BY)
        if self.capacity is not None and self.reduction == "elements":
            raise ValueError(f"{op}: capacity must be None where reduction is 'elements'; got one")

    def kernel(self) -> int:
        by_elements = self.reduction == "elements" or self.free_bits_by == "dimension"
        return _ELEMENTS if by_elements else _ROWS

    def of(self, op: str, kl: torch.Tensor, floor: Annealed) -> torch.Tensor:
        """From the kernel's KL, of rows or of elements, to the result."""
        kl = reference.floor_groups(kl, floor, self.free_bits_by)
        if kl.ndim > 1 and self.reduction != "elements":
            kl = reference.sum_rows(kl)
        if self.capacity is not None:
            number, tensor = checks.annealed(op, "capacity", self.capacity, kl, minimum=0)
            kl = (kl - (number if tensor is None else tensor)).abs()
        if type(self.beta) is not float or self.beta != 1.0:
            number, tensor = checks.annealed(op, "beta", self.beta, kl, minimum=0)
            kl = kl * (number if tensor is None else tensor)
        return checks.reduce(kl, self.reduction)


def _run(
    op, mu, logvar, scale, prior=None, objective=None, num_samples=None, eps=None, generator=None,
    with_z=True, with_log_prob=False,
):  # fmt: skip
    """z, kl and log_prob; what was not asked for has no elements."""
    scale = checks.check_option(op, "scale", scale, SCALES)
    if objective is not None:
        objective.check(op)
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
    free_bits, annealed, seed = 0.0, None, None
    if objective is not None and (type(objective.free_bits) is not float or objective.free_bits):
        free_bits, annealed = checks.annealed(op, "free_bits", objective.free_bits, mu, minimum=0)
    floor = free_bits if annealed is None else annealed
    if objective is not None and objective.free_bits_by != "element":
        free_bits, annealed = 0.0, None
    if eps is not None and generator is not None:
        raise ValueError(f"{op}: generator must be None where eps is given; got both")
    if with_z and eps is None:
        eps, seed = _noise(op, mu, num_samples, generator)
    z, kl, log_prob = _gaussian(
        mu, logvar, prior_mu, prior_logvar, eps, seed, annealed, num_samples, free_bits, scale,
        _NONE if objective is None else objective.kernel(), with_log_prob,
    )  # fmt: skip
    if objective is not None:
        kl = objective.of(op, kl, floor)
    if not given.is_contiguous():
        z = spec.in_format_of(given, z) if with_z else z
        kl = spec.in_format_of(given, kl) if kl.ndim > 1 else kl
    return z, kl, log_prob


def gaussian_kl(
    mu: torch.Tensor, logvar: torch.Tensor, *, prior: Prior | None = None, scale: str = "logvar",
    free_bits: Annealed = 0.0, free_bits_by: str = "element", capacity: Annealed | None = None,
    beta: Annealed = 1.0, reduction: str = "none",
) -> torch.Tensor:  # fmt: skip
    r"""KL divergence of diagonal Gaussians, summed over all but the batch dimension, in nats.

    .. math:: KL_n = \tfrac12 \sum_j (\mu - \mu_2)^2 e^{-l_2} + e^{l - l_2} - 1 - (l - l_2)

    to N(mu_2, e^{l_2}) or to N(0, I), with l = ``logvar``. Equivalent to ``0.5 * (mu**2 +
    logvar.expm1() - logvar).flatten(1).sum(1)``, without its cancellation around logvar = 0.

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
            f); "row" max(KL_n, f).
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
    objective = _Objective(free_bits, free_bits_by, capacity, beta, reduction)
    return _run("gaussian_kl", mu, logvar, scale, prior, objective, with_z=False)[1]


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
    return _run(op, mu, logvar, scale, None, None, num_samples, eps, generator)[0]


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
    return _run(op, mu, logvar, scale, None, None, num_samples, eps, generator, True, True)[::2]


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
    objective = _Objective(free_bits, free_bits_by, capacity, beta, reduction)
    op = "gaussian_kl_rsample"
    return _run(op, mu, logvar, scale, prior, objective, num_samples, eps, generator)[:2]
