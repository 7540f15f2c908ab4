"""`make gpu` without a GPU: refusals, limits, what is left of a run that is cut short."""

import ast
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.gpu import __main__ as command
from tests.gpu import journal, properties, report, stage, table
from tests.gpu.kit import material
from tests.gpu.table import ROOT

# Without the samples: they are what the contract is tested on.
OPS = [
    (family, op)
    for family in table.families()
    for op in material(family).calls
    if not op.startswith(f"{family}, ")
]


def gpu(*words: str, **options) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "tests.gpu", *words]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=400, **options)


# ---- the selection, and the time -------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run")
def test_without_a_gpu_it_ends_with_one_sentence(tmp_path):
    start = time.monotonic()
    found = gpu("--out", str(tmp_path / "out"))
    assert time.monotonic() - start < 10
    assert found.returncode == 3 and found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith("make gpu: no CUDA device here (")
    assert not (tmp_path / "out").exists()


def test_unknown_stages_and_families_list_the_valid_ones():
    found = gpu("--stages", "2,9")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "make gpu: STAGES: must be of 1 (compiling), 2 (correctness), 3 (timing), 4 (properties), "
        "5 (sanitizer), 6 (tiles); got '9'"
    ]
    found = gpu("--families", "nothing")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line == f"make gpu: FAMILIES: must be of {', '.join(table.families())}; got 'nothing'"


@pytest.mark.parametrize("words", ["", "1,2,3", "4", "timing, 6", "6,1"])
def test_stages_run_in_order_and_their_limits_add_up_to_at_most_300_s(words):
    stages = table.chosen_stages(words)
    assert sum(s.seconds for s in stages) <= table.STAGE_SECONDS + 1e-6 < table.TOTAL_SECONDS
    numbers = [s.number for s in stages]
    assert numbers == sorted(set(numbers)) and stages
    # Who is alone has all of the time.
    assert len(stages) > 1 or stages[0].seconds == pytest.approx(table.STAGE_SECONDS)
    for one in stages:
        assert 0 < one.item_seconds <= one.seconds
        assert hasattr(importlib.import_module(f"tests.gpu.{one.name}"), "items")


def test_the_command_itself_imports_no_torch():
    """So that it refuses at once, and starts no CUDA beside that of its stages."""
    for name in ("__main__", "journal", "report", "table"):
        tree = ast.parse((ROOT / f"tests/gpu/{name}.py").read_text())
        found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        found |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        ours = {n for n in found if n.startswith("tests")}
        assert ours <= {"tests.gpu", "tests.gpu.journal", "tests.gpu.table"}, name
        assert not {n for n in found if n.split(".")[0] in ("torch", "genkern", "triton")}, name


# ---- stages that crash, hang and are cut short -----------------------------------------------

# A stage without torch: an item an argument, which passes, fails, crashes, hangs or lasts.
FAKE = """
import os, pathlib, sys, time
from tests.gpu.journal import FAILED, PASSED, STARTED, Journal
lines = Journal(pathlib.Path(sys.argv[1]) / "fake.jsonl")
known = lines.items()
for word in sys.argv[2:]:
    if word in known:
        continue
    lines.write(word, STARTED)
    kind = word.partition("-")[0]
    if kind == "crash":
        os.abort()
    time.sleep({"hang": 600, "slow": 0.5}.get(kind, 0.0))
    error = {"error": chr(10).join(f"line {i}" for i in range(30))} if kind == "fail" else {}
    lines.write(word, FAILED if error else PASSED, seconds=0.0, **error)
"""


def run_fake(out: Path, *items: str, seconds=20.0, item_seconds=1.5) -> tuple[str, dict]:
    fake = table.Stage(1, "fake", seconds, item_seconds, "a stand-in")
    state = command.run_stage(fake, [sys.executable, "-c", FAKE, str(out), *items], "cpu", out)
    lines = journal.Journal(out / "fake.jsonl")
    written = report.Report(out / "report.json", {}, [fake])
    written.add(fake, state, 1.0, lines)
    return state, json.loads((out / "report.json").read_text())["stages"][0]


def outcomes(record: dict) -> dict[str, str]:
    return {name: item["outcome"] for name, item in record["items"].items()}


def test_after_a_crash_and_a_hanging_item_the_stage_goes_on_behind_them(tmp_path):
    state, record = run_fake(tmp_path, "a", "crash-1", "b", "hang-1", "fail-1", "c")
    assert state == "finished"
    assert outcomes(record) == {
        "a": "passed", "crash-1": "crashed", "b": "passed", "hang-1": "hung", "fail-1": "failed",
        "c": "passed",
    }  # fmt: skip
    assert record["counts"] == {"passed": 3, "crashed": 1, "hung": 1, "failed": 1}
    assert not report.is_green(record)
    assert "exit status -6" in record["items"]["crash-1"]["error"]


