"""Stage 4: noise, graphs, streams, the property tests of the CPU suite on drawn tensors, and more
than 2^31 elements."""

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator

import hypothesis
import torch

from tests.gpu.kit import (
    Item,
    Setting,
    Skipped,
    check_replays,
    check_streams,
    material,
    on_device,
    room,
)

PROPERTY = "match_the_float64_reference"
PROPERTY_SHARE = 1 / 12  # of the stage's time, for each: every new shape of a weight is compiled


def items(setting: Setting) -> Iterator[Item]:
    hypothesis.settings.register_profile(
        "gpu", max_examples=200, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    hypothesis.settings.load_profile("gpu")
    found = {family: material(family) for family in setting.families}
    for family, of_family in found.items():
        for check in of_family.checks:
            words = check.__name__.replace("_", " ")
            yield Item(f"{family}: {words}", _placed(setting, check))
    for kind, check in (("replays of a graph", check_replays), ("two streams", check_streams)):
        for family, of_family in found.items():
            for name, arguments in of_family.steps.items():
                call = functools.partial(check, *arguments)
                yield Item(f"{family}: {kind}, {name}", _placed(setting, call))
    for of_family in found.values():
        for name, call in of_family.large_calls.items():
            for dtype in (torch.bfloat16, torch.float32):
                words = f"{name} {str(dtype).removeprefix('torch.')}"
                yield Item(words, _placed(setting, functools.partial(call, dtype)))
    for family in found:
        for test in property_tests(family):
            yield Item(f"{family}: {test.__name__}", lambda t=test: _property(setting, t))
    for family, of_family in found.items():
        for name, call in of_family.large.items():
            yield Item(f"{family}: beyond 2^31 {name}", _placed(setting, call))


def property_tests(family: str) -> list[Callable]:
    name = f"tests.{room(family)}.values"
    values = vars(importlib.import_module(name)) if importlib.util.find_spec(name) else {}
    return [f for n, f in values.items() if PROPERTY in n and hasattr(f, "hypothesis")]


def _placed(setting: Setting, call: Callable) -> Callable:
    """The call on the GPU; the stand-in has neither streams nor that memory."""

    def run():
        if setting.device != "cuda":
            raise Skipped("needs a CUDA device")
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with on_device(setting):
                call()
        finally:
            torch.cuda.empty_cache()

    return run


def _property(setting: Setting, test: Callable) -> dict:
    """Runs a property test for a while: what is drawn after that is not looked at."""
    end = time.monotonic() + setting.seconds * PROPERTY_SHARE
    inner, examples = test.hypothesis.inner_test, 0

    @functools.wraps(inner)
    def timed(*arguments, **drawn):
        nonlocal examples
        if time.monotonic() < end:
            examples += 1
            inner(*arguments, **drawn)

    test.hypothesis.inner_test = timed
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with on_device(setting):
            test()
    finally:
        test.hypothesis.inner_test = inner
    return {"examples": examples}
