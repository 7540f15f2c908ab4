"""Clock, memory and ceilings of a CUDA device. Not yet run on one."""

import time
from collections.abc import Callable
from statistics import median

import torch

COPY_BYTES = 1 << 30
CACHED_BYTES = [1 << p for p in range(20, 25)]
WARM_SECONDS = 0.3  # of work before a ceiling is taken: an idle chip runs at a lower clock


def _l2_bytes() -> int:
    # Not every release of torch tells: then that of an H100.
    return getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20)


def settle() -> None:
    """torch's caching allocator needs no help."""


def sample(call: Callable, calls: int, *, cold: bool = True) -> float:
    """Median seconds of ``calls`` calls on the device's clock, the L2 cache flushed before each."""
    flush = torch.empty(2 * _l2_bytes() if cold else 0, dtype=torch.int8, device="cuda")
    times = []
    for _ in range(calls):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return median(times)


def graph_seconds(call: Callable) -> float:
    """Seconds of ``call`` replayed from a CUDA graph: the kernels without the host."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return sample(graph.replay, 20)


def allocator_peak(call: Callable) -> int:
    """Most bytes that torch's caching allocator held for ``call``, beyond those held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del kept
    return peak


def resident_peak(call: Callable) -> None:
    """Every byte on the device is torch's."""


def _warm_up(call: Callable) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_SECONDS:
        call()
        torch.cuda.synchronize()


def _copy_rate(size: int, cold: bool) -> float:
    # Random data: zeros, which toggle no wires, run faster.
    source, target = (torch.randn(size // 4, device="cuda") for _ in range(2))
    target.copy_(source)
    best = min(sample(lambda: target.copy_(source), 1, cold=cold) for _ in range(20))
    return 2 * size / best / 1e9


def ceilings(dtype: torch.dtype) -> dict[str, float]:
    """As `cpu.ceilings`: a copy of 1 GB, the best copy within L2, the best torch.mm."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    _warm_up(lambda: torch.mm(a, b))
    best = min(sample(lambda: torch.mm(a, b), 1) for _ in range(20))
    return {
        "copy_gbs": _copy_rate(COPY_BYTES, True),
        "cached_copy_gbs": max(_copy_rate(size, False) for size in CACHED_BYTES),
        "product_gflops": 2 * n**3 / best / 1e9,
    }


def cache_bytes() -> int:
    """Size of the last-level cache."""
    return _l2_bytes()


def model() -> str:
    return torch.cuda.get_device_name()
