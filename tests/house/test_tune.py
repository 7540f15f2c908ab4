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
from genkern.triton_kernels.core import launch, tiles
from tests.core.test_triton_aot import SHARED_LIMIT

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@pytest.mark.parametrize("key", tiles.TILES)
def test_tiles_of_the_table_and_their_neighbours_fit(key):
    kernel, major, size = key
    tile, room = tiles.TILES[key], SHARED_LIMIT[10 * major]
    assert tune.fits(kernel, tile, size, room)
    found = list(tune.neighbours(kernel, tile, size, room))
    assert found and len(set(found)) == len(found)
    for other in found:
        assert sum(a != b for a, b in zip(tile, other, strict=True)) == 1
        assert tune.fits(kernel, other, size, room)
        assert all(x & (x - 1) == 0 for x in other[:4])


def test_tiles_that_cannot_fit_are_no_candidates():
    assert not tune.fits("masked_conv2d", (8, 64, 32, 4, 3), 2, 1 << 20)
    assert not tune.fits("masked_conv2d", (128, 128, 64, 8, 3), 2, 98303)
    assert tune.fits("masked_conv2d", (128, 128, 64, 8, 3), 2, 98304)
    assert not tune.fits("masked_conv2d", (256, 256, 16, 4, 1), 2, 1 << 20)  # registers


def test_climbing_ends_at_the_tile_that_no_neighbour_beats():
    asked = []

    def seconds(tile):
        asked.append(tile)
        goal = (128, 32, 64, 8, 2)
        return 1 + sum(abs(math.log2(x / y)) for x, y in zip(tile, goal, strict=True))

    around = lambda tile: tune.neighbours("row_lstm_weight", tile, 2, 1 << 20)  # noqa: E731
    best, times = tune.climb((32, 32, 32, 4, 2), around, seconds)
    assert best == (128, 32, 64, 8, 2)
    assert len(asked) == len(set(asked)) == len(times) < 60
    start = (32, 32, 32, 4, 2)
    noise = lambda tile: 1.0 if tile == start else 0.99  # noqa: E731
    assert tune.climb(start, around, noise)[0] == start


@pytest.mark.parametrize("dtype", DTYPES)
def test_calls_reach_the_tile_that_is_in_the_table(dtype):
    calls = tune.convolutions(dtype, 1, 16, 3) | tune.recurrences(dtype, 1, 3, 3)
    size = dtype.itemsize
    assert {k.replace("_scattered", "") for k in calls} == set(tune.FOOTPRINTS)
    for kernel, call in calls.items():
        with mock.patch.object(launch, "tile", wraps=launch.tile) as lookups:
            want = call()
        assert kernel in {c.args[0] for c in lookups.call_args_list}
        with mock.patch.dict(tiles.TILES, {(kernel, 9, size): (16, 16, 16, 4, 1)}):
            assert tune.agree(call(), want)


def test_a_tile_that_fails_or_computes_something_else_is_not_chosen(capsys):
    key = ("row_lstm_weight", 9, 4)

    def call():
        *_, warps, stages = launch.tile("row_lstm_weight", torch.zeros(1))
        if warps == 8:
            raise RuntimeError("out of registers")
        return torch.ones(3) + (stages == 1)

    def clock(_):
        rows, *_, warps, stages = tiles.TILES[key]
        return 1.0 / (rows * (100 if warps == 8 or stages == 1 else 1))

    best, times = tune.tune("row_lstm_weight", call, 4, 9, 1 << 17, clock)
    assert best == (256, 32, 32, 4, 2)
    assert sum(map(math.isinf, times.values())) >= 2
    assert "out of registers" in capsys.readouterr().out
    assert key not in tiles.TILES


def test_the_table_is_rewritten_and_reads_back(tmp_path, monkeypatch):
    path = tmp_path / "tiles.py"
    text = Path(tiles.__file__).read_text()
    assert tune.render(text, tiles.TILES, tiles.MEASURED) == text
    path.write_text(text)
    chip = SimpleNamespace(major=9, name="a chip", shared_memory_per_block_optin=1 << 17)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: chip)
    monkeypatch.setattr(tiles, "__file__", str(path))
    monkeypatch.setattr(tune, "convolutions", lambda *_: {})
    call = {"row_lstm_weight": lambda: torch.ones(1, device="cpu")}
    monkeypatch.setattr(tune, "recurrences", lambda *_: call)
    rows = lambda: launch.tile("row_lstm_weight", torch.zeros(1, device="cpu"))[0]  # noqa: E731
    monkeypatch.setattr(cuda, "graph_seconds", lambda _: 1.0 / rows())
    with mock.patch.dict(tiles.TILES), mock.patch.dict(tiles.MEASURED):
        tune.write([torch.float32])
    names: dict = {}
    exec(path.read_text(), names)
    assert names["TILES"] == tiles.TILES | {("row_lstm_weight", 9, 4): (256, 32, 32, 4, 2)}
    assert names["MEASURED"] == {(9, 4): f"a chip, torch {torch.__version__}"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="would tune")
def test_without_a_gpu_the_command_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tune"])
    assert stopped.value.code == 2 and "no CUDA device" in capsys.readouterr().err
