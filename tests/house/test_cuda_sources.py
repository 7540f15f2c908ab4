"""The CUDA C++ sources compile: for one chip here, for all in the deep tier."""

import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parents[2]
CHIPS = [90, pytest.param(80, marks=pytest.mark.deep), pytest.param(100, marks=pytest.mark.deep)]
NVCC = shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed: no .cu is compiled")
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(
    "source", sorted((ROOT / "csrc").glob("*/*.cu")), ids=lambda p: p.parent.name
)
def test_compiles(source, chip, tmp_path):
    headers = [flag for path in include_paths() for flag in ("-isystem", path)]
    options = ["-std=c++20", "-O1", "-DTORCH_TARGET_VERSION=0x020b000000000000", f"-arch=sm_{chip}"]
    output = tmp_path / "out.o"
    command = [NVCC, "-c", *options, *headers, str(source), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size > 0
