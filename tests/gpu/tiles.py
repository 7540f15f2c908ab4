"""Stage 6: the search for tiles, kernel by kernel, half precision first.

The tables that it finds are written beside the report, to be looked at and copied: the source
stays as it is.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.core import tune
from tests.gpu.kit import Item, Setting, Skipped

DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def items(setting: Setting) -> Iterator[Item]:
    tunings = {f: t for f, t in tune.families().items() if f in setting.families}
    for dtype in DTYPES:
        for family, tuning in tunings.items():
            size = dtype.itemsize
            for kernel in sorted({k for k, _, s in tuning.tiles.TILES if s == size}):
                name = f"{kernel} {str(dtype).removeprefix('torch.')}"
                yield Item(name, partial(_search, setting, family, tuning, dtype, kernel))


def _search(setting: Setting, family: str, tuning, dtype: torch.dtype, kernel: str) -> dict:
    if setting.device != "cuda":
        raise Skipped("needs a CUDA device")
    (found,) = tune.found(tuning, dtype, [kernel])
    _, start, best, times = found
    tiles = tuning.tiles
    text = tune.render(Path(str(tiles.__file__)).read_text(), tiles.TILES, tiles.MEASURED)
    (setting.out / f"{family}-tiles.py").write_text(text)
    return {"start": start, "best": best, "seconds": {str(t): s for t, s in times.items()}}
