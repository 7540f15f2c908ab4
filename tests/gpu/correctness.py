"""Stage 2: one call of each op in each dtype, forward and backward, against the float64 reference.

The calls are the families' samples and those of their `gpu.py`; bfloat16 and float32, what models
use, come first.
"""

from collections.abc import Callable, Iterator

import torch

from tests.gpu.kit import Item, Setting, material, on_device

DTYPES = (torch.bfloat16, torch.float32, torch.float16, torch.float64)


def items(setting: Setting) -> Iterator[Item]:
    found = [material(family) for family in setting.families]
    # On the stand-in one dtype is enough: the interpreter takes seconds a call.
    for dtype in DTYPES if setting.device == "cuda" else DTYPES[1:2]:
        for family in found:
            for op, call in family.calls.items():
                name = f"{op} {str(dtype).removeprefix('torch.')}"
                yield Item(name, lambda call=call, dtype=dtype: _checked(setting, call, dtype))


def _checked(setting: Setting, call: Callable, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fresh memory holds NaN
    with on_device(setting):
        call(dtype)
