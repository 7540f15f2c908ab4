"""The methods of the engine: what is computed of a place is kept, and not computed again."""

import functools
import warnings
from collections.abc import Hashable

import torch

from genkern.sampling import compiled, on_gpu
from genkern.sampling.gaussian import Gaussian
from genkern.sampling.graph import NoSteps
from genkern.sampling.incremental import Draw, Stepper
from genkern.sampling.kept import kept_of
from genkern.sampling.outputs import (
    NEAR_ONE,
    Bernoulli,
    Categorical,
    LogisticMixture,
    Output,
    check_no_nan,
)
from genkern.sampling.request import Request, Step

ORDERS = {"incremental": "raster", "wavefront": "wavefront"}
_KINDS: dict[type[Output], str] = {
    Bernoulli: "bernoulli",
    Categorical: "categorical",
    LogisticMixture: "logistic_mixture",
    Gaussian: "gaussian",
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


class Steps:
    """A stepper, and what it draws in each of its steps.

    Attributes:
        stepper: after `first` leading steps that are given, which are one forward pass.
        count: of its steps.
    """

    def __init__(self, request: Request, stepper: Stepper, first: int) -> None:
        self.stepper, self.first, self.count = stepper, first, len(stepper.steps)
        self.colours, self.device = request.shape[0], request.values.device
        self.by_colour = request.output.by_colour
        if not self.by_colour and any(step.colour is not None for step in stepper.steps[:1]):
            raise Unsuited("the parameters of a pixel must not depend on its own colours")

    @functools.cached_property
    def groups(self) -> list[list[Step]]:
        """For each step of the stepper one `Step`, as `choose` and `Request.of` take it; of colours
        that do not see each other one for each of them."""
        found: list[list[Step]] = []
        number = 0
        for step in self.stepper.steps:
            places = torch.tensor(step.places, device=self.device).view(-1, 2)
            start, end = 0, self.colours
            if step.colour is not None:
                start, end = step.colour, step.colour + 1
            colours = [range(start, end)]
            if self.by_colour:
                colours = [range(c, c + 1) for c in range(start, end)]
            found.append([
                Step(number + i, places[:, 0], places[:, 1], c) for i, c in enumerate(colours)
            ])  # fmt: skip
            number += len(colours)
        return found

    def given(self, request: Request) -> int:
        """How many leading steps are."""
        if request.given is None:
            return 0
        are_given = (all(map(request.is_given, group)) for group in self.groups)
        return next((i for i, given in enumerate(are_given) if not given), self.count)


def steps_of(request: Request, method: str) -> Steps:
    """From the first place that is not given.

    Raises:
        Unsuited: the model has no such steps.
    """
    if request.dtype not in (torch.float32, torch.float64):
        raise Unsuited(f"the model must be in float32 or float64; got {request.dtype}")
    try:
        steps = _steps(request, method, 0)
    except NoSteps as error:
        raise Unsuited(str(error).removeprefix("sampling: ")) from error
    first = steps.given(request)
    if first == 0:
        return steps
    _keep(request, method, steps)
    return _steps(request, method, first)


def _steps(request: Request, method: str, first: int) -> Steps:
    """New ones, or some that are kept."""
    inputs = request.output.to_inputs(request.values, request.dtype)
    condition = () if request.condition is None else (request.condition,)
    kept = kept_of(request.model)
    found = None if kept is None else kept.take(_key(request, method, first))
    if found is not None:
        found.stepper.restart(inputs, *condition)
        return found
    stepper = Stepper(
        request.network, inputs, *condition, order=ORDERS[method], first=first,
        keep=kept is not None,
    )  # fmt: skip
    return Steps(request, stepper, first)


def _keep(request: Request, method: str, steps: Steps) -> None:
    """Where the model is said to be unchanged."""
    kept = kept_of(request.model)
    if kept is None:
        return
    reason = steps.stepper.restart_reason
    if reason is None:
        kept.give(_key(request, method, steps.first), steps)
    elif not kept.told:
        kept.told = True
        text = f"unchanged: nothing is kept of the model, which each call records: {reason}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _key(request: Request, method: str, first: int) -> Hashable:
    """Of calls for which the model is recorded alike."""
    values, condition, output = request.values, request.condition, request.output
    given = None if condition is None else (condition.shape, condition.stride(), condition.dtype)
    function, kind = getattr(request.model, "__func__", None), values.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return (function, method, first, values.shape, values.device, request.dtype, given, autocast,
            output.by_colour, output.channels(values.shape[1]))  # fmt: skip


def stepped(request: Request, method: str) -> tuple[torch.Tensor, int, torch.Tensor | None]:
    """Integers (N, C, H, W), steps taken, and log p (N,) if the steps told it."""
    steps = steps_of(request, method)
    if steps.first == steps.count:
        images, log_prob = request.values, None
    elif runs_in_engine(request):
        images, log_prob = _run(request, steps)
    else:
        images, log_prob = _decided(request, steps), None
    _keep(request, method, steps)
    return images, steps.count - steps.first, log_prob


def _decided(request: Request, steps: Steps) -> torch.Tensor:
    """Step by step from Python."""
    images, output, stepper = request.values.clone(), request.output, steps.stepper
    total = sum(map(len, steps.groups))
    for index in range(steps.first, steps.count):
        params, found, group = stepper.parameters(index), [], steps.groups[index]
        for step in group:
            own = params if len(group) == 1 else output.at(params, step.colours.start)
            at = request.of(step)
            found.append(images[at] if request.is_given(step) else request.decide(own, step))
            images[at] = found[-1]
            if request.progress is not None:
                request.progress(step.number + 1, total)
        stepper.accept(index, output.to_inputs(torch.cat(found, 1), request.dtype))
    return images


def _draw(request: Request) -> Draw:
    output = request.output
    table = output.to_inputs(torch.arange(output.levels), request.dtype)
    return Draw(
        _KINDS[type(output)], output.levels, table, request.temperature, request.top_k or 0,
        output.scale, output.offset, request.wants_log_prob,
    )  # fmt: skip


def _run(request: Request, steps: Steps) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All steps in one call; in a few where someone watches."""
    assert request.noise is not None
    stepper, draw, count = steps.stepper, _draw(request), steps.count
    noise = request.noise.to(request.dtype).clamp(max=NEAR_ONE)
    given = None
    if request.given is not None:
        given = torch.where(request.given, request.values, -1)
    each = count if request.progress is None else max(1, count // _REPORTS)
    total = noise.new_zeros(len(noise), dtype=torch.float64)
    images = torch.full_like(request.values, -1)
    for last in [*range(steps.first + each, count, each), count]:
        found, log_prob = stepper.run(draw, noise, given=given, last=last)
        images, total = torch.where(found < 0, images, found), total + log_prob
        if request.progress is not None:
            request.progress(last, count)
    check_no_nan(total)
    told = steps.first == 0 and request.wants_log_prob
    return torch.where(images < 0, request.values, images), total if told else None
