"""How a figure is taken.

1. Fresh inputs for the phase. Every implementation passes the gate on poisoned memory.
2. Rounds in which all implementations take turns, the order rotated each round: what else the
   machine does meets all of them alike. A sample repeats a short call for some milliseconds.
3. The gate again on exactly the calls that were timed, then the peak memory.

Compilation happens in step 1. A figure above the roofline is an error, never a result.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch

import genkern
from benchmarks.core import cpu, cuda
from benchmarks.core.case import FLOOR, Case
from benchmarks.core.gate import RedGate, Trial, poisoned_memory

TOLERANCE = 1.05
REFRESHES = 3
DEVICES: dict[str, ModuleType] = {"cpu": cpu, "cuda": cuda}


class AboveRoofline(Exception):
    """A rate that the machine cannot reach: the clock, the counts or the result are wrong."""


@dataclass(frozen=True)
class Budget:
    """Time of one case in one phase; the fewest rounds hold whatever they take."""

    seconds: float
    fewest: int
    most: int
    sample_seconds: float


FULL = Budget(seconds=2.0, fewest=7, most=100, sample_seconds=2e-3)
QUICK = Budget(seconds=0.2, fewest=3, most=15, sample_seconds=5e-4)


class Ceilings:
    """Rates of the device for one dtype, measured in this run; the best seen so far counts."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self._measure = lambda: DEVICES[device].ceilings(dtype)
        self.cache_bytes: int = DEVICES[device].cache_bytes()
        self.rates: dict[str, float] = self._measure()

    def refresh(self) -> None:
        self.rates = {key: max(rate, self.rates[key]) for key, rate in self._measure().items()}

    def limit(self, flops: float, size: float) -> tuple[float, str]:
        """Fewest seconds for this work, and the rate that sets them."""
        # Traffic that fits the last cache need not come from memory.
        copy = "copy_gbs" if size > self.cache_bytes else "cached_copy_gbs"
        seconds = {
            copy: size / self.rates[copy] / 1e9,
            "product_gflops": flops / self.rates["product_gflops"] / 1e9,
        }
        bound = max(seconds, key=lambda key: seconds[key])
        return seconds[bound], bound

    def _impossible(self, flops: float, size: float, seconds: float) -> str | None:
        if flops / seconds / 1e9 > TOLERANCE * self.rates["product_gflops"]:
            return f"{flops / seconds / 1e9:.4g} GFLOP/s > {self.rates['product_gflops']:.4g}"
        fastest = self.rates["cached_copy_gbs"]
        if size > self.cache_bytes and size / seconds / 1e9 > TOLERANCE * fastest:
            return f"{size / seconds / 1e9:.4g} GB/s > {fastest:.4g}"
        return None

    def guard(self, what: str, flops: float, size: float, seconds: float) -> None:
        reason = self._impossible(flops, size, seconds)
        for _ in range(REFRESHES if reason else 0):  # a busy machine shows ceilings too low
            self.refresh()
            reason = self._impossible(flops, size, seconds)
            if reason is None:
                break
        if reason is not None:
            raise AboveRoofline(f"{what}: {reason}, the ceiling measured in this run")


def quantiles(values: Sequence[float]) -> dict[str, float]:
    p20, median, p80 = (float(q) for q in np.percentile(values, (20, 50, 80)))
    return {"median": median, "p20": p20, "p80": p80}


def interleave(samplers: dict[str, Callable[[], float]], budget: Budget) -> dict[str, list[float]]:
    """Samples of each, in rounds whose order rotates."""
    names = list(samplers)
    times: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(budget.most):
        if turn >= budget.fewest and time.perf_counter() - start > budget.seconds:
            break
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            times[name].append(samplers[name]())
    return times


def _calls_per_sample(call: Callable, clock: ModuleType, budget: Budget) -> int:
    return min(1000, max(1, math.ceil(budget.sample_seconds / clock.sample(call, 1))))


def _functions(case: Case, phase: str, device: str, against: Sequence[str]) -> dict[str, Callable]:
    functions: dict[str, Callable] = {"genkern": case.genkern}
    if "eager" in against:
        functions["eager"] = case.eager
    if "compile" in against and case.is_compiled(phase):
        torch._dynamo.reset()
        functions["compile"] = torch.compile(case.eager, dynamic=False)
    if "library" in against and case.library is not None:
        functions["library"] = case.library
    if case.overhead and device == "cpu":  # the floors are in the compiled part
        functions[FLOOR] = case.genkern
    return functions


def _admit(trial: Trial, functions: dict[str, Callable], failures: dict[str, str]) -> dict:
    """The calls that pass the gate; the others are named in ``failures``."""
    calls = {}
    for name, function in functions.items():
        call = trial.bind(name, function)
        try:
            trial.check(name, call)
            # Inductor guards on the poisoning flag: with it every graph would compile twice.
            if name != "compile":
                with poisoned_memory():
                    trial.check(name, call)
        except (RedGate, RuntimeError) as error:
            failures[name] = str(error).partition("\n")[0]
        else:
            calls[name] = call
    return calls


def _peaks(clock: ModuleType, trial: Trial, call: Callable) -> tuple[int, int | None]:
    # Gradients of the call before, freed by this one, would count as memory given back.
    trial.drop_grads()
    allocator = clock.allocator_peak(call)
    trial.drop_grads()
    return allocator, clock.resident_peak(call)


@dataclass(frozen=True)
class Measured:
    """Times of the admitted implementations of one case in one phase, and who failed."""

    times: dict[str, list[float]]
    calls: dict[str, int]
    memory: dict[str, tuple[int, int | None]]
    graph_seconds: dict[str, float | None]
    backend: str
    failures: dict[str, str]


def measure(
    case: Case,
    phase: str,
    dtype: torch.dtype,
    device: str,
    budget: Budget,
    against: Sequence[str],
    seed: int = 0,
) -> Measured:
    """Gate, rounds, gate, memory. A wrong genkern leaves no figure of anybody."""
    clock = DEVICES[device]
    clock.settle()
    failures: dict[str, str] = {}
    trial = Trial(case, phase, dtype, torch.device(device), seed)
    calls = _admit(trial, _functions(case, phase, device, against), failures)
    backend = genkern.last_backend(case.family) or "reference"
    if "genkern" not in calls:
        return Measured({}, {}, {}, {}, backend, failures)
    repeats = {name: _calls_per_sample(call, clock, budget) for name, call in calls.items()}
    times = interleave(
        {n: (lambda n=n: clock.sample(calls[n], repeats[n])) for n in calls},
        budget,
    )
    for name, call in list(calls.items()):
        try:
            trial.check(name, call)
        except RedGate as error:
            failures[name] = f"after the timed rounds: {error}"
            del times[name]
    memory = {name: _peaks(clock, trial, calls[name]) for name in times}
    graphs = {n: clock.graph_seconds(calls[n]) if phase == "forward" else None for n in times}
    if "genkern" not in times:
        times = {}
    return Measured(times, repeats, memory, graphs, backend, failures)
