"""Gradient penalties: the tail behind the gradient of a discriminator, twice differentiable."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import gradient_penalty as reference

_OP = "gradient_penalty"
# The kernels know kinds and reductions by their places in these lists.
KINDS = ("wgan_gp", "r1", "r2", "dragan")
_OF_THE_SQUARE = ("r1", "r2")  # no target
_PLACES = {
    (kind, reduction): (KINDS.index(kind), checks.REDUCTIONS.index(reduction))
    for kind in KINDS
    for reduction in checks.REDUCTIONS
}


def _reference(gradient, annealed, kind, target, weight, one_sided, reduction):
    dtype = gradient.dtype
    exact = gradient.to(spec.accumulation(dtype))
    if annealed is not None:
        target = annealed.to(exact.dtype)
    options = KINDS[kind], target, weight, one_sided, checks.REDUCTIONS[reduction]
    return (reference.forward(exact, *options).to(dtype),)


def _results(gradient, annealed, kind, target, weight, one_sided, reduction, save):
    N = gradient.shape[0]
    norms = gradient.new_empty(N if save else 0, dtype=torch.float64)
    return gradient.new_empty(() if reduction else N), norms


def _second(second_0, upstream_0, gradient, *rest):
    needs_upstream, needs_gradient = rest[-2:]
    return (
        gradient.new_empty(upstream_0.shape if needs_upstream else 0),
        gradient.new_empty(gradient.shape if needs_gradient else 0),
    )


_gradient_penalty = Family(
    _OP,
    "(Tensor gradient, Tensor? annealed, int kind, float target, float weight, bool one_sided, "
    "int reduction) -> Tensor",
    results=_results,
    reference=_reference,
    constants=1,
    saved=("norms",),
    second=_second,
)


def check_options(
    op: str, kind: str, target: float | torch.Tensor, weight: float, one_sided: bool, reduction: str
) -> tuple:
    try:
        numbers = _PLACES[kind, reduction]
    except (KeyError, TypeError):  # unknown, or not hashable
        checks.check_option(op, "kind", kind, KINDS)
        checks.check_option(op, "reduction", reduction, checks.REDUCTIONS)
        raise
    if type(weight) is not float or not weight >= 0.0:
        weight = float(checks.check_number(op, "weight", weight, minimum=0.0))
    if one_sided is not False:
        checks.check_bool(op, "one_sided", one_sided)
    if (type(target) is not float or not target >= 0.0) and not isinstance(target, torch.Tensor):
        target = float(checks.check_number(op, "target", target, minimum=0.0))
    if kind in _OF_THE_SQUARE:
        for name, value, default in (("target", target, 1.0), ("one_sided", one_sided, False)):
            if isinstance(value, torch.Tensor) or value != default:
                got = type(value).__name__ if isinstance(value, torch.Tensor) else repr(value)
                text = f"{op}: {name} must be {default!r} for kind {kind!r} (it has no target)"
                raise ValueError(f"{text}; got {got}")
    return numbers[0], target, weight, one_sided, numbers[1]


def gradient_penalty(
    gradient: torch.Tensor,
    *,
    kind: str = "wgan_gp",
    target: float | torch.Tensor = 1.0,
    weight: float = 10.0,
    one_sided: bool = False,
    reduction: str = "mean",
) -> torch.Tensor:
    r"""Penalty on the gradient of a discriminator in its input, given that gradient.

    With g_n the gradient of item n, ||g_n|| its Euclidean norm over all but the batch, w =
    ``weight``, t = ``target``:

    .. math::
        wgan\_gp, dragan:&\quad w (\|g_n\| - t)^2, \text{ one-sided } w \max(\|g_n\| - t, 0)^2 \\
        r1, r2:&\quad \tfrac{w}{2} \|g_n\|^2

    Equivalent for "wgan_gp" to ``w * (g.flatten(1).norm(dim=1) - t).square().mean()``, whose second
    derivative at g = 0 is NaN; here the derivative of a gradient of 0 is 0, and so are its own
    derivatives. Squares are summed in double precision: no gradient of half precision overflows,
    and none is so small that its norm is lost.

    `genkern.nn.GradientPenalty` makes the points, calls the discriminator and differentiates it.
    By hand:

        x = real.detach().requires_grad_()
        (g,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        loss = loss + genkern.gradient_penalty(g, kind="r1")

    Args:
        gradient: (N, ...), float32, float64, bfloat16 or float16, any strides.
        kind: "wgan_gp" and "dragan" have one formula, "r1" and "r2" another; the two of a pair
            differ in where the gradient is taken.
        target: t, at least 0. A number, or a 0-dim tensor on the device of ``gradient``, which is
            not read on the host and not checked: the running mean of a path-length penalty.
        weight: w, at least 0: lambda of WGAN-GP and DRAGAN, gamma of R1 and R2.
        one_sided: penalises norms above the target alone ("wgan_gp", "dragan").
        reduction: "mean" and "sum" over the batch, or "none".

    Returns:
        A scalar, or (N,) for "none"; in the dtype of ``gradient`` (float32 for bfloat16 and
        float16 under autocast).

    Raises:
        TypeError: ``gradient`` is no dense floating-point tensor, or an option has another type.
        ValueError: an option is unknown, out of range or without meaning for ``kind``;
            ``gradient`` has no batch dimension.
        RuntimeError: ``target`` is on another device.

    Differentiable any number of times: twice by kernels, beyond that by the formula.
    Source: Gulrajani et al. 2017 eq. 3 (wgan_gp); Mescheder et al. 2018 sec. 4.1 (r1, r2);
    Kodali et al. 2017 sec. 3 (dragan); Petzka et al. 2018 eq. 8 (one-sided).
    """
    number, target, weight, one_sided, place = check_options(
        _OP, kind, target, weight, one_sided, reduction
    )
    if not checks.are_plain(gradient):
        (gradient,) = checks.admit(_OP, checks.LOSS, {"gradient": gradient})
    if gradient.ndim == 0:
        raise ValueError(f"{_OP}: gradient must have shape (N, ...); got ()")
    annealed = None
    if type(target) is not float or torch.compiler.is_dynamo_compiling():
        target, annealed = checks.annealed(_OP, "target", target, gradient, minimum=0.0)
    (penalty,) = _gradient_penalty(gradient, annealed, number, target, weight, one_sided, place)
    return penalty
