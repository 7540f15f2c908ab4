"""What shared tests and gates know of a family: `tests/<family>/samples.py` holds one `Samples`.

Families are found by their folders; no shared file names one.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.core.strategies import DTYPES

CORE = Path(__file__).parent
FOLDER = CORE.parent
Tensors = list[torch.Tensor | None]


class Normal:
    """``normal(*shape, scale=1.0)``: seeded normal values of one dtype, on the default device."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype, self.generator = dtype, torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        options = {"generator": self.generator, "dtype": torch.float64, "device": "cpu"}
        values = torch.randn(shape, **options) * scale
        return values.to(torch.get_default_device(), self.dtype)


@dataclass(frozen=True)
class Sample:
    """A call of a public function.

    Args:
        name: says which, within the family.
        call: the function and its options: from the tensors to a tensor or a tuple.
        definition: the same in plain PyTorch, for float64.
        inputs: from `Normal` to the tensors, None where one is left out.
        check: from inputs and upstream gradients (None where there is none): values and every
            gradient of ``call`` against ``definition``, within the bounds of `tolerance.py`.
        noise: whether ``call`` draws from torch's generator; ``definition`` then draws the same.
        weights: places of the parameters among the inputs: their gradients have their strides.
        dtypes: those that the inputs may have.
    """

    name: str
    call: Callable[..., Any]
    definition: Callable[..., Any]
    inputs: Callable[[Normal], Tensors]
    check: Callable[[Tensors, Tensors], None]
    noise: bool = False
    weights: tuple[int, ...] = ()
    dtypes: tuple[torch.dtype, ...] = DTYPES

    def make(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensors, Tensors]:
        """Inputs, and an upstream gradient for each result."""
        normal = Normal(dtype, seed)
        inputs = self.inputs(normal)
        with torch.no_grad():
            outputs = self.outputs(*inputs)
        return inputs, [normal(*y.shape) for y in outputs]

    def outputs(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        if self.noise:
            torch.manual_seed(5)
        found = self.call(*inputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    def defined(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        if self.noise:
            torch.manual_seed(5)
        found = self.definition(*inputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)


@dataclass(frozen=True)
class Peak:
    """Bounds of the bytes that ``call`` holds at once beyond its arguments (torch's allocator)."""

    name: str
    call: Callable[[], Any]
    at_least: float
    at_most: float


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def forward_backward(function: Callable, *inputs: torch.Tensor) -> Callable:
    """A call that returns what is alive at its end: outputs, gradients, saved tensors."""

    def call():
        outputs = function(*inputs)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
        upstream = [torch.zeros(()).expand_as(y) for y in outputs]
        return outputs, torch.autograd.grad(outputs, inputs, upstream)

    return call


@dataclass(frozen=True)
class Module:
    """A module and its input, in float32; ``text`` is part of its repr."""

    build: Callable[[], torch.nn.Module]
    input: Callable[[Normal], torch.Tensor]
    text: str


@dataclass(frozen=True)
class Samples:
    """Everything that shared tests and gates need of a family.

    Args:
        samples: small calls for the contract; the first one goes through the slow compiler too.
        large: calls that threads divide and that cross the blocks of the kernels.
        everywhere: checks without arguments, for every instruction-set level: the property tests
            (drawn anew there) and whatever depends on the width of a vector or the order of sums.
        autocast: "loss" or "product", as in `genkern.checks`.
        errors: (call, type of the error, pattern of its text).
        peaks: of memory.
        modules: of `genkern.nn`.
    """

    samples: Sequence[Sample]
    large: Sequence[Sample]
    everywhere: Sequence[Callable[[], None]]
    autocast: str
    errors: Sequence[tuple[Callable[[], Any], type[Exception], str]]
    peaks: Callable[[], Sequence[Peak]]
    modules: Sequence[Module] = field(default=())


def stems() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/samples.py") if path.parent != CORE)


def load(stem: str) -> Samples:
    return importlib.import_module(f"tests.{stem}.samples").SAMPLES


def declared(stem: str) -> Any:
    """The `genkern.family.Family` of a stem."""
    from genkern.family import Family

    module = importlib.import_module(f"genkern.ops.{stem}")
    (found,) = [value for value in vars(module).values() if isinstance(value, Family)]
    return found
