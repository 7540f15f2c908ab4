"""Spectral normalisation: weights divided by their largest singular values."""

from collections.abc import Sequence

import torch

from genkern import checks, library, spec
from genkern.family import Family
from genkern.reference import spectral_norm as reference

_OP, _STEP = "spectral_norm", "spectral_norm_step"
Tensors = Sequence[torch.Tensor]


def _reference(weight, u, v, dim):
    exact = spec.accumulation(weight.dtype)
    y = reference.forward(weight.to(exact), u.to(exact), v.to(exact), dim)
    return (y.to(weight.dtype),)


_spectral_norm = Family(
    _OP,
    "(Tensor weight, Tensor u, Tensor v, int dim) -> Tensor",
    results=lambda weight, u, v, dim, save: (
        weight.new_empty(weight.shape),
        weight.new_empty(1, dtype=torch.float64),
    ),
    reference=_reference,
    constants=2,
    saved=("sigma",),
)


def _fake_step(weights, u, v, dims, steps, eps):
    return [x.new_empty(x.shape) for x in (*u, *v)]


_step: torch._ops.OpOverload = library.define(
    _OP,
    f"{_STEP}(Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims, int steps, float eps) -> "
    "Tensor[]",
    _fake_step,
)


def _reference_step(weights, u, v, dims, steps, eps):
    found = []
    for weight, a, b, dim in zip(weights, u, v, dims, strict=True):
        exact = spec.accumulation(weight.dtype)
        vectors = reference.step(weight.to(exact), a.to(exact), b.to(exact), dim, steps, eps)
        found.append([x.to(weight.dtype) for x in vectors])
    return [a for a, _ in found] + [b for _, b in found]


def _admit(op: str, weights: Tensors, u: Tensors, v: Tensors, dim: int | Sequence[int]) -> tuple:
    """Lists of tensors that fit each other, and the dimension of the rows of each weight."""
    for name, value in (("weights", weights), ("u", u), ("v", v)):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{op}: {name} must be a list of Tensors; got {type(value).__name__}")
        if len(value) != len(weights):
            raise ValueError(
                f"{op}: {name} must have as many tensors as weights = {len(weights)}; "
                f"got {len(value)}"
            )
    dims = list(dim) if isinstance(dim, (list, tuple)) else [dim] * len(weights)
    if len(dims) != len(weights):
        raise ValueError(f"{op}: dim must be one number, or one a weight; got {len(dims)}")
    found = []
    for i, (weight, a, b) in enumerate(zip(weights, u, v, strict=True)):
        if not checks.are_plain(weight, a, b):
            names = f"weights[{i}]", f"u[{i}]", f"v[{i}]"
            tensors = dict(zip(names, (weight, a, b), strict=True))
            weight, a, b = checks.admit(op, checks.LOSS, tensors)
        if weight.ndim < 2:
            shape = tuple(weight.shape)
            raise ValueError(f"{op}: weights[{i}] must have two or more dimensions; got {shape}")
        last = weight.ndim - 1
        dims[i] = checks.check_number(op, "dim", dims[i], minimum=0, maximum=last, integer=True)
        rows = weight.shape[dims[i]]
        columns = weight.numel() // max(1, rows)
        for name, vector, count, text in (
            ("u", a, rows, "(rows,)"),
            ("v", b, columns, "(columns,)"),
        ):
            checks.check_shape(op, f"{name}[{i}]", vector, (count,), text)
        found.append((weight, a.detach(), b.detach()))
    return [list(column) for column in zip(*found, strict=True)] or [[], [], []], dims


def spectral_norm_step(
    weights: Tensors,
    u: Tensors,
    v: Tensors,
    *,
    dim: int | Sequence[int] = 0,
    steps: int = 1,
    eps: float = 1e-12,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    r"""Steps of the power iteration towards the largest singular vectors of matrices, in one call.

    .. math:: u \leftarrow W v / \|W v\|, \quad v \leftarrow W^T u / \|W^T u\|

    Equivalent to ``u = F.normalize(W @ v, dim=0); v = F.normalize(W.T @ u, dim=0)`` for each.

    Args:
        weights: tensors of two or more dimensions, float32, float64, bfloat16 or float16; any
            strides. As a matrix W a weight is its dimension ``dim`` against all others.
        u: a vector (rows,) for each, in its dtype.
        v: a vector (columns,) for each, the other dimensions in order.
        dim: of the rows: one for all, or one for each.
        steps: at least 0.
        eps: least norm that a vector is divided by.

    Returns:
        New u and new v. Nothing is differentiable here: `spectral_norm` takes both as constants.

    Raises:
        TypeError: a list holds something else than dense floating-point tensors.
        ValueError: lists differ in length, or shapes do not fit.
        RuntimeError: devices or dtypes differ.

    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks",
    alg. 1; in the order of torch.nn.utils.parametrizations.spectral_norm: u, then v.
    """
    (weights, u, v), dims = _admit(_STEP, weights, u, v, dim)
    steps = checks.check_number(_STEP, "steps", steps, minimum=0, integer=True)
    eps = checks.check_number(_STEP, "eps", eps, minimum=0.0)
    if not weights:
        return [], []
    is_reference = library.choose(_OP, weights[0]) == "reference"
    with torch.no_grad():
        function = _reference_step if is_reference else _step
        found = function(weights, u, v, dims, steps, float(eps))
    return list(found[: len(weights)]), list(found[len(weights) :])


def spectral_norm(
    weights: Tensors, u: Tensors, v: Tensors, *, dim: int | Sequence[int] = 0
) -> list[torch.Tensor]:
    r"""Weights divided by their largest singular values, as given vectors estimate them.

    .. math:: y = W / \sigma, \quad \sigma = u^T W v

    Equivalent to ``W / (u @ (W.flatten(1) @ v))`` for each weight. `genkern.nn.SpectralNorm` holds
    the vectors of all layers of a network, and moves them by `spectral_norm_step`.

    Args:
        weights, u, v, dim: as in `spectral_norm_step`.

    Returns:
        For each weight its shape and dtype (float32 for bfloat16 and float16 under autocast),
        contiguous.

    Raises:
        TypeError, ValueError, RuntimeError: as in `spectral_norm_step`.

    Differentiable any number of times in the weights, also through sigma, with u and v constant:
    d_W = (d_y - <d_y, y> u v^T) / sigma by a kernel, beyond that by the formula. A gradient penalty
    differentiates a network twice, but this once: in its input no weight has a derivative.
    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks",
    sec. 2.1, eq. 12.
    """
    (weights, u, v), dims = _admit(_OP, weights, u, v, dim)
    return [_spectral_norm(*layer)[0] for layer in zip(weights, u, v, dims, strict=True)]
