"""Finds the tiles of the Triton kernels on the GPU at hand and writes them into the families'
`tiles.py`.

From the tile in the table, one number at a time is halved or doubled as long as that is faster: at
most some dozens of compilations a kernel. A tile counts only if its results agree with those of the
tile that it would replace. Not yet run on a GPU.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch

from benchmarks.core import cuda

Tile = tuple[int, ...]
Results = torch.Tensor | tuple[torch.Tensor, ...]
Call = Callable[[], Results]

SIDES, WARPS, STAGES = (16, 256), (1, 16), (1, 5)
REGISTERS = 160  # of a thread, for its part of a tile of sums
GAIN = 0.98  # what is closer than 2 % to the best is noise


def families() -> dict[str, ModuleType]:
    """What the families with tiles say of them: their modules `tuning`."""
    from genkern import triton_kernels

    names = [m.name for m in pkgutil.iter_modules(triton_kernels.__path__) if m.ispkg]
    modules = {n: importlib.import_module(f"genkern.triton_kernels.{n}") for n in names}
    tiled = [n for n in names if any(m.name == "tuning" for m in pkgutil.iter_modules(
        modules[n].__path__))]  # fmt: skip
    return {n: importlib.import_module(f"genkern.triton_kernels.{n}.tuning") for n in tiled}


def fits(tuning: ModuleType, kernel: str, tile: Tile, size: int, shared_bytes: int) -> bool:
    """Whether the tile is one that the kernel can be compiled for with hope."""
    *extents, warps, stages = tile
    limits = [(x, SIDES) for x in extents] + [(warps, WARPS), (stages, STAGES)]
    if not all(low <= x <= high for x, (low, high) in limits):
        return False
    operand_bytes, sums = tuning.footprint(kernel, extents, size)
    registers = sums * (2 if size == 8 else 1) / (32 * warps)
    return operand_bytes * stages <= shared_bytes and registers <= REGISTERS


def neighbours(
    tuning: ModuleType, kernel: str, tile: Tile, size: int, shared_bytes: int
) -> Iterator[Tile]:
    """Tiles with one number changed: extents and warps by a factor of two, stages by one."""
    for i, x in enumerate(tile[: tuning.adjustable(kernel)]):
        for changed in (x - 1, x + 1) if i == 4 else (x // 2, 2 * x):
            candidate = (*tile[:i], changed, *tile[i + 1 :])
            if fits(tuning, kernel, candidate, size, shared_bytes):
                yield candidate


def climb(
    tile: Tile, around: Callable[[Tile], Iterator[Tile]], seconds: Callable[[Tile], float]
) -> tuple[Tile, dict[Tile, float]]:
    """The tile that no neighbour beats, and the time of every tile on the way."""
    times = {tile: seconds(tile)}
    while True:
        for candidate in around(tile):
            if candidate not in times:
                times[candidate] = seconds(candidate)
        best = min(times, key=lambda t: times[t])
        if best == tile or times[best] > GAIN * times[tile]:
            return tile, times
        tile = best


def agree(got: Results, want: Results) -> bool:
    """Equal but for the order of sums."""
    if isinstance(got, torch.Tensor):
        got, want = (got,), (want,)
    for a, b in zip(got, want, strict=True):
        largest = b.abs().max().item() if b.numel() else 0.0
        tolerance = {2: 0.1, 4: 1e-3, 8: 1e-10}[a.element_size()]
        if not (a - b).abs().le(tolerance * largest).all():
            return False
    return True


def tune(
    tuning: ModuleType,
    kernel: str,
    call: Call,
    size: int,
    major: int,
    shared_bytes: int,
    clock: Callable,
) -> tuple[Tile, dict[Tile, float]]:
    """The best tile of one kernel. A tile that fails or gives another result takes for ever."""
    tiles = tuning.tiles.TILES
    key = (kernel, major, size)
    start = tiles.get(key) or tiles[kernel, 8, size]
    want = call()

    def seconds(tile: Tile) -> float:
        with mock.patch.dict(tiles, {key: tile}):
            try:
                return clock(call) if agree(call(), want) else math.inf
            except Exception as error:  # whatever the compiler or the chip says to a tile
                reason = str(error).partition("\n")[0]
                print(f"{kernel} {tile}: {reason}")
                return math.inf

    return climb(start, lambda t: neighbours(tuning, kernel, t, size, shared_bytes), seconds)


def render(text: str, tiles: dict, measured: dict) -> str:
    """A `tiles.py` with other tables below its docstring."""
    head = text[: text.index("TILES:")]
    rows = "".join(f'    ("{k}", {m}, {s}): {tiles[k, m, s]},\n' for k, m, s in sorted(tiles))
    notes = "".join(f'    ({m}, {s}): "{measured[m, s]}",\n' for m, s in sorted(measured))
    notes = f"{{\n{notes}}}" if notes else "{}"
    return (
        f"{head}TILES: dict[tuple[str, int, int], tuple[int, ...]] = {{\n{rows}}}\n"
        f"MEASURED: dict[tuple[int, int], str] = {notes}\n"
    )


def found(
    tuning: ModuleType, dtype: torch.dtype, kernels: Sequence[str] = ()
) -> Iterator[tuple[str, Tile, Tile, dict[Tile, float]]]:
    """(kernel, tile before, best tile, seconds of each tile tried), which it puts into the table.

    The table notes the chip once all kernels of the dtype, or those asked for, are measured.
    """
    properties = torch.cuda.get_device_properties(0)
    # Absent from some releases of torch: the least of the chips that the kernels are built for.
    room = getattr(properties, "shared_memory_per_block_optin", 163 * 1024)
    tiles, size = tuning.tiles, dtype.itemsize
    with torch.device("cuda"):
        calls = tuning.calls(dtype)
    for kernel, call in calls.items():
        if kernels and kernel not in kernels:
            continue
        arguments = (kernel, call, size, properties.major, room, cuda.graph_seconds)
        best, times = tune(tuning, *arguments)
        tiles.TILES[kernel, properties.major, size] = best
        yield kernel, next(iter(times)), best, times
    tiles.MEASURED[properties.major, size] = f"{properties.name}, torch {torch.__version__}"


def write(dtypes: Sequence[torch.dtype]) -> None:
    """Tunes every kernel for ``dtypes`` on the current GPU and rewrites the tables."""
    for tuning in families().values():
        for dtype in dtypes:
            for kernel, start, best, times in found(tuning, dtype):
                print(f"{kernel} {dtype}: {start} {times[start]:.3g} s, {best} {times[best]:.3g} s")
        path = Path(str(tuning.tiles.__file__))
        path.write_text(render(path.read_text(), tuning.tiles.TILES, tuning.tiles.MEASURED))
        print(path)
