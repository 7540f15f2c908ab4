"""What importing genkern does to a process, and what it says there: two processes in all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import genkern.__main__
from genkern import library
from tests.core.samples import stems

ROOT = Path(__file__).parents[2]


def python(*arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_quiet_and_what_is_missing_is_one_sentence():
    family = stems()[0]
    found = json.loads(python("tests.house.fresh", family))
    levels, backends = "baseline, avx2, avx512", "reference, cpu, triton, cuda"
    assert found["wrong settings"] == [
        f"GENKERN_CPU_ISA must be one of {levels}; got 'x'",
        f"GENKERN_BACKEND must be one of {backends}; got 'x'",
    ]
    assert found["settings kept"]  # generator, threads, default dtype
    assert found["modules of triton"] == [] and not found["CUDA initialised"]
    reason = "the package 'triton' is not installed"
    assert found["without triton"] == {
        "reason": reason,
        "chosen": ["reference", "reference"],
        "warnings": [f"genkern: {family} runs on its PyTorch reference: {reason}"],
    }
    if found["compiled"]:
        assert found["backend"] == "cpu"
        assert found["threads"] == ([0, 2] if Path("/proc/self/task").exists() else [None, None])
    without = found["without"]
    (warning,) = without["warnings"]
    assert warning.startswith(f"RuntimeWarning: genkern: {family} runs on its PyTorch reference: ")
    assert without["backend"] == "reference"
    assert "built: none; none loaded: " in without["report"]
    rows = [line.split() for line in without["report"].splitlines() if line.startswith(family)]
    assert rows[0][1:4] == ["available", "no", "(1)"]
    assert "(1) the compiled part is missing (" in without["report"]


def test_the_environment_chooses_level_backend_and_threads():
    chosen = {"GENKERN_CPU_ISA": "baseline", "GENKERN_BACKEND": "reference", "OMP_NUM_THREADS": "1"}
    info = json.loads(python("genkern", "--json", **chosen))
    if library.compiled is not None:
        assert info["loaded"] == "baseline"
    assert info["cpu_level"] == info["GENKERN_CPU_ISA"] == "baseline"
    assert info["GENKERN_BACKEND"] == "reference" and info["threads"] == 1
    assert set(info["built"]) <= set(library.LEVELS) and set(info["backends"]) == set(stems())
    if not info["cuda_devices"]:
        assert {b["triton"] for b in info["backends"].values()} == {"no CUDA device"}
    text = genkern.__main__.report(info)
    assert "GENKERN_CPU_ISA = baseline" in text and "reference (GENKERN_BACKEND)" in text
