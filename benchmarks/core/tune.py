"""Finds the tiles of the Triton kernels on the GPU at hand and writes triton_kernels/tiles.py.

From the tile in the table, one number at a time is halved or doubled as long as that is faster: at
most some dozens of compilations a kernel. A tile counts only if its results agree with those of the
tile that it would replace. Not yet run on a GPU.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from benchmarks.core import cuda

Tile = tuple[int, ...]
Results = torch.Tensor | tuple[torch.Tensor, ...]
Call = Callable[[], Results]

SIDES, WARPS, STAGES = (16, 256), (1, 16), (1, 5)
REGISTERS = 160  # of a thread, for its part of a tile of sums
GAIN = 0.98  # what is closer than 2 % to the best is noise

# From the extents of a tile: elements of the operands in shared memory, and of the tile of sums.
FOOTPRINTS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "masked_conv2d": lambda pixels, out, read: ((pixels + out) * read, pixels * out),
    "masked_conv2d_weight": lambda pixels, out, read: (pixels * (out + read), out * read),
    "row_lstm_forward": lambda u, w, q: ((4 * u + w) * q, 4 * u * w),
    "row_lstm_backward": lambda u, w, q: ((u + w) * q, u * w),
    "row_lstm_weight": lambda rows, pixels, q: ((rows + q) * pixels, rows * q),
}


def fits(kernel: str, tile: Tile, size: int, shared_bytes: int) -> bool:
    """Whether the tile is one that the kernel can be compiled for with hope."""
    *extents, warps, stages = tile
    limits = [(x, SIDES) for x in extents] + [(warps, WARPS), (stages, STAGES)]
    if not all(low <= x <= high for x, (low, high) in limits):
        return False
    operands, sums = FOOTPRINTS[kernel.replace("_scattered", "")](*extents)
    wide = size if kernel.startswith("masked_conv2d") else max(size, 4)  # states pass in float32
    registers = sums * (2 if size == 8 else 1) / (32 * warps)
    return operands * wide * stages <= shared_bytes and registers <= REGISTERS


def neighbours(kernel: str, tile: Tile, size: int, shared_bytes: int) -> Iterator[Tile]:
    """Tiles with one number changed: extents and warps by a factor of two, stages by one.

    The convolution's weight gradient runs in the launch, and with the warps, of the input's.
    """
    is_guest = kernel.startswith("masked_conv2d") and kernel.endswith("_weight")
    for i, x in enumerate(tile[:3] if is_guest else tile):
        for changed in (x - 1, x + 1) if i == 4 else (x // 2, 2 * x):
            candidate = (*tile[:i], changed, *tile[i + 1 :])
            if fits(kernel, candidate, size, shared_bytes):
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


def convolutions(dtype: torch.dtype, N: int, C: int, side: int) -> dict[str, Call]:
    from genkern.triton_kernels import masked_conv2d

    forward, backward = masked_conv2d.LAUNCHERS.values()
    calls = {}
    for last in (True, False) if dtype.itemsize == 2 else (True,):
        layout = torch.channels_last if last else torch.contiguous_format
        shapes = (N, C, side, side), (C, C, 3, 3), (N, C, side, side)
        x, weight, d_y = (torch.randn(s).to(dtype).to(memory_format=layout) for s in shapes)
        weight = weight / math.sqrt(5 * C)
        options = (False, 1, 1, last)
        name = "masked_conv2d" if last else "masked_conv2d_scattered"
        calls[name] = partial(forward, x, weight, None, *options)
        calls[f"{name}_weight"] = partial(backward, d_y, x, weight, *options, True, True, False)
    return calls


def recurrences(dtype: torch.dtype, N: int, hidden: int, side: int) -> dict[str, Call]:
    from genkern.triton_kernels import row_lstm

    forward, backward = row_lstm.LAUNCHERS.values()
    gates = torch.randn(N, 4 * hidden, side, side).to(dtype)
    weight = (torch.randn(4 * hidden, hidden, 3) / math.sqrt(3 * hidden)).to(dtype)
    states = (None, None)
    h, *_, activated, cells = forward(gates, weight, *states, True)
    arguments = (torch.randn_like(h), None, None, weight, *states, activated, cells)
    return {
        "row_lstm_forward": partial(forward, gates, weight, *states, False),
        "row_lstm_backward": partial(backward, *arguments, True, False, False, False),
        "row_lstm_weight": partial(backward, *arguments, False, True, False, False),
    }


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
    kernel: str, call: Call, size: int, major: int, shared_bytes: int, clock: Callable
) -> tuple[Tile, dict[Tile, float]]:
    """The best tile of one kernel. A tile that fails or gives another result takes for ever."""
    from genkern.triton_kernels.core.tiles import TILES

    key = (kernel, major, size)
    start = TILES.get(key) or TILES[kernel, 8, size]
    want = call()

    def seconds(tile: Tile) -> float:
        with mock.patch.dict(TILES, {key: tile}):
            try:
                return clock(call) if agree(call(), want) else math.inf
            except Exception as error:  # whatever the compiler or the chip says to a tile
                reason = str(error).partition("\n")[0]
                print(f"{kernel} {tile}: {reason}")
                return math.inf

    return climb(start, lambda t: neighbours(kernel, t, size, shared_bytes), seconds)


def render(text: str, tiles: dict, measured: dict) -> str:
    """tiles.py with other tables below its docstring."""
    head = text[: text.index("TILES:")]
    rows = "".join(f'    ("{k}", {m}, {s}): {tiles[k, m, s]},\n' for k, m, s in sorted(tiles))
    notes = "".join(f'    ({m}, {s}): "{measured[m, s]}",\n' for m, s in sorted(measured))
    notes = f"{{\n{notes}}}" if notes else "{}"
    return (
        f"{head}TILES: dict[tuple[str, int, int], tuple[int, ...]] = {{\n{rows}}}\n"
        f"MEASURED: dict[tuple[int, int], str] = {notes}\n"
    )


def write(dtypes: list[torch.dtype]) -> None:
    """Tunes every kernel for ``dtypes`` on the current GPU and rewrites the table."""
    from genkern.triton_kernels.core import tiles

    properties = torch.cuda.get_device_properties()
    major, room = properties.major, properties.shared_memory_per_block_optin
    for dtype in dtypes:
        with torch.device("cuda"):
            calls = convolutions(dtype, 32, 128, 32) | recurrences(dtype, 132, 128, 32)
        for kernel, call in calls.items():
            arguments = (dtype.itemsize, major, room, cuda.graph_seconds)
            best, times = tune(kernel, call, *arguments)
            start = next(iter(times))
            print(f"{kernel} {dtype}: {start} {times[start]:.3g} s, {best} {times[best]:.3g} s")
            tiles.TILES[kernel, major, dtype.itemsize] = best
        note = f"{properties.name}, torch {torch.__version__}"
        tiles.MEASURED[major, dtype.itemsize] = note
    path = Path(str(tiles.__file__))
    path.write_text(render(path.read_text(), tiles.TILES, tiles.MEASURED))
    print(path)
