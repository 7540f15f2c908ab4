"""Stage 5: compute-sanitizer over small calls of every kernel. It slows them down many times: in a
run of all stages it may not finish."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.kit import Item, Setting, Skipped

TOOLS = ("memcheck", "racecheck")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")


def items(setting: Setting) -> Iterator[Item]:
    for tool in TOOLS:
        yield Item(tool, lambda tool=tool: _run(setting, tool))


def _run(setting: Setting, tool: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    found = shutil.which("compute-sanitizer", path=path)
    if found is None:
        raise Skipped("compute-sanitizer is not there")
    log = setting.out / f"sanitizer-{tool}.log"
    command = [found, "--tool", tool, "--error-exitcode", "9", "--log-file", str(log)]
    command += [sys.executable, "-m", "tests.gpu.sanitized", ",".join(setting.families)]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # tensors have their bounds
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0 or "finished" not in result.stdout:
        said = Path(log).read_text() if log.exists() else ""
        raise AssertionError(
            f"exit status {result.returncode}\n{result.stderr[-2000:]}\n{said[:4000]}"
        )
