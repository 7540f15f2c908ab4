"""The CUDA C++ kernel of row_lstm without a GPU: host threads run its text."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def emulate(include: Path, program: Path, *flags: str) -> subprocess.CompletedProcess:
    """The kernel on host threads; sources of ``include`` come first."""
    command = ["g++", "-std=c++20", "-O1", "-pthread", "-Wno-unknown-pragmas", *flags]
    command += [f"-I{include}", f"-I{ROOT / 'csrc'}", str(ROOT / "tests/row_lstm/emulation.cpp")]
    built = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    if "-ltsan" in built.stderr or "libtsan" in built.stderr:
        pytest.skip("g++ came without libtsan, a package of its own on some systems: no race check")
    assert built.returncode == 0, built.stderr
    return subprocess.run([program], capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="values"),
        pytest.param(("-fsanitize=thread", "-g"), id="races", marks=pytest.mark.deep),
    ],
)
def test_the_kernel_on_host_threads(flags, tmp_path):
    result = emulate(tmp_path, tmp_path / "emulation", *flags)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-5


BARRIERS = ["cluster.sync();  // every slot is cleared", "cluster.sync();  // the row is complete"]


@pytest.mark.deep
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("barrier", BARRIERS)
def test_the_emulation_sees_a_missing_barrier(barrier, tmp_path):
    kernel = (ROOT / "csrc/row_lstm/cuda_kernel.h").read_text()
    assert kernel.count(barrier) == 1
    without = kernel.replace(barrier, barrier.partition(";  ")[2])
    (tmp_path / "row_lstm").mkdir()
    (tmp_path / "row_lstm/cuda_kernel.h").write_text(
        without.replace('"cell.h"', '"row_lstm/cell.h"')
    )
    result = emulate(tmp_path, tmp_path / "emulation", "-fsanitize=thread", "-g")
    assert "data race" in result.stderr
