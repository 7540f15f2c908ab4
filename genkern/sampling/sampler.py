"""`sample`: images of an autoregressive model, by the method that suits it."""

from collections.abc import Sequence
from typing import Literal, overload

import torch

from genkern import checks
from genkern.sampling import methods
from genkern.sampling import request as requests
from genkern.sampling.methods import METHODS
from genkern.sampling.outputs import Output
from genkern.sampling.request import Choose, Model, Progress, Request

_OP = "sample"

Partial = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


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
    the modes in which it was. It may be in training: nothing is kept of its weights between calls
    but in a block of `unchanged`.

    Args:
        model: nn.Module or function of network inputs (num_samples, C, H, W), and of ``condition``
            where that is given, to parameters (num_samples, K, H, W). Those of a place may depend
            on the places before it alone (`genkern.testing.assert_causal`). It is called in the
            dtype and on the device of its parameters.
        num_samples: images N.
        shape: (C, H, W) of one image.
        output: `Bernoulli`, `Categorical`, `LogisticMixture` or `Gaussian`: what the parameters
            mean, and how integers become network inputs.
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
            `last_report` says which, and why none before it, and a warning, once for a class of
            models, that no steps could be taken.
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
    checks.check_option(_OP, "method", method, METHODS)
    checks.check_bool(_OP, "return_log_prob", return_log_prob)
    request = _request(
        model, num_samples, shape, output, condition, partial, temperature, top_k, choose, progress
    )
    request.noise = _noise(request, generator, noise)
    request.wants_log_prob = return_log_prob
    with requests.evaluating(model):
        images, report, log_prob = methods.draw(request, method)
        if return_log_prob:
            log_prob = _log_prob(request, images, log_prob)
    methods.remember(report)
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
