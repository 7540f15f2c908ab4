"""Every instruction-set level, bfloat16 in pairs and not: each one process for all families."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from genkern import library
from tests.core.helpers import bf16_pairs, machine_levels
from tests.core.samples import stems

ROOT = Path(__file__).parents[2]
LEVELS = machine_levels()
SMALL = "small"  # a build with tiny blocks: small shapes cross every boundary of every blocking


def run_level(level: str, environment: dict[str, str], *arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.core.levels", *arguments]
    environment = {**os.environ, "GENKERN_CPU_ISA": level, **environment}
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


def examples(level: str) -> str:
    """The property tests draw as many again where blocks are small, fewer at the other levels."""
    full = settings.default.max_examples
    if library.compiled is not None and level == library.compiled.isa:
        return "0"  # the session itself draws them
    return str(full if level == SMALL else max(5, full // 4))


def turn(level: str) -> str:
    """Which dtypes of the large calls a level takes: half of them here, all in the deep tier."""
    deep = settings.get_current_profile_name() == "deep"
    return "all" if deep else str([*LEVELS, SMALL].index(level))


def missing(level: str) -> str | None:
    if not library.ops_file(level).exists():
        return f"the ops for {level} are not built (GENKERN_BUILD)"
    if level == SMALL and platform.machine() in ("x86_64", "AMD64") and "avx2" not in LEVELS:
        return "the small build is one of AVX2, which this CPU does not have"
    return None


def check(found: dict, record_property) -> None:
    for stem, family in found["families"].items():
        record_property("seconds", (stem, family["seconds"]))
    failures = [(stem, text) for stem, f in found["families"].items() for text in f["failures"]]
    assert not failures, "\n\n".join(f"{stem}: {text}" for stem, text in failures)


@pytest.mark.parametrize("level", [*LEVELS, SMALL])
def test_bits_and_values_of_all_families(level, record_property):
    if reason := missing(level):
        pytest.skip(reason)
    found = run_level(level, {}, examples(level), turn(level))
    assert found["isa"] == level
    check(found, record_property)


def in_pairs() -> list[str]:
    """Families that ask which way bfloat16 is multiplied; to the others it makes no difference."""
    files = {stem: (ROOT / "csrc" / stem).glob("*.cpp") for stem in stems()}
    asks = lambda path: "dispatch_factors" in path.read_text()  # noqa: E731
    return [stem for stem, paths in files.items() if any(map(asks, paths))]


# The instruction itself where there is one, and the form that crosses every boundary.
IN_PAIRS = [
    *(pytest.param(x, marks=[] if x == "avx512" else pytest.mark.deep) for x in LEVELS),
    SMALL,
]


@pytest.mark.parametrize("level", IN_PAIRS)
def test_bfloat16_multiplied_in_pairs_and_not(level, record_property):
    """In the other way than the machine does by itself; an AVX-512 build needs the instruction."""
    if reason := missing(level):
        pytest.skip(reason)
    native = level == "avx512" and bf16_pairs()
    pairs = {"GENKERN_BF16_PAIRS": str(int(not native))}
    drawn = str(settings.default.max_examples)  # of one dtype, as many as of all
    families = in_pairs()
    assert len(families) >= 2
    found = run_level(level, pairs, drawn, "all", "bfloat16", *families)
    if level == "avx512" and not found["bf16_pairs"] and not native:
        pytest.skip("this CPU has no AVX512-BF16, which the AVX-512 build multiplies pairs with")
    assert found["bf16_pairs"] != native
    check(found, record_property)
