"""`training`: times and peak memory of training steps, all implementations in turn."""

import gc
from collections.abc import Callable, Sequence

import torch
from torch import nn

import genkern
from benchmarks.core import cpu
from benchmarks.core.measure import Budget, Ceilings, Measured, interleave
from benchmarks.core.run import describe, records_of
from benchmarks.core.store import Record
from benchmarks.core.trained import PHASE, Trained

CHECKED_STEPS = 2
TOLERANCE = 1e-9  # between losses in float64


def training_step(network: nn.Module, nll: Callable, images: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        loss = nll(images).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def disagreements(network: Trained) -> dict[str, str]:
    """Whose losses, in float64 and from one start, are not those of genkern."""
    torch.manual_seed(0)
    images, losses = network.images(1), {}
    for name, (module, nll) in network.built().items():
        step = training_step(module.double(), nll, images)
        torch.manual_seed(1)  # of the noise, where there is any
        losses[name] = torch.tensor([step() for _ in range(CHECKED_STEPS)], dtype=torch.float64)
    ours = losses.pop("genkern")
    return {
        name: f"losses {theirs.tolist()}, genkern {ours.tolist()}"
        for name, theirs in losses.items()
        if not ((theirs - ours).abs() <= TOLERANCE * ours.abs()).all()
    }


def _peak(step: Callable, network: nn.Module) -> tuple[int, int | None]:
    peaks = []
    for measure in (cpu.allocator_peak, cpu.resident_peak):
        network.zero_grad()
        gc.collect()
        peaks.append(measure(step))
    return peaks[0] or 0, peaks[1]


def measure(network: Trained, budget: Budget, log: Callable[[str], None] = print) -> Measured:
    failures = disagreements(network)
    torch.manual_seed(0)
    images = network.images()
    built = {n: b for n, b in network.built().items() if n not in failures}
    steps = {name: training_step(*parts, images) for name, parts in built.items()}
    for step in steps.values():  # the state of Adam comes with the first
        step()
    backend = "cpu" if genkern.library.compiled else "reference"
    times = interleave({n: (lambda n=n: cpu.sample(steps[n], 1)) for n in steps}, budget)
    memory = {name: _peak(step, built[name][0]) for name, step in steps.items()}
    for line in network.notes(steps):
        log(line)
    ones, nothing = dict.fromkeys(steps, 1), dict.fromkeys(steps)
    return Measured(times, ones, memory, nothing, backend, failures)


def train(
    networks: Sequence[Trained],
    budget: Budget,
    context: Record,
    log: Callable[[str], None] = print,
) -> list[Record]:
    """The records of the training steps, in float32 on the CPU."""
    ceilings = Ceilings("cpu", torch.float32)
    records: list[Record] = []
    for network in networks:
        arguments = (network.case(), PHASE, torch.float32, "cpu")
        block = records_of(*arguments, measure(network, budget, log), ceilings, context)
        log(describe(block))
        records += block
    return records
