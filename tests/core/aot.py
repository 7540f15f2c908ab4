"""Compiles every Triton kernel of one op ahead of time, without a GPU.

    python -m tests.core.aot gaussian 80 90 100

Each call of the module's `configurations()` goes through its launcher on meta tensors; Triton's own
JIT specialises the arguments, for a driver that only names a chip, and compiles instead of
launching: what is checked is what would be launched. Prints one JSON object.
"""

import collections
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
TENSOR_CORES = ("mma", "wgmma", "tcgen05")


class NamedChip:
    """As much of a Triton driver as compiling asks for; the chip stands for the device index."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes that it stores to local memory: spills and arrays."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def run(*command):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage = run(TOOLS / "cuobjdump", "--dump-resource-usage", file.name)
        found = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
        spills = 0
        if found["STACK"] + found["LOCAL"]:  # also the frame of a call, say of a division
            code = run(TOOLS / "nvdisasm", "-c", file.name)
            widths = re.findall(r"\bSTL(?:\.(64|128))?\s", code)
            spills = sum(int(width or 32) // 8 for width in widths)
    return {"registers": found["REG"], "spills": spills}


def record(function: JITFunction, kernel) -> dict:
    dtypes = sorted({t for t in kernel.src.signature.values() if t.startswith("*")})
    return {
        "kernel": function.__name__,
        "capability": kernel.metadata.target.arch,
        "dtypes": dtypes,
        "shared": kernel.metadata.shared,
        "threads": 32 * kernel.metadata.num_warps * kernel.metadata.num_ctas,
        "instructions": [i for i in TENSOR_CORES if re.search(rf"\b{i}\.", kernel.asm["ptx"])],
        "line": f"{kernel.src.signature} {kernel.src.constants}",
        **resources(kernel.asm["cubin"]),
    }


def compile_all(op: str, capability: int) -> dict:
    from genkern.triton_kernels.core import launch

    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    launch.assumed_capability = capability
    driver.set_active(NamedChip(capability))
    kernels: dict[tuple[str, str], dict] = {}
    launched = 0
    original = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        nonlocal launched
        launched += 1
        kernel = original(self, *args, grid=grid, warmup=True, **kwargs)
        if (self.__name__, kernel.hash) not in kernels:
            kernels[self.__name__, kernel.hash] = record(self, kernel)
        return kernel

    JITFunction.run = compile_only
    launches: dict[str, int] = collections.defaultdict(int)
    calls = 0
    for name, arguments in module.configurations():
        launched = 0
        module.LAUNCHERS[name](*arguments)
        launches[name] = max(launches[name], launched)
        calls += 1
    declared = [n for n, f in vars(module).items() if isinstance(f, JITFunction)]
    return {
        "kernels": list(kernels.values()),
        "launches": launches,
        "calls": calls,
        "declared": [n for n in declared if n.endswith("_kernel")],
    }


def main(op: str, *capabilities: str) -> None:
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        sys.exit(
            "tests.core.aot: TRITON_INTERPRET must not be set: interpreted kernels do not compile"
        )
    torch.set_num_threads(1)
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # which doubles the time and changes no code
    # Triton's key covers source, specialisation, options and its own version: a kernel that has
    # not changed is not compiled again.
    os.environ["TRITON_CACHE_DIR"] = str(Path(__file__).parents[2] / "build/triton")
    with ProcessPoolExecutor(max_workers=min(len(capabilities), os.cpu_count() or 1)) as pool:
        jobs = {c: pool.submit(compile_all, op, int(c)) for c in capabilities}
        json.dump({c: job.result() for c, job in jobs.items()}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
