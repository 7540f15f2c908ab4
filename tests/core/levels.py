"""The checks of all families in one process: `python -m tests.core.levels EXAMPLES TURN`, or of one
dtype and of a few: `python -m tests.core.levels EXAMPLES TURN DTYPE FAMILY ...`.

The environment says which instruction-set level the process loads, and how bfloat16 is multiplied.
Without examples it leaves out the tests that a session of pytest has run on this level itself.
TURN is a number, one for each level: of a large call the process then takes float32 and every
second one of the other dtypes, so that each dtype of each call is met; "all": it takes them all.
Prints a JSON object: the level, and for each family its failures and its seconds.
"""

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Callable

import torch
from hypothesis import HealthCheck, settings

THREADS = (1, 2, 3)


def digest(tensors) -> str:
    """A checksum of the exact bits."""
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_large(sample, dtype: torch.dtype) -> None:
    """The same bits with any number of threads, and the values of the float64 definition."""
    from tests.core.helpers import run

    inputs, upstream = sample.make(dtype)
    found = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        outputs, grads = run(sample.outputs, inputs, upstream)
        found[threads] = digest([*outputs, *grads])
    assert len(set(found.values())) == 1, f"bits depend on the number of threads: {found}"
    torch.set_num_threads(2)
    sample.check(inputs, upstream)


def failure(check: Callable, *arguments) -> str | None:
    torch.manual_seed(0)
    try:
        check(*arguments)
    except Exception:
        return traceback.format_exc()[-2000:]
    return None


def taken(dtypes: tuple[torch.dtype, ...], i: int, turn: str) -> list[torch.dtype]:
    """The dtypes of the i-th large call of a family that a level takes."""
    if turn == "all":
        return list(dtypes)
    return [d for j, d in enumerate(dtypes) if j == 0 or (i + j + int(turn)) % 2 == 0]


def check_family(stem: str, dtypes: tuple[torch.dtype, ...], turn: str, everywhere: bool) -> dict:
    from tests.core.samples import load

    start, failures, samples = time.perf_counter(), [], load(stem)
    for i, sample in enumerate(samples.large):
        both = tuple(d for d in dtypes if d in sample.dtypes)
        for dtype in taken(both, i, turn):
            text = failure(check_large, sample, dtype)
            failures += [] if text is None else [f"{sample.name}, {dtype}: {text}"]
    for check in samples.everywhere:
        if not everywhere and check.__name__.startswith("test_"):
            continue
        text = failure(check)
        failures += [] if text is None else [text]
    return {"failures": failures, "seconds": time.perf_counter() - start}


def main(examples: str, turn: str, only: str | None = None, *stems: str) -> None:
    settings.register_profile(
        "level",
        max_examples=max(1, int(examples)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("level")  # the families' tests read it when they are imported
    from genkern import library
    from tests.core import samples, strategies

    if only is not None:
        strategies.only(getattr(torch, only))
    torch.use_deterministic_algorithms(True, warn_only=True)  # poisons memory, as in conftest.py
    torch.set_num_threads(2)
    compiled = library.compiled
    everywhere = int(examples) > 0
    families = {
        stem: check_family(stem, strategies.DTYPES, turn, everywhere)
        for stem in stems or samples.stems()
    }
    found = {"isa": compiled.isa, "bf16_pairs": compiled.bf16_pairs, "families": families}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
