"""The methods of `sample`, and which of them "auto" takes."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch

from genkern.sampling.graph import NotCausal
from genkern.sampling.loops import jacobi, naive
from genkern.sampling.request import Request, owner
from genkern.sampling.stepped import Unsuited, runs_in_engine, stepped

METHODS = ("auto", "naive", "incremental", "wavefront", "jacobi")
_OP = "sample"
_last: "Report | None" = None
_told: set[tuple[str, str]] = set()  # classes of models, and what they were told


class Report(NamedTuple):
    """How the last images were drawn.

    Args:
        method: of `METHODS`, never "auto".
        steps: one after the other; of "naive" and "jacobi" each is a call of the network.
        reason: why "auto" took none of the faster ones; empty if it took the fastest, or if the
            method was named.
    """

    method: str
    steps: int
    reason: str


class Drawn(NamedTuple):
    images: torch.Tensor
    report: Report
    log_prob: torch.Tensor | None = None


def last_report() -> Report | None:
    """How the last call of `sample` that ended well drew its images; None before the first."""
    return _last


def remember(report: Report) -> None:
    global _last
    _last = report


def _by_jacobi(request: Request) -> Drawn:
    if request.choose is not None:
        raise Unsuited("choose would see parameters of images that are not final")
    images, steps = jacobi(request)
    return Drawn(images, Report("jacobi", steps, ""))


def _by_naive(request: Request) -> Drawn:
    images, steps = naive(request)
    return Drawn(images, Report("naive", steps, ""))


def _by_steps(request: Request, method: str) -> Drawn:
    images, steps, log_prob = stepped(request, method)
    return Drawn(images, Report(method, steps, ""), log_prob)


_BY: dict[str, Callable[[Request], Drawn]] = {
    "incremental": lambda request: _by_steps(request, "incremental"),
    "wavefront": lambda request: _by_steps(request, "wavefront"),
    "jacobi": _by_jacobi,
    "naive": _by_naive,
}


def draw(request: Request, method: str) -> Drawn:
    if not len(request.values):
        return _by_naive(request)
    if method == "auto":
        return _automatic(request)
    try:
        return _BY[method](request)
    except Unsuited as error:
        raise ValueError(f"{_OP}: method must not be {method!r} here: {error}") from error


def _automatic(request: Request) -> Drawn:
    """From the fastest to the one that always works.

    In C++ single pixels are faster at every batch measured (`python -m benchmarks.sampling`), and a
    GPU takes the same order; where each step calls Python, fewer steps are.
    """
    steps = ("incremental", "wavefront")
    reasons: dict[str, Unsuited] = {}
    for name in (*(steps if runs_in_engine(request) else steps[::-1]), "jacobi", "naive"):
        if name == "jacobi":  # before it takes its time
            _tell(request, reasons["incremental"])
        try:
            drawn = _BY[name](request)
        except Unsuited as error:
            reasons[name] = error
        else:
            reason = "; ".join(f"{method}: {error}" for method, error in reasons.items())
            return drawn._replace(report=drawn.report._replace(reason=reason))
    raise AssertionError("naive has no reason not to work")


def _tell(request: Request, error: Unsuited) -> None:
    """Why no step is taken by the engine: once for a class of models and a reason."""
    subject = owner(request.model)
    kind = getattr(request.model, "__qualname__", type(request.model).__name__)
    kind = kind if subject is None else type(subject).__name__
    if (kind, str(error)) in _told:
        return
    _told.add((kind, str(error)))
    if isinstance(error.__cause__, NotCausal):
        text = (f"images follow p(x) of a causal model alone: {error}; "
                "genkern.testing.assert_causal tells")  # fmt: skip
        warnings.warn(f"{_OP}: {text}", UserWarning, stacklevel=6)
    else:
        other = "jacobi" if request.choose is None else "naive"
        text = f"{kind} is drawn by method {other!r}, a forward pass a step, not by steps: {error}"
        warnings.warn(f"{_OP}: {text}", RuntimeWarning, stacklevel=6)
