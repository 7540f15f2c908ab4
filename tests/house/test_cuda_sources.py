"""The CUDA C++ sources compile for every chip."""

import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parents[2]
CHIPS = (80, 90, 100)
NVCC = shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed: no .cu is compiled")
@pytest.mark.parametrize(
    "source", sorted((ROOT / "csrc").glob("*/*.cu")), ids=lambda p: p.parent.name
)
def test_compiles_for_every_chip(source, tmp_path):
    chips = [f"-gencode=arch=compute_{c},code=sm_{c}" for c in CHIPS]
    headers = [flag for path in include_paths() for flag in ("-isystem", path)]
    options = ["-std=c++20", "-O1", "-DTORCH_TARGET_VERSION=0x020b000000000000", "--threads=2"]
    output = tmp_path / "out.o"
    command = [NVCC, "-c", *options, *chips, *headers, str(source), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size > 0
