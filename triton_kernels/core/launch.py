"""What launchers share: the device guard, facts about the chip, checks, counters."""

import contextlib
import functools
from collections.abc import Iterator, Mapping

import torch
import triton

from genkern import spec

SMALLEST = 16  # side of a tile: what a matrix instruction takes

# Of tensors without a CUDA device: interpreted ones, and meta ones compiled ahead of time.
assumed_capability = 90
_ASSUMED_PROCESSORS = {80: 108, 90: 132, 100: 148}


def on(tensor: torch.Tensor) -> torch.cuda.device_of:
    """Makes the device of ``tensor`` current: Triton launches on the current device's stream."""
    return torch.cuda.device_of(tensor)


@functools.cache
def _properties(index: int) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(index)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def capability(tensor: torch.Tensor) -> int:
    """Compute capability of the device, times ten: 90 on an H100 or H200."""
    return _properties(tensor.get_device())[0] if tensor.is_cuda else assumed_capability


def processors(tensor: torch.Tensor) -> int:
    """Streaming multiprocessors of the device."""
    if tensor.is_cuda:
        return _properties(tensor.get_device())[1]
    return _ASSUMED_PROCESSORS.get(assumed_capability, 132)


Tiles = Mapping[tuple[str, int, int], tuple[int, ...]]


def tile(tiles: Tiles, kernel: str, tensor: torch.Tensor) -> tuple[int, ...]:
    """The kernel's tile for the chip and the element size; that of sm_80 for chips without one."""
    major, size = capability(tensor) // 10, tensor.element_size()
    return tiles.get((kernel, major, size)) or tiles[kernel, 8, size]


def extent(largest: int, size: int) -> int:
    """Side of a tile over ``size`` elements."""
    return min(largest, max(SMALLEST, triton.next_power_of_2(size)))


def float32_precision() -> str:
    """TF32 only where torch's own matrix products may use it."""
    # `allow_tf32` raises once a program has set the precision by its newer name.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


@contextlib.contextmanager
def allowing_tf32() -> Iterator[None]:
    """Float32 products of the block may use TF32: for calls that are compiled ahead of time."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def require(reason: str | None) -> None:
    """Raises what ``unsupported`` of an op says."""
    if reason is not None:
        raise RuntimeError(reason)


def programs(op: str, count: int) -> tuple[int]:
    """The grid of ``count`` programs, all on the one axis that is not limited to 65,535."""
    if count > 2**31 - 1:
        raise RuntimeError(f"{op}: needs {count} programs; a launch has at most {2**31 - 1}")
    return (count,)


def mismatch(
    op: str, name: str, tensor: torch.Tensor, others: Mapping[str, torch.Tensor | None]
) -> str | None:
    """The first of ``others`` that is not a tensor like ``tensor``: device, dtype."""
    if tensor.dtype not in spec.FLOATING:
        dtypes = ", ".join(map(spec.dtype_name, spec.FLOATING))
        return f"{op}: {name} must be one of {dtypes}; got {spec.dtype_name(tensor.dtype)}"
    for other_name, other in others.items():
        if other is None:
            continue
        if other.device != tensor.device:
            return f"{op}: {other_name} must be on {tensor.device} like {name}; got {other.device}"
        if other.dtype != tensor.dtype:
            want, got = spec.dtype_name(tensor.dtype), spec.dtype_name(other.dtype)
            return f"{op}: {other_name} must be {want} like {name}; got {got}"
    return None


def dense(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """The tensors, copied where they are not contiguous."""
    return [None if t is None else t.contiguous() for t in tensors]


_counters: dict[tuple[int, int], torch.Tensor] = {}


def counters(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` int32 zeros for kernels that leave zeros behind.

    Launches of one stream run one after another and share a buffer. A CUDA graph has its own,
    because its replays may run beside other streams.
    """
    if not tensor.is_cuda or torch.cuda.is_current_stream_capturing():
        return torch.zeros(count, dtype=torch.int32, device=tensor.device)
    key = (tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream)
    buffer = _counters.get(key)
    if buffer is None or buffer.numel() < count:
        size = max(1024, count)
        buffer = _counters[key] = torch.zeros(size, dtype=torch.int32, device=tensor.device)
    return buffer
