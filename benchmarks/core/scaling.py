"""`scaling`: time against batch, channels, image side and threads, with the log-log slope.

`work_slope` is the slope of the counted FLOPs, or -1 for threads: what the time would follow if
every size ran equally well.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from benchmarks.core.case import Case
from benchmarks.core.measure import Budget, measure, quantiles
from benchmarks.core.store import Record

PHASE = "forward_backward"


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of the power law nearest to the points."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _thread_counts() -> list[int]:
    most = torch.get_num_threads()
    return [t for t in (1, 2, 4, 8, 16, 32, 64, 128) if t < most] + [most]


def _points(axis: str, cases: Sequence[tuple[int, Case]]) -> Iterator[tuple[int, Case]]:
    """Each value of the axis with its case, the thread count set."""
    if axis != "threads":
        yield from cases
        return
    before = torch.get_num_threads()
    try:
        for count in _thread_counts():
            torch.set_num_threads(count)
            yield count, cases[0][1]
    finally:
        torch.set_num_threads(before)


def _axis(
    axis: str, cases: Sequence[tuple[int, Case]], dtype: torch.dtype, device: str, budget: Budget
) -> list[Record]:
    times: dict[str, list[dict]] = {}
    failures, work, op = [], [], cases[0][1].op
    for value, case in _points(axis, cases):
        measured = measure(case, PHASE, dtype, device, budget, ("eager",))
        failures += [(case, name, error) for name, error in measured.failures.items()]
        work.append((value, case.work(PHASE, dtype.itemsize)[0]))
        for name, seconds in measured.times.items():
            point = {"value": value, "shape": case.shape, "seconds": quantiles(seconds)}
            times.setdefault(name, []).append(point)
    identity = {"op": op, "dtype": str(dtype).removeprefix("torch."), "device": device}
    identity["phase"] = PHASE
    # A failed point leaves no curve: its slope would be that of another set of sizes.
    whole = {name: points for name, points in times.items() if len(points) == len(work)}
    records: list[Record] = [
        {"kind": "failure", **identity, "shape": c.shape, "implementation": name, "error": error}
        for c, name, error in failures
    ]
    values = [value for value, _ in work]
    for name, points in whole.items():
        medians = [point["seconds"]["median"] for point in points]
        several = len(points) > 1
        expected = -1.0 if axis == "threads" else slope(values, [flops for _, flops in work])
        records.append(
            {
                **{"kind": "scaling", **identity, "axis": axis, "implementation": name},
                "points": points,
                "slope": slope(values, medians) if several else None,
                "work_slope": expected if several else None,
            }
        )
    return records


def describe(record: Record) -> str:
    if record["kind"] == "failure":
        return f"{record['op']} {record['shape']} {record['implementation']} RED: {record['error']}"
    points = ", ".join(f"{p['value']}: {p['seconds']['median']:.3g} s" for p in record["points"])
    text = f"{record['op']} {record['axis']} {record['implementation']}: {points}"
    if record["slope"] is None:
        return text
    return f"{text}; slope {record['slope']:.2f}, work {record['work_slope']:.2f}"


def scaling(
    families: Sequence[str],
    dtype: torch.dtype,
    device: str,
    budget: Budget,
    context: Record,
    log: Callable[[str], None] = print,
) -> list[Record]:
    """One record per op, axis and implementation (genkern and eager), forward + backward."""
    records: list[Record] = []
    for family in families:
        axes = importlib.import_module(f"benchmarks.{family}").scaling()
        for axis, cases in axes.items():
            if axis == "threads" and (device != "cpu" or torch.get_num_threads() == 1):
                continue
            found = [{**r, **context} for r in _axis(axis, cases, dtype, device, budget)]
            for record in found:
                log(describe(record))
            records += found
    return records
