"""The search for tiles, without a GPU: candidates, climbing, what is rejected, what is written."""

import math
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

pytest.importorskip("triton")
from benchmarks import __main__ as cli
from benchmarks.core import cuda, tune
from genkern.triton_kernels.core import launch
from tests.core.test_triton_aot import SHARED_LIMIT

FAMILIES = tune.families()
DTYPES = (
    torch.bfloat16,
    *(pytest.param(dtype, marks=pytest.mark.deep) for dtype in (torch.float32, torch.float64)),
)
KEYS = [(family, *key) for family, tuning in FAMILIES.items() for key in tuning.tiles.TILES]
ROOM = 1 << 17


def some_tile():
    """A kernel of some family, all of whose numbers may change, and its tile for float32."""
    for tuning in FAMILIES.values():
        for kernel, major, size in tuning.tiles.TILES:
            if tuning.adjustable(kernel) == 5 and (major, size) == (8, 4):
                return tuning, kernel, tuning.tiles.TILES[kernel, major, size]
    raise AssertionError("no tile for float32")


@pytest.mark.parametrize("family, kernel, major, size", KEYS)
def test_tiles_of_the_tables_and_their_neighbours_fit(family, kernel, major, size):
    tuning, room = FAMILIES[family], SHARED_LIMIT[10 * major]
    tile = tuning.tiles.TILES[kernel, major, size]
    assert tune.fits(tuning, kernel, tile, size, room)
    found = list(tune.neighbours(tuning, kernel, tile, size, room))
    assert found and len(set(found)) == len(found)
    for other in found:
        assert sum(a != b for a, b in zip(tile, other, strict=True)) == 1
        assert tune.fits(tuning, kernel, other, size, room)
        assert all(x & (x - 1) == 0 for x in other[:4])


def test_tiles_that_cannot_fit_are_no_candidates():
    product = SimpleNamespace(footprint=lambda k, e, s: ((e[0] + e[1]) * e[2] * s, e[0] * e[1]))
    assert not tune.fits(product, "any", (8, 64, 32, 4, 3), 2, 1 << 20)
    assert not tune.fits(product, "any", (128, 128, 64, 8, 3), 2, 98303)
    assert tune.fits(product, "any", (128, 128, 64, 8, 3), 2, 98304)
    assert not tune.fits(product, "any", (256, 256, 16, 4, 1), 2, 1 << 20)  # registers


def test_climbing_ends_at_the_tile_that_no_neighbour_beats():
    asked = []

    def seconds(tile):
        asked.append(tile)
        goal = (128, 32, 64, 8, 2)
        return 1 + sum(abs(math.log2(x / y)) for x, y in zip(tile, goal, strict=True))

    tuning, kernel, _ = some_tile()
    around = lambda tile: tune.neighbours(tuning, kernel, tile, 2, 1 << 20)  # noqa: E731
    best, times = tune.climb((32, 32, 32, 4, 2), around, seconds)
    assert best == (128, 32, 64, 8, 2)
    assert len(asked) == len(set(asked)) == len(times) < 60
    start = (32, 32, 32, 4, 2)
    noise = lambda tile: 1.0 if tile == start else 0.99  # noqa: E731
    assert tune.climb(start, around, noise)[0] == start


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_calls_reach_the_tile_that_is_in_the_table(family, dtype):
    tuning, size = FAMILIES[family], dtype.itemsize
    calls = tuning.calls(dtype, 1, 3, 3)
    assert set(calls) == {k for k, _, s in tuning.tiles.TILES if s == size}
    for kernel, call in calls.items():
        with mock.patch.object(launch, "tile", wraps=launch.tile) as lookups:
            want = call()
        if kernel not in {c.args[1] for c in lookups.call_args_list}:
            call = tuning.calls(dtype, 1, 16, 3)[kernel]  # few channels have another tile
            with mock.patch.object(launch, "tile", wraps=launch.tile) as lookups:
                want = call()
        assert kernel in {c.args[1] for c in lookups.call_args_list}
        with mock.patch.dict(tuning.tiles.TILES, {(kernel, 9, size): (16, 16, 16, 4, 1)}):
            assert tune.agree(call(), want)


def stand_in(tiles, call):
    """A family of one kernel, whose extents are all free."""
    return SimpleNamespace(
        tiles=SimpleNamespace(TILES=tiles, MEASURED={}),
        footprint=lambda k, e, s: (1, e[0] * e[2]),
        adjustable=lambda kernel: 5,
        calls=lambda dtype: {"a_kernel": call},
    )


def test_a_tile_that_fails_or_computes_something_else_is_not_chosen(capsys):
    key, tiles = ("a_kernel", 9, 4), {("a_kernel", 8, 4): (32, 32, 32, 4, 2)}

    def call():
        *_, warps, stages = launch.tile(tiles, "a_kernel", torch.zeros(1))
        if warps == 8:
            raise RuntimeError("out of registers")
        return torch.ones(3) + (stages == 1)

    def clock(_):
        rows, *_, warps, stages = tiles[key]
        return 1.0 / (rows * (100 if warps == 8 or stages == 1 else 1))

    best, times = tune.tune(stand_in(tiles, call), "a_kernel", call, 4, 9, ROOM, clock)
    assert best == (256, 32, 32, 4, 2)
    assert sum(map(math.isinf, times.values())) >= 2
    assert "out of registers" in capsys.readouterr().out
    assert key not in tiles


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_are_rewritten_as_they_are(family):
    tiles = FAMILIES[family].tiles
    text = Path(tiles.__file__).read_text()
    assert tune.render(text, tiles.TILES, tiles.MEASURED) == text


def test_the_table_is_rewritten_and_reads_back(tmp_path, monkeypatch):
    tiles, path = {("a_kernel", 8, 4): (32, 32, 32, 4, 2)}, tmp_path / "tiles.py"
    path.write_text(tune.render('"""Words."""\n\nTILES: old', tiles, {}))
    tuning = stand_in(tiles, lambda: torch.ones(1, device="cpu"))
    tuning.tiles.__file__ = str(path)
    chip = SimpleNamespace(major=9, name="a chip", shared_memory_per_block_optin=ROOM)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: chip)
    monkeypatch.setattr(tune, "families", lambda: {"a_family": tuning})
    rows = lambda: launch.tile(tiles, "a_kernel", torch.zeros(1, device="cpu"))[0]  # noqa: E731
    monkeypatch.setattr(cuda, "graph_seconds", lambda _: 1.0 / rows())
    tune.write([torch.float32])
    names: dict = {}
    exec(path.read_text(), names)
    best = {("a_kernel", 9, 4): (256, 32, 32, 4, 2)}
    assert names["TILES"] == {("a_kernel", 8, 4): (32, 32, 32, 4, 2)} | best
    assert names["MEASURED"] == {(9, 4): f"a chip, torch {torch.__version__}"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="would tune")
def test_without_a_gpu_the_command_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tune"])
    assert stopped.value.code == 2 and "no CUDA device" in capsys.readouterr().err
