"""The elementary functions of the CPU kernels, at every level and at a forced vector width."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.core.helpers import machine_levels

ROOT = Path(__file__).parents[2]
FLAGS = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"]}
FLAGS["avx512"] = [*FLAGS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# The bounds that csrc/core/vecmath.h states, in ulp.
BOUNDS = {
    "exp": 1.1, "expm1": 2.0, "root": 1.1, "expm1_of_root": 2.0,
    "minus_x_of_root": 5.0, "log": 1.0, "log1p": 2.0, "sigmoid": 3.0,
    "tanh": 3.0, "quick_tanh": 6.0, "softplus": 2.0,
    "scalar_sigmoid": 3.0, "scalar_tanh": 6.0, "normal": 4.0, "conversions": 0.0,
    "counters": 0.0, "stream": 0.0, "radius": 4.0, "edges": 0.0,
}  # fmt: skip
*LOWER, BEST = machine_levels()
DEEP = [*((level, None) for level in LOWER), (BEST, 64)]
CASES = [(BEST, None), *(pytest.param(*case, marks=pytest.mark.deep) for case in DEEP)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("level, width", CASES)
def test_errors_stay_within_the_stated_ulp(level, width, tmp_path):
    flags = FLAGS[level] + ([f"-DGENKERN_VECTOR_BYTES={width}"] if width else [])
    program = tmp_path / "vecmath"
    command = ["g++", "-std=c++20", "-O2", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi"]
    command += [*flags, "-I", str(ROOT / "csrc"), str(ROOT / "tests/core/vecmath.cpp")]
    subprocess.run([*command, "-o", str(program)], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
    worst = [line.split() for line in lines if line]
    assert {name for name, _ in worst} == set(BOUNDS)
    over = [(name, float(error)) for name, error in worst if float(error) > BOUNDS[name]]
    assert not over
