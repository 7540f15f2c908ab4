"""`sample`: images of an autoregressive model, by the method that suits it."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import torch

from genkern import checks
from genkern.sampling import request as requests
from genkern.sampling.graph import NotCausal
from genkern.sampling.loops import jacobi, naive
from genkern.sampling.outputs import Output
from genkern.sampling.request import Choose, Model, Progress, Request
from genkern.sampling.stepped import Unsuited, runs_in_engine, stepped

METHODS = ("auto", "naive", "incremental", "wavefront", "jacobi")
_OP = "sample"
_last: "Report | None" = None

Partial = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


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


def _draw(request: Request, method: str) -> Drawn:
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
    reasons: list[str] = []
    for name in (*(steps if runs_in_engine(request) else steps[::-1]), "jacobi", "naive"):
        try:
            drawn = _BY[name](request)
        except Unsuited as error:
            reasons.append(f"{name}: {error}")
            if isinstance(error.__cause__, NotCausal) and name == "incremental":
                warnings.warn(f"{_OP}: images follow p(x) of a causal model alone: {error}; "
                              "genkern.testing.assert_causal tells", stacklevel=5)  # fmt: skip
        else:
            return drawn._replace(report=drawn.report._replace(reason="; ".join(reasons)))
    raise AssertionError("naive has no reason not to work")


@overload
def sample(
    model: Model, num_samples: int, *, shape: Sequence[int], output: Output,
    condition: torch.Tensor | None = ..., partial: Partial | None = ..., temperature: float = ...,
    top_k: int | None = ..., generator: torch.Generator | None = ...,
    noise: torch.Tensor | None = ..., return_log_prob: Literal[False] = ..., method: str = ...,
    choose: Choose | None = ..., progress: Progress | None = ...,
) -> torch.Tensor: ...  # fmt: skip


@overload
def sample(
    model: Model, num_samples: int, *, shape: Sequence[int], output: Output,
    condition: torch.Tensor | None = ..., partial: Partial | None = ..., temperature: float = ...,
    top_k: int | None = ..., generator: torch.Generator | None = ...,
    noise: torch.Tensor | None = ..., return_log_prob: Literal[True], method: str = ...,
    choose: Choose | None = ..., progress: Progress | None = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...  # fmt: skip


@torch.no_grad()
def sample(
    model: Model,
    num_samples: int,
    *,
    shape: Sequence[int],
    output: Output,
    condition: torch.Tensor | None = None,
    partial: Partial | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    noise: torch.Tensor | None = None,
    return_log_prob: bool = False,
    method: str = "auto",
    choose: Choose | None = None,
    progress: Progress | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    r"""Exact samples of an autoregressive model of images.

    .. math:: x_i = F_i^{-1}(u_i \mid x_{<i}), \quad p(x) = \prod_i p(x_i \mid x_{<i})

    in raster order, colour by colour; F is the distribution function that the network gives for
    place i, and u uniform noise that belongs to the place: the same noise is the same image,
    whatever the method, the size of the batch and the number of threads (in float32 up to a u that
    rounding puts on the other side of a step of F). Equivalent to ``method="naive"``: one call of
    ``model`` for each place, on what has been drawn so far.

    While it draws, the model is in eval mode (no dropout, running statistics), and afterwards in
    the modes in which it was. It may be in training: nothing is kept of its weights between calls.

    Args:
        model: nn.Module or function of network inputs (num_samples, C, H, W), and of ``condition``
            where that is given, to parameters (num_samples, K, H, W). Those of a place may depend
            on the places before it alone (`genkern.testing.assert_causal`). It is called in the
            dtype and on the device of its parameters.
        num_samples: images N.
        shape: (C, H, W) of one image.
        output: `Bernoulli`, `Categorical` or `LogisticMixture`: what the parameters mean, and how
            integers become network inputs.
        condition: labels (N,), vectors or maps (N, C', H, W): handed to the model as they are.
        partial: what is given and kept: integers (N, C, H, W) with -1 where to draw; or (integers,
            bool mask of what is given). Images follow p(rest | given) where what is given comes
            first in raster order. Nothing is computed for leading places that all images give.
        temperature: T, divides logits and multiplies logistic scales; 0: what is likeliest.
        top_k: keeps the k likeliest levels of a `Categorical`, and all that are as likely as the
            k-th; before the temperature.
        generator: draws the seed of the noise; default torch's of the device.
        noise: the noise itself, in [0, 1], as `draw_noise` makes it.
        return_log_prob: returns log p(x) as well.
        method: "wavefront" and "incremental" keep what each layer has computed and call the
            model once, to record its ops: they draw all pixels that do not depend on each other at
            a time, or one after the other. "jacobi" draws all places at once from the last image
            until no integer changes; any causal model. "naive", the definition. "auto": the first
            of these that works, wavefronts first where ``choose`` is called in each step;
            `last_report` says which, and why none before it.
        choose: called once a step in place of drawing, ``choose(params, step)``: parameters
            (N, K', P) of the P pixels of a `Step`, of one colour (K' = levels or 1) or of all, and
            returns their integers (N, len(step.colours), P). It sees each place once, what it
            returned before is final, and of a given place what it returns does not matter.
        progress: called with (places or steps done, all of them) as the drawing proceeds.

    Returns:
        Integers (N, C, H, W), uint8 up to 256 levels, int32 beyond. With ``return_log_prob`` a
        pair: the integers and log p(x) (N,), nats, under the model as it is, at temperature 1 and
        without ``top_k``, of all places: minus the model's negative log-likelihood.

    Raises:
        TypeError: an argument has another type.
        ValueError: a shape does not fit, an option is unknown or out of range, the method does not
            work with the model or ``choose`` (it says why), the model returns NaN.

    Not differentiable; the log-likelihood of the images is, through the model.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 2; Song et al. 2021,
    "Accelerating feedforward computation via parallel nonlinear equation solving" (jacobi).
    """
    global _last
    checks.check_option(_OP, "method", method, METHODS)
    checks.check_bool(_OP, "return_log_prob", return_log_prob)
    request = _request(
        model, num_samples, shape, output, condition, partial, temperature, top_k, choose, progress
    )
    request.noise = _noise(request, generator, noise)
    with requests.evaluating(model):
        images, report, log_prob = _draw(request, method)
        if return_log_prob:
            log_prob = _log_prob(request, images, log_prob)
    _last = report
    images = images.to(torch.uint8 if output.levels <= 256 else torch.int32)
    return (images, log_prob) if return_log_prob and log_prob is not None else images


def _request(
    model, num_samples, shape, output, condition, partial, temperature, top_k, choose, progress
) -> Request:
    """The arguments, checked; without noise."""
    if not callable(model):
        raise TypeError(f"{_OP}: model must be callable; got {type(model).__name__}")
    for name, call in (("choose", choose), ("progress", progress)):
        if call is not None and not callable(call):
            raise TypeError(f"{_OP}: {name} must be callable or None; got {type(call).__name__}")
    size = requests.check_output(output, shape)
    number = checks.check_number(_OP, "num_samples", num_samples, minimum=0, integer=True)
    temperature = checks.check_number(_OP, "temperature", temperature, minimum=0.0, maximum=1e30)
    if condition is not None and (
        not isinstance(condition, torch.Tensor) or condition.shape[:1] != (number,)
    ):
        tensor = isinstance(condition, torch.Tensor)
        got = tuple(condition.shape) if tensor else type(condition).__name__
        raise ValueError(
            f"{_OP}: condition must be a Tensor with {number} rows, one for each image; got {got}"
        )
    like = requests.like(model)
    values, given = requests.given_values(partial, (number, *size), output.levels, like.device)
    return Request(
        model=model,
        output=output,
        values=values,
        given=given,
        noise=None,
        dtype=like.dtype,
        condition=condition,
        temperature=float(temperature),
        top_k=requests.check_top_k(top_k, output),
        choose=choose,
        progress=progress,
    )


def _noise(
    request: Request, generator: torch.Generator | None, noise: torch.Tensor | None
) -> torch.Tensor | None:
    options = {"generator": generator, "noise": noise}
    if request.choose is not None:
        for name, value in options.items():
            if value is not None:
                raise ValueError(f"{_OP}: {name} must be None where choose is given; got both")
        return None
    (number, C, H, W), device = request.values.shape, request.values.device
    if noise is None:
        return requests.draw_noise(
            number, shape=(C, H, W), output=request.output, generator=generator, device=device
        )
    if generator is not None:
        raise ValueError(f"{_OP}: generator must be None where noise is given; got both")
    wanted = (number, request.output.draws(C), H, W)
    return requests.check_noise(noise, wanted, device)


def _log_prob(request: Request, images: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """What the steps told, or what one forward pass tells."""
    if known is not None:
        return known.to(request.dtype)
    if not len(images):
        return torch.zeros(0, device=images.device)
    return request.output.log_prob(request.parameters(images), images)