def test_at_its_limit_a_stage_is_stopped_and_keeps_what_it_has_said(tmp_path):
    start = time.monotonic()
    state, record = run_fake(tmp_path, "a", "slow-1", "hang-1", seconds=4.0, item_seconds=60.0)
    assert state == "cut short" and time.monotonic() - start < 12
    assert outcomes(record) == {"a": "passed", "slow-1": "passed", "hang-1": "cut short"}
    assert not report.is_green(record)


def test_a_stage_that_dies_before_its_first_item_is_not_tried_for_ever(tmp_path):
    fake = table.Stage(1, "fake", 20.0, 2.0, "a stand-in")
    program = [sys.executable, "-c", "raise SystemExit('no such kernel')"]
    assert command.run_stage(fake, program, "cpu", tmp_path) == "stopped with exit status 1"
    (item,) = journal.Journal(tmp_path / "fake.jsonl").items().values()
    assert item["outcome"] == "crashed" and "no such kernel" in item["error"]


def test_the_first_failure_is_told_in_ten_lines(tmp_path):
    _, record = run_fake(tmp_path, "a", "fail-1", "fail-2")
    first, *rest = report.describe(record).splitlines()
    assert first.startswith("stage 1 fake: 1 passed, 2 failed; finished after")
    assert len(rest) == report.ERROR_LINES
    assert rest[0] == "  first: fail-1: failed" and rest[1].strip() == "line 0"


def test_an_error_says_its_cause_first_and_no_pages_of_tensors():
    def fail():
        try:
            raise ValueError("the cause")
        except ValueError as cause:
            raise RuntimeError("\n".join(map(str, range(100)))) from cause

    with pytest.raises(RuntimeError) as caught:
        fail()
    caught.value.add_note("\n".join(map(str, range(1000))))
    lines = stage.short(caught.value).splitlines()
    assert lines[:2] == ["ValueError: the cause", "RuntimeError: 0"] and "99" in lines
    assert len(lines) < 30 and any(line.endswith(" in fail") for line in lines)


def test_a_line_that_was_cut_short_is_not_read(tmp_path):
    lines = journal.Journal(tmp_path / "x.jsonl")
    lines.write("a", journal.STARTED)
    with lines.path.open("a") as file:
        file.write('{"item": "a", "outc')
    assert lines.open_item() is not None
    lines.close(journal.CRASHED, "killed")
    assert lines.items()["a"]["outcome"] == journal.CRASHED and lines.open_item() is None


# ---- what the families give ------------------------------------------------------------------


@pytest.mark.parametrize("family, op", OPS)
def test_the_calls_of_stage_2_hold_on_the_cpu(family, op):
    call = material(family).calls[op]
    for dtype in (torch.float32, torch.bfloat16):
        call(dtype)


@pytest.mark.parametrize("family", table.families())
def test_every_family_has_something_for_the_first_stages(family):
    found = material(family)
    assert found.headlines() or found.timings
    assert found.calls or list(properties.property_tests(family))


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/*/gpu.py")))
def test_what_a_family_adds_is_known_to_the_stages(path):
    """A misspelt name would be nothing that anybody asks for."""
    names = set(re.findall(r"^([A-Z]{2,}) = ", path.read_text(), re.MULTILINE))
    assert names and names <= {"CALLS", "CHECKS", "STEPS", "LARGE", "TIMINGS"}


# ---- on the stand-in -------------------------------------------------------------------------


@pytest.mark.deep
def test_the_stages_on_interpreted_kernels(tmp_path):
    found = gpu(
        "--stand-in", "--families", "gaussian", "--stages", "1,2,3,4", "--out", str(tmp_path)
    )
    assert found.returncode == 0, found.stdout + found.stderr
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["complete"] and written["versions"]["torch"] == torch.__version__
    assert [s["name"] for s in written["stages"]] == [s.name for s in table.STAGES[:4]]
    for record in written["stages"]:
        assert record["state"] == "finished" and record["counts"]["passed"] > 0
        assert all(item["seconds"] >= 0 for item in record["items"].values())
    _, _, timing, _ = written["stages"]
    rows = [r for i in timing["items"].values() for r in i.get("measured", ())]
    assert {"genkern", "eager"} <= {r["implementation"] for r in rows}
    assert all(r["percent_of_ceiling"] > 0 for r in rows)


@pytest.mark.deep
def test_a_run_that_is_killed_has_said_what_it_knew(tmp_path):
    words = ["--stand-in", "--families", "gaussian", "--stages", "1,2", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "tests.gpu", *words], cwd=ROOT)
    lines = journal.Journal(tmp_path / "correctness.jsonl")
    end = time.monotonic() + 300
    while lines.open_item() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = json.loads((tmp_path / "report.json").read_text())
    assert [s["name"] for s in written["stages"]] == ["compiling"] and not written["complete"]
    assert written["stages"][0]["state"] == "finished"
    at = len(lines.items())
    assert at >= 1
    time.sleep(5)
    assert len(lines.items()) == at  # the stage has died with the command
