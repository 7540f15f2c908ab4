"""What a call of `sample` asks for, checked."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from genkern import checks, random
from genkern.sampling.outputs import Categorical, Output, WrongOutput, check_no_nan

Model = Callable[..., torch.Tensor]
_OP = "sample"


class Step(NamedTuple):
    """The places that are drawn at the same time.

    Args:
        number: of the step, from 0.
        rows, cols: of the P pixels, int64 (P,).
        colours: of each of them.
    """

    number: int
    rows: torch.Tensor
    cols: torch.Tensor
    colours: range


Choose = Callable[[torch.Tensor, Step], torch.Tensor]
Progress = Callable[[int, int], object]


@dataclass
class Request:
    """The arguments of `sample`.

    Args:
        values: int64 (N, C, H, W): what is given, 0 elsewhere.
        given: bool (N, C, H, W), or None where nothing is.
        noise: (N, draws, H, W) in [0, 1], or None with ``choose``, which takes none.
    """

    model: Model
    output: Output
    values: torch.Tensor
    given: torch.Tensor | None
    noise: torch.Tensor | None
    dtype: torch.dtype
    condition: torch.Tensor | None = None
    temperature: float = 1.0
    top_k: int | None = None
    choose: Choose | None = None
    progress: Progress | None = None
    wants_log_prob: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        _, C, H, W = self.values.shape
        return C, H, W

    def parameters(self, values: torch.Tensor, images: torch.Tensor | None = None) -> torch.Tensor:
        """What the network says of integers (n, C, H, W), those of ``images`` of the batch."""
        inputs = self.output.to_inputs(values, self.dtype)
        if self.condition is None:
            return self.network(inputs)
        return self.network(inputs, self.condition if images is None else self.condition[images])

    def network(self, inputs: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """The model, checked to return what the output needs."""
        found = self.model(inputs, *condition)
        C, H, W = self.shape
        wanted = (len(inputs), self.output.channels(C), H, W)
        if not isinstance(found, torch.Tensor) or found.shape != wanted:
            tensor = isinstance(found, torch.Tensor)
            got = tuple(found.shape) if tensor else type(found).__name__
            raise WrongOutput(
                f"{_OP}: model must return shape {wanted} for {self.output!r}; got {got}"
            )
        return found

    def is_given(self, step: Step) -> bool:
        """Nothing is left to draw, in any image."""
        given = self.given
        return given is not None and bool(given[self.of(step)].all())

    def of(self, step: Step) -> tuple:
        """The index of the step's places in (N, C, H, W): (N, colours, P)."""
        return (slice(None), slice(step.colours.start, step.colours.stop), step.rows, step.cols)

    def decide(self, params: torch.Tensor, step: Step) -> torch.Tensor:
        """Integers (N, colours, P) from parameters (N, K, P): chosen, drawn, or given."""
        at = self.of(step)
        if self.choose is not None:
            check_no_nan(params)
            found = self._chosen(self.choose(params, step), at)
        else:
            assert self.noise is not None
            noise = self.noise[at if self.output.by_colour else (slice(None), slice(None), *at[2:])]
            found = self.output.draw(params, noise, self.temperature, self.top_k)
        if self.given is None:
            return found
        return torch.where(self.given[at], self.values[at], found)

    def _chosen(self, found: object, at: tuple) -> torch.Tensor:
        wanted = self.values[at].shape
        if not isinstance(found, torch.Tensor) or found.is_floating_point() or (
            found.shape != wanted
        ):  # fmt: skip
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else (
                type(found).__name__
            )  # fmt: skip
            raise ValueError(f"{_OP}: choose must return integers {tuple(wanted)}; got {got}")
        found = found.to(self.values)
        check_levels("choose's integers", found, 0, self.output.levels)
        return found


def check_levels(name: str, values: torch.Tensor, least: int, levels: int) -> None:
    for value in values.aminmax() if values.numel() else ():
        if not least <= int(value) < levels:
            raise ValueError(f"{_OP}: {name} must be in [{least}, {levels - 1}]; got {int(value)}")


def owner(model: object) -> nn.Module | None:
    """The module of a model: itself, or the object of a bound method."""
    found = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    return found if isinstance(found, nn.Module) else None


@contextlib.contextmanager
def evaluating(model: object) -> Iterator[None]:
    """The model is in eval mode, and afterwards as it was, whatever happens.

    Weights that are made of others, as by `torch.nn.utils.parametrizations`, are made once.
    """
    module = owner(model)
    modes = [] if module is None else [(m, m.training) for m in module.modules()]
    try:
        if module is not None and any(training for _, training in modes):
            module.eval()
        with parametrize.cached():
            yield
    finally:
        for each, training in modes:
            each.training = training


