"""The methods of the engine: what is computed of a place is kept, and not computed again."""

import torch

from genkern.sampling import compiled, on_gpu
from genkern.sampling.incremental import Draw, Stepper
from genkern.sampling.outputs import (
    NEAR_ONE,
    Bernoulli,
    Categorical,
    LogisticMixture,
    Output,
    check_no_nan,
)
from genkern.sampling.request import Request, Step, WrongOutput

ORDERS = {"incremental": "raster", "wavefront": "wavefront"}
_KINDS: dict[type[Output], str] = {
    Bernoulli: "bernoulli",
    Categorical: "categorical",
    LogisticMixture: "logistic_mixture",
}
_REPORTS = 100  # calls of ``progress``


class Unsuited(ValueError):
    """Why a method does not work with a model."""


def runs_in_engine(request: Request) -> bool:
    """The loop and the drawing too, and not only what the network computes."""
    if request.choose is not None or type(request.output) not in _KINDS:
        return False
    if request.values.is_cuda:
        kind = _KINDS[type(request.output)]
        return on_gpu.is_available() and on_gpu.draws(kind, request.output.levels)
    return request.values.is_cpu and compiled.is_available()


def stepper_of(request: Request, method: str) -> tuple[Stepper, list[Step], int]:
    """A stepper, its steps, and how many leading ones are given: for these, one forward pass.

    Raises:
        Unsuited: the model has no such steps.
    """
    if request.dtype not in (torch.float32, torch.float64):
        raise Unsuited(f"the model must be in float32 or float64; got {request.dtype}")
    inputs = request.output.to_inputs(request.values, request.dtype)
    condition = () if request.condition is None else (request.condition,)

    def make(first: int) -> Stepper:
        order = ORDERS[method]
        try:
            return Stepper(request.network, inputs, *condition, order=order, first=first)
        except WrongOutput:
            raise
        except ValueError as error:
            raise Unsuited(str(error).removeprefix("sampling: ")) from error

    stepper, first = make(0), 0
    steps = steps_of(request, stepper)
    while first < len(steps) and request.is_given(steps[first]):
        first += 1
    return (make(first) if 0 < first < len(steps) else stepper), steps, first


def steps_of(request: Request, stepper: Stepper) -> list[Step]:
    """The engine's steps, as `choose` and `Request.of` take them."""
    found, C = [], request.shape[0]
    by_colour = request.output.by_colour
    for number, step in enumerate(stepper.steps):
        if by_colour and step.colour is None and C > 1:
            raise Unsuited(
                "the parameters of a colour must depend on the colours before it; of this model "
                "they come all at once"
            )
        if not by_colour and step.colour is not None:
            raise Unsuited("the parameters of a pixel must not depend on its own colours")
        places = torch.tensor(step.places, device=request.values.device).view(-1, 2)
        colours = range(C) if step.colour is None else range(step.colour, step.colour + 1)
        found.append(Step(number, places[:, 0], places[:, 1], colours))
    return found


def stepped(request: Request, method: str) -> tuple[torch.Tensor, int, torch.Tensor | None]:
    """Integers (N, C, H, W), steps taken, and log p (N,) if the steps told it."""
    stepper, steps, first = stepper_of(request, method)
    if first == len(steps):
        return request.values, 0, None
    if runs_in_engine(request):
        kind = _KINDS[type(request.output)]
        images, log_prob = _run(request, stepper, _draw(request.output, kind, request), len(steps))
        images = torch.where(images < 0, request.values, images)
        return images, len(steps) - first, log_prob if first == 0 else None
    images = request.values.clone()
    for step in steps[first:]:
        params, at = stepper.parameters(step.number), request.of(step)
        found = images[at] if request.is_given(step) else request.decide(params, step)
        images[at] = found
        stepper.accept(step.number, request.output.to_inputs(found, request.dtype))
        if request.progress is not None:
            request.progress(step.number + 1, len(steps))
    return images, len(steps) - first, None


def _draw(output: Output, kind: str, request: Request) -> Draw:
    every = torch.arange(output.levels)
    table = output.to_inputs(every, request.dtype)
    return Draw(kind, output.levels, table, request.temperature, request.top_k or 0)


def _run(
    request: Request, stepper: Stepper, draw: Draw, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """All steps in one call; in a few where someone watches."""
    assert request.noise is not None
    noise = request.noise.to(request.dtype).clamp(max=NEAR_ONE)
    given = None
    if request.given is not None:
        given = torch.where(request.given, request.values, -1)
    if request.progress is None:
        images, total = stepper.run(draw, noise, given=given)
        check_no_nan(total)
        return images, total
    each, total = max(1, steps // _REPORTS), noise.new_zeros(len(noise), dtype=torch.float64)
    images = torch.full_like(request.values, -1)
    for last in [*range(each, steps, each), steps]:
        found, log_prob = stepper.run(draw, noise, given=given, last=last)
        images, total = torch.where(found < 0, images, found), total + log_prob
        request.progress(last, steps)
    check_no_nan(total)
    return images, total
