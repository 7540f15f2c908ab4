"""Compiles Triton kernels ahead of time, without a GPU.

    python -m tests.core.aot [--quick] gaussian,gan_loss 80 90 100

Each call of a module's `configurations()` goes through its launcher on meta tensors; Triton's own
JIT specialises the arguments, for a driver that only names a chip, and compiles instead of
launching: what is checked is what would be launched. --quick takes the first configuration of each
kernel: compiled for bfloat16, which tensor cores take, lowered to Triton's IR, where types do not
fit or they do, for float32 and float64, and left out for float16, whose code is that of bfloat16
but for the conversions. A package that takes no half precision names what is compiled instead, as
`COMPILED`. It also counts the variants that calls of different sizes need. Prints one JSON
object: capability, op, what was found.
"""

import collections
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
SIZES = range(1, 51)
TENSOR_CORES = ("mma", "wgmma", "tcgen05")
COMPILED = "*bf16"


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
    return {
        "kernel": function.__name__,
        "capability": kernel.metadata.target.arch,
        "dtype": storage_dtype(kernel.src.signature),
        "shared": kernel.metadata.shared,
        "threads": 32 * kernel.metadata.num_warps * kernel.metadata.num_ctas,
        "instructions": [i for i in TENSOR_CORES if re.search(rf"\b{i}\.", kernel.asm["ptx"])],
        "line": f"{kernel.src.signature} {kernel.src.constants}",
        **resources(kernel.asm["cubin"]),
    }


@contextlib.contextmanager
def compiling(
    capability: int, on_new: Callable[[JITFunction, str, dict, Callable], object]
) -> Iterator[list[tuple[JITFunction, object]]]:
    """Launches of the block compile for a chip, and launch nothing.

    Args:
        on_new: called with the kernel, key and signature of a variant, and what compiles it. It
            returns what that returns, or None: then the variant is one that is not there.

    Yields:
        What the launches asked for, in order: the kernel, and its variant or None.
    """
    from genkern.triton_kernels.core import launch

    run, compile_one = JITFunction.run, JITFunction._do_compile
    launched: list[tuple[JITFunction, object]] = []

    def run_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        launched.append((self, kernel))
        return kernel

    def compile_new(self, key, signature, *rest):
        compiled = functools.partial(compile_one, self, key, signature, *rest)
        return on_new(self, str(key), signature, compiled)

    driver.set_active(NamedChip(capability))
    with (
        mock.patch.object(JITFunction, "run", run_only),
        mock.patch.object(JITFunction, "_do_compile", compile_new),
        mock.patch.object(launch, "assumed_capability", capability),
    ):
        yield launched


class Lowered(Exception):
    """A kernel has passed the front end of the compiler."""


def lower(compiled: Callable) -> None:
    """As far as Triton's IR, which is where a kernel is refused for what it says."""
    add_stages = CUDABackend.add_stages

    def stop(module, metadata):
        raise Lowered

    def until_there(self, stages, *rest):
        add_stages(self, stages, *rest)
        stages["ttir"] = stop

    with (
        mock.patch.object(CUDABackend, "add_stages", until_there),
        contextlib.suppress(Lowered),
    ):
        compiled()


def dtypes_of(signature: dict) -> tuple[str, ...]:
    """Element types of what a kernel reads and writes."""
    return tuple(sorted({t for t in signature.values() if str(t).startswith("*")}))


def storage_dtype(signature: dict) -> str:
    """The dtype that a call is for: sums and options may be wider."""
    return next(t for t in ("*bf16", "*fp16", "*fp32", "*fp64") if t in dtypes_of(signature))


def variants(module: ModuleType, capability: int) -> dict[str, int]:
    """How many variants of each kernel calls ask for in which every size, batch and annealed number
    differs."""
    found: set[tuple] = set()

    def specialise_only(function, key, signature, compiled):
        found.add((function.__name__, key))

    with compiling(capability, specialise_only):
        for n in SIZES:
            for name, arguments in module.variants(n):
                module.LAUNCHERS[name](*arguments)
    return dict(collections.Counter(name for name, _ in found))


def compile_all(op: str, capability: int, quick: bool) -> dict:
    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    counts = variants(module, capability) if quick else {}  # before any of them is compiled
    seen: set[tuple] = set()
    lowered: list[tuple[str, str]] = []
    chosen = getattr(module, "COMPILED", COMPILED)

    def compile_first(function, key, signature, compiled):
        dtype = storage_dtype(signature)
        found = (function.__name__, dtype if quick else key)
        if found in seen or (quick and dtype == "*fp16"):
            return None
        seen.add(found)
        if not quick or dtype == chosen:
            return compiled()
        lowered.append((function.__name__, dtype))
        return lower(compiled)

    kernels: dict[tuple[str, str], dict] = {}
    launches: dict[str, int] = collections.defaultdict(int)
    with compiling(capability, compile_first) as launched:
        for name, arguments in module.configurations():
            launched.clear()
            module.LAUNCHERS[name](*arguments)
            launches[name] = max(launches[name], len(launched))
            for function, kernel in launched:
                if kernel is not None and (function.__name__, kernel.hash) not in kernels:
                    kernels[function.__name__, kernel.hash] = record(function, kernel)
    rooms = [m for name, m in sys.modules.items() if f"{name}.".startswith(f"{module.__name__}.")]
    declared = {n for m in rooms for n, f in vars(m).items() if isinstance(f, JITFunction)}
    # One that is in the cache on disk was not lowered but found.
    found = [k for k in kernels.values() if not quick or k["dtype"] == chosen]
    return {
        "kernels": found,
        "lowered": lowered,
        "launches": launches,
        "variants": counts,
        "declared": [n for n in declared if n.endswith("_kernel")],
    }


def compile_ops(ops: list[str], capability: int, quick: bool) -> dict[str, dict]:
    torch.set_num_threads(1)
    return {op: compile_all(op, capability, quick) for op in ops}


def main(words: list[str]) -> None:
    quick = "--quick" in words
    ops, *capabilities = [w for w in words if w != "--quick"]
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        sys.exit(
            "tests.core.aot: TRITON_INTERPRET must not be set: interpreted kernels do not compile"
        )
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # which doubles the time and changes no code
    # Triton's key covers source, specialisation, options and its own version: a kernel that has
    # not changed is not compiled again.
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).parents[2] / "build/triton"))
    chips = list(map(int, capabilities))
    if len(chips) == 1:
        found = {chips[0]: compile_ops(ops.split(","), chips[0], quick)}
    else:
        workers = min(len(chips), os.cpu_count() or 1)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            jobs = {c: pool.submit(compile_ops, ops.split(","), c, quick) for c in chips}
            found = {c: job.result() for c, job in jobs.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
