"""Sampling step by step: each pixel's parameters from what the steps before it left behind.

A `Stepper` runs a model of images in raster order without a full forward pass per pixel. It records
the model's ops once, on shapes alone, and from then on computes each feature of each pixel once, as
soon as the pixels that it sees are there.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from genkern.sampling import compiled, on_gpu
from genkern.sampling.execute import Execution
from genkern.sampling.plan import Plan

ORDERS = ("raster", "wavefront")
KINDS = compiled.KINDS


class Step(NamedTuple):
    """Places whose parameters do not depend on each other.

    Args:
        places: (row, col) of each, in raster order.
        colour: the colour that is drawn in this step, where the output at a pixel depends on the
            colours of that pixel before it; None: all colours of the pixel are drawn at once.
    """

    places: list[tuple[int, int]]
    colour: int | None


class Draw(NamedTuple):
    """How integers are drawn from the parameters of a pixel, in `Stepper.run`.

    Args:
        kind: "bernoulli": one logit a colour, in the order of the colours. "categorical":
            ``levels`` logits a colour, the levels of a colour side by side. "logistic_mixture": as
            `genkern.discretized_logistic_mixture_sample` takes them. "gaussian": a mean of each
            colour, then a log-scale of each, in units of the network inputs.
        levels: values of an integer, 0 ... levels - 1 (2 for "bernoulli").
        table: network inputs of the integers: (levels,), for every colour; a float tensor.
        temperature: divides the logits; of a mixture, scales its logits and its logistics.
        top_k: keeps the likeliest so many levels ("categorical"); 0: all.
        scale, offset: the network input of integer v is scale * v + offset ("gaussian").
        wants_log_prob: False: log p of a "gaussian" need not be told, only be NaN where it is.
    """

    kind: str
    levels: int
    table: torch.Tensor
    temperature: float = 1.0
    top_k: int = 0
    scale: float = 1.0
    offset: float = 0.0
    wants_log_prob: bool = True


class Stepper:
    """A model at the places of one step, given all places of the steps before.

        stepper = Stepper(model.features, images, labels, order="wavefront")
        for k, step in enumerate(stepper.steps):
            params = stepper.parameters(k)          # (N, P, places), or P / C of them: see there
            stepper.accept(k, draw(params))         # (N, colours drawn, places), network inputs
        # the same, with the loop and the drawing in C++, or in a GPU's kernels:
        integers, log_prob = stepper.run(Draw("categorical", 256, table), noise)

    Args:
        model: ``model(images, *condition)`` with images (N, C, H, W), network inputs, returns the
            parameters (N, P, H, W); with ``colours`` in order, colour c has rows
            [c * P / C, (c + 1) * P / C) of them. It is called once, on a tensor without data.
        images: (N, C, H, W), float32 or float64: what the model reads. It is copied; places that
            are given (see ``first``) are read from it.
        condition: further arguments of the model: whatever does not depend on the images.
        order: "raster": a pixel a step; "wavefront": all pixels with equal col + slope * row.
        first: number of leading steps that are not drawn: their places are taken from ``images``.
            A full forward pass over these rows, not step by step.
        keep: for `restart`, unless `restart_reason` says why there is none.

    Attributes:
        steps: of `Step`, every place once (once a colour where these are in order).
        slope: of a wavefront, pixels; None in raster order.
        images: (N, C, H, W) what has been accepted so far.
        cache_bytes: memory that is kept from step to step.

    Raises:
        NoRule: the model has an op without a rule: the message names it and
            `genkern.sampling.register_step`.
        ValueError: the output at a pixel sees later pixels; ``order`` is "wavefront" and no slope
            below the width makes the pixels of a step independent (`wavefront_reason` says why).
    """

    def __init__(
        self,
        model: Callable[..., torch.Tensor],
        images: torch.Tensor,
        *condition: object,
        order: str = "raster",
        first: int = 0,
        keep: bool = False,
    ) -> None:
        self._plan = _plan(model, images, condition, order == "wavefront", first, keep)
        self.slope = self._plan.slope
        self.steps = [Step(places, colour) for places, colour in self._plan.steps]
        if on_gpu.is_available() if images.is_cuda else images.is_cpu and compiled.is_available():
            self._engine: Execution = compiled.Engine(self._plan, images)
        else:
            self._engine = Execution(self._plan, images)
        self.cache_bytes = self._engine.cache_bytes
        self._shift = self._plan.order.given - first
        self._begin()

    def _begin(self) -> None:
        """The steps that are given."""
        self._computed = False
        with torch.no_grad():
            for _ in range(self._plan.order.given):
                self._engine.step()

    @property
    def restart_reason(self) -> str | None:
        """Why there is no `restart`, or None if there is one."""
        tape = self._plan.graph.tape
        if not isinstance(self._engine, compiled.Engine):
            return "the compiled part of genkern must be there"
        if tape is None:
            return "data of conditions must be reached by ops of torch alone"
        if not tape.is_whole:
            return "values of conditions must be neither written to nor what the model decides by"
        return None

    @torch.no_grad()
    def restart(self, images: torch.Tensor, *condition: object) -> None:
        """Again from the first step, of other images and conditions of the same shapes."""
        if not isinstance(self._engine, compiled.Engine) or self.restart_reason is not None:
            raise RuntimeError(f"Stepper.restart: {self.restart_reason}")
        graph = self._plan.graph
        values = graph.tape.replay([c for c in condition if isinstance(c, torch.Tensor)])
        self._engine.restart(images, {node: values[i] for node, i in graph.follows.items()})
        self._begin()

    @property
    def images(self) -> torch.Tensor:
        """(N, C, H, W): what has been accepted so far."""
        N, H, W = self._engine.N, *self._plan.grid
        caches = self._engine.caches
        planes = [caches[colour.node][:-1, :, colour.start].T for colour in self._plan.colours]
        return torch.stack(planes, dim=1).view(N, len(planes), H, W)

    def _places(self, index: int) -> tuple[np.ndarray, int | None]:
        step = self.steps[index]
        return np.array([r * self._plan.grid[1] + c for r, c in step.places]), step.colour

    @torch.no_grad()
    def parameters(self, index: int) -> torch.Tensor:
        """The model's output at the places of step ``index``, the next one: (N, P, places).

        Where the step has a colour, its parameters alone: (N, P / C, places). The bits depend on
        neither the batch size nor the number of threads nor the order.
        """
        if index + self._shift != self._engine.next - self._computed:
            expected = self._engine.next - self._computed - self._shift
            raise ValueError(f"Stepper.parameters: index must be {expected}, the next step; "
                             f"got {index}")  # fmt: skip
        if not self._computed:
            self._engine.step()
            self._computed = True
        places, colour = self._places(index)
        P = self._plan.output.channels
        each = P if colour is None else P // len(self._plan.colours)
        start = 0 if colour is None else colour * each
        return self._engine.output(places, range(start, start + each))

    @torch.no_grad()
    def accept(self, index: int, inputs: torch.Tensor) -> None:
        """Network inputs of what was drawn in step ``index``: (N, C, places), or (N, 1, places)
        where the step has a colour."""
        if not self._computed or index + self._shift != self._engine.next - 1:
            raise ValueError(f"Stepper.accept: parameters({index}) must come before it")
        places, colour = self._places(index)
        colours = range(len(self._plan.colours)) if colour is None else range(colour, colour + 1)
        self._engine.accept(places, colours, inputs)
        self._computed = False

    def run(
        self,
        draw: Draw,
        noise: torch.Tensor,
        *,
        given: torch.Tensor | None = None,
        last: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws the steps from the next one up to ``last`` (None: all), in one call.

        Args:
            draw: how.
            noise: uniform in [0, 1), of the dtype of ``images``. (N, C, H, W); for a mixture
                (N, 1 + C, H, W), channel 0 for the component. The integer is the first whose
                cumulative probability exceeds u (1 where u < sigmoid(logit) for "bernoulli").
            given: integers (N, C, H, W), int64, -1 where they are to be drawn.

        Returns:
            integers (N, C, H, W), int64, -1 where nothing has been drawn; log p (N,) in float64,
            nats, of what has been drawn or given in these steps, at temperature 1 without top_k.
        """
        if not isinstance(self._engine, compiled.Engine):
            raise RuntimeError("Stepper.run: the compiled part of genkern must be there")
        if draw.kind not in KINDS:
            raise ValueError(
                f"Stepper.run: kind must be one of {', '.join(KINDS)}; got {draw.kind}"
            )
        if self._computed:
            raise RuntimeError("Stepper.run: the step before must be accepted")
        done, count = self._engine.next - self._shift, len(self.steps)
        last = count if last is None else last
        if not done <= last <= count:
            raise ValueError(f"Stepper.run: last must be in [{done}, {count}]; got {last}")
        return self._engine.draw(draw, noise, given, last + self._shift)


def wavefront_reason(
    model: Callable[..., torch.Tensor], images: torch.Tensor, *condition: object
) -> str | None:
    """Why there is no wavefront order for a model, or None if there is one."""
    try:
        Plan(model, tuple(images.shape), images.dtype, condition, wavefront=True,
             device=images.device)  # fmt: skip
    except ValueError as error:
        return str(error)
    return None


def _plan(
    model: Callable[..., torch.Tensor],
    images: torch.Tensor,
    condition: tuple,
    wavefront: bool,
    first: int,
    keep: bool,
) -> Plan:
    def plan(keep: bool) -> Plan:
        return Plan(
            model, tuple(images.shape), images.dtype, condition, wavefront=wavefront, first=first,
            device=images.device, keep=keep,
        )  # fmt: skip

    if keep:
        with contextlib.suppress(Exception):  # what is no fault of the tape's tensors comes again
            return plan(True)
    return plan(False)
