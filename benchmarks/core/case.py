"""What a case is: inputs, implementations, counted work, targets."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

PHASES = ("forward", "forward_backward")
IMPLEMENTATIONS = ("genkern", "eager", "compile", "library")
FLOOR = "floor"  # ops of the same schemas that do nothing: benchmarks/core/floor.py
OVERHEAD = 1.3  # times the floor that a call on a few elements may take


@dataclass(frozen=True)
class Target:
    """``baseline`` must take at least ``ratio`` times as long as genkern.

    A ratio of exactly 1 says "not slower", and is met when noise could explain the difference.
    """

    ratio: float
    baseline: str = "eager"


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    Args:
        family: stem of the slice ("gaussian"); op: public name ("gaussian_kl").
        shape: short name, unique within the op.
        inputs: named float32 CPU tensors, drawn from torch's global generator.
        genkern, eager, library: take the inputs in order; return a tensor or a tuple of them.
        reference: the same in float64, and the noise of the implementation where it draws any.
        outputs: names of the results.
        flops: multiplications and additions forward and backward, live taps only.
        elements: elements that must be read or written at least once, forward and backward.
        terms: length of the longest sum behind an output or a gradient ("d_" + input); default 1.
        roundings: how often a value is rounded to storage on its way to an output.
        noise: per implementation, the standard normals that it draws after the same seeding.
        slack: per baseline, a factor on its tolerance: people's formula that loses digits.
        constants: inputs without gradient.
        overhead: the case is so small that what it costs is the call.
        headline: its forward + backward stands in the README.
        memory: times eager's peak that forward + backward may allocate.
    """

    family: str
    op: str
    shape: str
    inputs: Callable[[], dict[str, torch.Tensor]]
    genkern: Callable
    eager: Callable
    reference: Callable
    outputs: Sequence[str]
    flops: tuple[float, float]
    elements: tuple[float, float]
    library: Callable | None = None
    library_call: str | None = None
    terms: Mapping[str, int] = field(default_factory=dict)
    roundings: int = 1
    noise: Mapping[str, Callable] = field(default_factory=dict)
    slack: Mapping[str, float] = field(default_factory=dict)
    constants: frozenset[str] = frozenset()
    phases: tuple[str, ...] = PHASES
    compiled_phases: tuple[str, ...] = PHASES
    targets: Mapping[str, Target] = field(default_factory=dict)
    overhead: bool = False
    headline: bool = False
    memory: float | None = None
    quick: bool = False

    @property
    def label(self) -> str:
        return f"{self.op} {self.shape}"

    def work(self, phase: str, itemsize: int) -> tuple[float, float]:
        """FLOPs and bytes of one call."""
        last = 1 if phase == "forward" else 2
        return sum(self.flops[:last]), sum(self.elements[:last]) * itemsize

    def is_compiled(self, phase: str) -> bool:
        """Compiling takes longer than measuring: it is for the cases that something is said of."""
        return phase in self.compiled_phases and (self.headline or bool(self.targets))

    def target(self, phase: str) -> Target:
        """What PERFORMANCE states; elsewhere genkern may not be slower than eager."""
        if self.overhead:
            return Target(1 / OVERHEAD, FLOOR)
        return self.targets.get(phase, Target(1.0))


def families() -> list[str]:
    """Stems with cases here: a family has one stem in every tree."""
    stems = sorted(path.stem for path in Path(__file__).parents[1].glob("[a-z]*.py"))
    return [stem for stem in stems if importlib.util.find_spec(f"genkern.reference.{stem}")]


def all_cases() -> list[Case]:
    modules = [importlib.import_module(f"benchmarks.{stem}") for stem in families()]
    return [case for module in modules for case in module.cases()]


def names() -> list[str]:
    """What a user may ask for: families and ops."""
    return sorted({name for case in all_cases() for name in (case.family, case.op)})


def select(wanted: Sequence[str], quick: bool = False) -> list[Case]:
    return [
        case
        for case in all_cases()
        if (not wanted or case.op in wanted or case.family in wanted) and (case.quick or not quick)
    ]
