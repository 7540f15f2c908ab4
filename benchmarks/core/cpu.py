"""Clock, memory and ceilings of the CPU."""

import ctypes
import gc
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
SETTLING_BYTES = 31 << 20  # just below the largest threshold that glibc learns
COPY_BYTES = 256 << 20
CACHED_BYTES = [1 << p for p in range(15, 23)]


def settle() -> None:
    """Brings malloc to the state of a process that has run for a while.

    glibc returns a block of a few MB to the kernel, and its pages fault again in the next call,
    until the process has freed a larger one; without this a time depends on the cases before it.
    """
    torch.empty(SETTLING_BYTES, dtype=torch.int8)


def sample(call: Callable, calls: int) -> float:
    """Seconds of one call, from ``calls`` of them in a row."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    finally:
        if collecting:
            gc.enable()


def graph_seconds(call: Callable) -> None:
    """A CPU has no graphs to replay."""


def allocator_peak(call: Callable) -> int:
    """Most bytes that torch's CPU allocator held for ``call`` at once, beyond what was held before.

    Outputs, gradients, saved tensors, temporaries and the scratch of oneDNN count; what a library
    takes straight from malloc does not.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    del kept
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _resident(name: str) -> int:
    return 1024 * int(re.search(rf"^{name}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)[1])


def resident_peak(call: Callable) -> int | None:
    """Growth of the process's resident memory while ``call`` runs: the check on `allocator_peak`.

    It sees every buffer, malloc's too, but not one that reuses pages which stayed resident.
    """
    if sys.platform != "linux":
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text("5")  # resets the high-water mark to the present size
    before = _resident("VmRSS")
    kept = call()
    after = _resident("VmHWM")
    del kept
    return max(0, after - before)


def _best(call: Callable, seconds: float = 0.4) -> float:
    call()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        times.append(sample(call, 1))
    return min(times)


def _copy_rate(size: int) -> float:
    source, target = torch.ones(size // 4), torch.ones(size // 4)
    calls = max(1, (4 << 20) // size)

    def copies():
        for _ in range(calls):
            target.copy_(source)

    return 2 * size * calls / _best(copies, 0.1 if calls > 1 else 0.4) / 1e9


def _product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of the best library product: a square torch.mm, or a 3x3 convolution."""
    n, C = 768, 256  # some milliseconds: short enough to miss what else the machine does
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    x, w = torch.randn(1, C, 30, 30).to(dtype), torch.randn(C, C, 3, 3).to(dtype)
    with torch.no_grad():
        mm = 2 * n**3 / _best(lambda: torch.mm(a, b))
        conv = 2 * 28 * 28 * C * C * 9 / _best(lambda: F.conv2d(x, w))
    return max(mm, conv) / 1e9


def ceilings(dtype: torch.dtype) -> dict[str, float]:
    """Rates that no kernel passes, best of several trials.

    ``copy_gbs`` and ``cached_copy_gbs`` count bytes read and written, of a copy of 256 MB and of
    the best copy that stays in a cache; ``product_gflops`` is the best library product.
    """
    # Without bf16 instructions a half-precision kernel still computes at the float32 rate.
    dtypes = {dtype, torch.float32} if dtype.itemsize < 4 else {dtype}
    return {
        "copy_gbs": _copy_rate(COPY_BYTES),
        "cached_copy_gbs": max(_copy_rate(size) for size in CACHED_BYTES),
        "product_gflops": max(_product_rate(d) for d in dtypes),
    }


def cache_bytes() -> int:
    """Size of the last-level cache."""
    return int(CACHE.read_text().strip().rstrip("K")) * 1024 if CACHE.exists() else 32 << 20


def model() -> str:
    """With family and model: a virtual machine may hide what generation its CPU is."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
        return found[1] if found else "unknown"

    return f"{field('model name')} (family {field('cpu family')}, model {field('model')})"