def like(model: object) -> torch.Tensor:
    """A tensor whose dtype and device are those of the model's parameters."""
    module = owner(model)
    parameters = iter(()) if module is None else module.parameters()
    floating = (p for p in parameters if p.is_floating_point())
    return next(floating, torch.empty(0))


def check_output(output: object, shape: object) -> tuple[int, int, int]:
    """(C, H, W), and an `Output` that such images can have."""
    if not isinstance(shape, (tuple, list, torch.Size)) or len(shape) != 3:
        raise ValueError(f"{_OP}: shape must be (C, H, W) of one image; got {shape!r}")
    for size in shape:
        checks.check_number(_OP, "shape", size, minimum=1, integer=True)
    if not isinstance(output, Output):
        got = type(output).__name__
        raise TypeError(f"{_OP}: output must be a genkern.sampling.Output; got {got}")
    C, H, W = map(int, shape)
    try:
        output.channels(C)
    except ValueError as error:
        raise ValueError(f"{_OP}: {error}") from None
    return C, H, W


def given_values(
    partial: object, shape: tuple[int, ...], levels: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(values, given) from integers with -1 where to draw, or from (image, mask)."""
    if partial is None:
        return torch.zeros(shape, dtype=torch.int64, device=device), None
    image, mask = partial if isinstance(partial, tuple) else (partial, None)
    for name, found in (("partial", image), ("partial[1]", mask)):
        if found is None and name != "partial":
            continue
        if not isinstance(found, torch.Tensor) or found.is_floating_point():
            got = found.dtype if isinstance(found, torch.Tensor) else type(found).__name__
            raise TypeError(
                f"{_OP}: partial must be integers, -1 where to draw, or (integers, bool mask of "
                f"what is given); got {got}"
            )
        checks.check_shape(_OP, name, found, shape, "(num_samples, C, H, W)")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"{_OP}: partial[1] must be bool; got {mask.dtype}")
    values = image.to(device, torch.int64)
    given = values >= 0 if mask is None else mask.to(device)
    values = torch.where(given, values, 0 if mask is not None else values)
    check_levels("partial", values, -1 if mask is None else 0, levels)
    return torch.where(given, values, 0), given


def draw_noise(
    num_samples: int,
    *,
    shape: Sequence[int],
    output: Output,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The uniform numbers of `sample`: each place of each image has its own.

    A Philox stream keyed by a seed from the generator and by image, channel and pixel: the first
    images of a larger batch have the same numbers, on every device.

    Args:
        num_samples: images N.
        shape: (C, H, W) of one.
        output: says how many numbers a pixel takes.
        generator: draws the seed; default torch's.
        device: of the result; default the generator's, or the CPU.

    Returns:
        float32 (N, draws, H, W) in (0, 1]: ``noise`` of `sample`. ``draws`` is C, and 1 + C for
        `LogisticMixture`, whose first channel chooses the component.

    Raises:
        TypeError, ValueError: an argument has another type or is out of range.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    C, H, W = check_output(output, shape)
    checks.check_number(_OP, "num_samples", num_samples, minimum=0, integer=True)
    if generator is not None and not isinstance(generator, torch.Generator):
        got = type(generator).__name__
        raise TypeError(f"{_OP}: generator must be a torch.Generator; got {got}")
    where = torch.device("cpu" if device is None else device)
    of = where if generator is None else generator.device
    seed = random.draw_seed(of, generator).to(of if device is None else where)
    size = (int(num_samples), output.draws(C), H, W)
    return random.philox_uniform(seed, size, torch.float32)


def check_noise(noise: object, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Given noise, as `draw_noise` makes it."""
    if not isinstance(noise, torch.Tensor):
        raise TypeError(f"{_OP}: noise must be a Tensor; got {type(noise).__name__}")
    checks.check_tensor(_OP, "noise", noise)
    checks.check_shape(_OP, "noise", noise, shape, "(num_samples, draws, H, W)")
    if noise.numel() and not bool(((noise >= 0) & (noise <= 1)).all()):
        raise ValueError(f"{_OP}: noise must be in [0, 1]; got a value outside of it")
    return noise.detach().to(device)


def check_top_k(top_k: object, output: Output) -> int | None:
    if top_k is None:
        return None
    if not isinstance(output, Categorical):
        raise ValueError(f"{_OP}: top_k must be None for {output!r}; got {top_k!r}")
    most = output.levels
    return checks.check_number(_OP, "top_k", top_k, minimum=1, maximum=most, integer=True)
