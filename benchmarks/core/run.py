"""`run`: measures the selected cases, prints one block per case, returns the records."""

from collections.abc import Callable, Sequence

import torch

from benchmarks.core.busy import beside
from benchmarks.core.case import FLOOR, Case
from benchmarks.core.measure import Budget, Ceilings, Measured, measure, quantiles
from benchmarks.core.store import Record


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g} us"


def _ratio(times: dict[str, list[float]], name: str) -> dict[str, float]:
    """Time over genkern's, round by round: a pair of neighbours in time cancels drift."""
    pairs = zip(times[name], times["genkern"], strict=True)
    return quantiles([theirs / ours for theirs, ours in pairs])


def _work(case: Case, phase: str, dtype: torch.dtype, name: str) -> tuple[float, float]:
    if name == FLOOR:
        return 0.0, 0.0
    return case.work(phase, dtype.itemsize)


def _verdict(case: Case, phase: str, times: dict[str, list[float]]) -> Record | None:
    target = case.target(phase)
    if target.baseline not in times:
        return None
    ratio = _ratio(times, target.baseline)
    attained = ratio["p80"] if target.ratio == 1.0 else ratio["median"]
    return {
        "baseline": target.baseline,
        "ratio": target.ratio,
        "attained": ratio,
        "met": attained >= target.ratio,
    }


def _memory_verdict(case: Case, phase: str, peaks: dict[str, int]) -> Record | None:
    """Peaks of forward + backward against eager's."""
    if case.memory is None or phase == "forward" or not peaks.get("eager"):
        return None
    attained = peaks["genkern"] / peaks["eager"]
    return {"ratio": case.memory, "attained": attained, "met": attained <= case.memory}


def records_of(
    case: Case,
    phase: str,
    dtype: torch.dtype,
    device: str,
    measured: Measured,
    ceilings: Ceilings,
    context: Record,
) -> list[Record]:
    """One record per implementation: a timing, or a failure without any figure.

    Raises:
        AboveRoofline: a rate that the machine cannot reach.
    """
    identity = {"op": case.op, "shape": case.shape, "phase": phase, "device": device}
    identity["dtype"] = str(dtype).removeprefix("torch.")
    peaks = {name: allocator for name, (allocator, _) in measured.memory.items()}
    records = []
    for name, times in measured.times.items():
        seconds = quantiles(times)
        flops, size = _work(case, phase, dtype, name)
        ceilings.guard(f"{case.label} {phase} {name}", flops, size, seconds["median"])
        limit, bound = ceilings.limit(flops, size)
        ratio = _ratio(measured.times, name)
        records.append(
            {
                **{"kind": "timing", **identity, "implementation": name},
                "backend": measured.backend if name == "genkern" else "torch",
                "library_call": case.library_call if name == "library" else None,
                "seconds": seconds,
                "rounds": len(times),
                "calls_per_sample": measured.calls[name],
                "graph_seconds": measured.graph_seconds[name],
                **{"flops": flops, "bytes": size},
                "gflops": flops / seconds["median"] / 1e9,
                "gbs": size / seconds["median"] / 1e9,
                "bound": bound,
                "percent_of_ceiling": 100 * limit / seconds["median"],
                "ceilings": dict(ceilings.rates),
                "allocator_peak_bytes": measured.memory[name][0],
                "resident_peak_bytes": measured.memory[name][1],
                "over_genkern": ratio,
                "target": _verdict(case, phase, measured.times) if name == "genkern" else None,
                "memory_target": _memory_verdict(case, phase, peaks) if name == "genkern" else None,
                **context,
            }
        )
    for name, error in measured.failures.items():
        failure = {"kind": "failure", **identity, "implementation": name, "error": error}
        records.append({**failure, **context})
    return records


def describe(records: Sequence[Record]) -> str:
    """The block that `run` prints for one case in one phase."""
    first = records[0]
    lines = [f"{first['op']} {first['shape']}  {first['phase']}  {first['dtype']}"]
    for record in records:
        name = record["implementation"]
        if record["kind"] == "failure":
            lines.append(f"  {name:<10} RED: {record['error']}")
            continue
        seconds, ratio = record["seconds"], record["over_genkern"]["median"]
        memory = record["allocator_peak_bytes"]
        lines.append(
            f"  {name:<10} {milliseconds(seconds['median']):>10} "
            f"[{milliseconds(seconds['p20'])}, {milliseconds(seconds['p80'])}]  "
            f"x{ratio:<6.3g} {record['gflops']:8.4g} GFLOP/s {record['gbs']:8.4g} GB/s "
            f"{record['percent_of_ceiling']:5.1f} % of {record['bound']}  "
            f"{memory / 1e6:.4g} MB"
        )
        if record["target"]:
            target = record["target"]
            lines[0] += (
                f"  {target['baseline']} / genkern {target['attained']['median']:.3g}, "
                f"target {target['ratio']:g} {'met' if target['met'] else 'MISSED'}"
            )
        if target := record["memory_target"]:
            lines[0] += (
                f"; memory genkern / eager {target['attained']:.3g}, "
                f"target {target['ratio']:g} {'met' if target['met'] else 'MISSED'}"
            )
    return "\n".join(lines)


def run(
    cases: Sequence[Case],
    dtype: torch.dtype,
    device: str,
    budget: Budget,
    against: Sequence[str],
    context: Record,
    log: Callable[[str], None] = print,
) -> list[Record]:
    """Measures every case in each of its phases, beside as many busy processes as context says.

    Raises:
        AboveRoofline: a rate that the machine cannot reach; names the case.
    """
    ceilings = Ceilings(device, dtype)
    log("ceilings: " + ", ".join(f"{key} {rate:.4g}" for key, rate in ceilings.rates.items()))
    records: list[Record] = []
    with beside(context["machine"]["busy"]):  # the ceilings are those of the quiet machine
        for number, case in enumerate(cases):
            for phase in case.phases:
                measured = measure(case, phase, dtype, device, budget, against, seed=number)
                block = records_of(case, phase, dtype, device, measured, ceilings, context)
                log(describe(block))
                records += block
    return records
