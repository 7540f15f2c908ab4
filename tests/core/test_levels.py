"""Every instruction-set level, bfloat16 in pairs and not: each one process for all families."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from genkern import library
from tests.core.helpers import bf16_pairs, machine_levels

ROOT = Path(__file__).parents[2]
SMALL = "small"  # a build with tiny blocks: small shapes cross every boundary of every blocking


def run_level(level: str, environment: dict[str, str], *arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.core.levels", *arguments]
    environment = {**os.environ, "GENKERN_CPU_ISA": level, **environment}
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


def examples() -> str:
    return str(settings.default.max_examples)


def check(found: dict, record_property) -> None:
    for stem, family in found["families"].items():
        record_property("seconds", (stem, family["seconds"]))
    failures = [(stem, text) for stem, f in found["families"].items() for text in f["failures"]]
    assert not failures, "\n\n".join(f"{stem}: {text}" for stem, text in failures)


@pytest.mark.parametrize("level", [*machine_levels(), SMALL])
def test_bits_and_values_of_all_families(level, record_property):
    if not library.ops_file(level).exists():
        pytest.skip(f"the ops for {level} are not built (GENKERN_BUILD)")
    found = run_level(level, {}, examples())
    assert found["isa"] == level
    check(found, record_property)


@pytest.mark.parametrize("level", [*machine_levels(), SMALL])
def test_bfloat16_multiplied_in_pairs_and_not(level, record_property):
    """In the other way than the machine does by itself; an AVX-512 build needs the instruction."""
    if not library.ops_file(level).exists():
        pytest.skip(f"the ops for {level} are not built (GENKERN_BUILD)")
    native = level == "avx512" and bf16_pairs()
    found = run_level(level, {"GENKERN_BF16_PAIRS": str(int(not native))}, examples(), "bfloat16")
    if level == "avx512" and not found["bf16_pairs"] and not native:
        pytest.skip("this CPU has no AVX512-BF16, which the AVX-512 build multiplies pairs with")
    assert found["bf16_pairs"] != native
    check(found, record_property)
