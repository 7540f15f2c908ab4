"""Stage 3: what the ops reach: seconds, and per cent of the ceilings measured in the same run.

First the headline cases of all ops in bfloat16 and float32 against eager and the library, then with
torch.compile, then every other case. A figure stands only beside results that are right.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.core import store
from benchmarks.core.case import Case, all_cases
from benchmarks.core.measure import Budget, Ceilings, measure
from benchmarks.core.run import describe, records_of
from tests.gpu.kit import Item, Setting, material, on_device

DTYPES = (torch.bfloat16, torch.float32)
BUDGET = Budget(seconds=0.25, fewest=5, most=30, sample_seconds=1e-3)
STAND_IN = Budget(seconds=0.0, fewest=1, most=1, sample_seconds=0.0)
LIBRARY, COMPILE = ("eager", "library"), ("eager", "compile", "library")


def items(setting: Setting) -> Iterator[Item]:
    ceilings: dict[torch.dtype, Ceilings] = {}
    for dtype in DTYPES:
        yield Item(f"ceilings {_name(dtype)}", partial(_ceilings, setting, ceilings, dtype))
    more = [
        Item(f"{family}: {name}", partial(_timed, setting, call))
        for family in setting.families for name, call in material(family).timings.items()
    ]  # fmt: skip
    for case, phase, dtype, against in _order(setting):
        while more and against != LIBRARY:  # after the headlines
            yield more.pop(0)
        words = f"{case.label} {phase} {_name(dtype)}"
        name = f"{words} with torch.compile" if "compile" in against else words
        yield Item(name, partial(_measure, setting, ceilings, case, phase, dtype, against))
    yield from more


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _order(setting: Setting) -> Iterator[tuple[Case, str, torch.dtype, tuple[str, ...]]]:
    every = [case for case in all_cases() if case.family in setting.families]
    if setting.device != "cuda":  # the smallest one, once
        every = [case for case in every if not case.overhead]  # no op there, hence no floor
        for case in sorted(every, key=lambda case: case.elements[0])[:1]:
            yield case, case.phases[0], torch.float32, ("eager",)
        return
    headlines = [case for family in setting.families for case in material(family).headlines()]
    phases = ("forward_backward", "forward")
    for against, cases in ((LIBRARY, headlines), (COMPILE, headlines), (LIBRARY, every)):
        for phase in phases:
            for dtype in DTYPES:
                for case in cases:
                    compiled = "compile" not in against or phase in case.compiled_phases
                    if phase in case.phases and compiled:
                        yield case, phase, dtype, against


def _timed(setting: Setting, call: Callable[[Setting], dict]) -> dict:
    torch.manual_seed(0)
    with on_device(setting), torch.no_grad():
        return call(setting)


def _ceilings(setting: Setting, found: dict, dtype: torch.dtype) -> dict[str, float]:
    found[dtype] = Ceilings(setting.device, dtype)
    return dict(found[dtype].rates)


def _measure(
    setting: Setting,
    ceilings: dict,
    case: Case,
    phase: str,
    dtype: torch.dtype,
    against: tuple[str, ...],
) -> dict:
    if dtype not in ceilings:  # the process before this one has measured them
        _ceilings(setting, ceilings, dtype)
    budget = BUDGET if setting.device == "cuda" else STAND_IN
    with on_device(setting), torch.device("cpu"):  # where a case draws its inputs
        measured = measure(case, phase, dtype, setting.device, budget, against)
    context = store.context(setting.device, "make gpu")
    records = records_of(case, phase, dtype, setting.device, measured, ceilings[dtype], context)
    with (setting.out / f"{_name(dtype)}.jsonl").open("a") as file:
        file.write("".join(f"{store.json.dumps(record)}\n" for record in records))
    print(describe(records), flush=True)
    if "genkern" in measured.failures:
        raise AssertionError(measured.failures["genkern"])
    rows = [_row(r, ceilings[dtype]) for r in records if r["kind"] == "timing"]
    return {"measured": rows, "failures": measured.failures}


def _row(record: dict, ceilings: Ceilings) -> dict:
    """What the report shows of one implementation."""
    keys = ("implementation", "graph_seconds", "percent_of_ceiling", "bound", "gbs", "gflops")
    row = {key: record[key] for key in keys} | {"seconds": record["seconds"]["median"]}
    if record["graph_seconds"]:  # the kernels, without the host
        limit, _ = ceilings.limit(record["flops"], record["bytes"])
        row["graph_percent_of_ceiling"] = 100 * limit / record["graph_seconds"]
    return row
