"""Triton kernels compile for every chip within its resources: each of them once for one chip here,
every configuration for all chips in the deep tier."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
from genkern import triton_kernels

ROOT = Path(__file__).parents[2]
# Shared memory that one block may have (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
REGISTERS = 65536
LOWERED = ("*fp32", "*fp64")


def modules() -> list[str]:
    folder = Path(triton_kernels.__file__).parent
    found = folder.glob("*/__init__.py")
    return sorted(p.parent.name for p in found if "\nLAUNCHERS" in p.read_text())


def compiled(*words: str) -> dict[int, dict]:
    """What `python -m tests.core.aot` found: capability, op, kernels and launches."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.core.aot", *words]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {int(capability): found for capability, found in json.loads(result.stdout).items()}


def limits(op: str):
    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    read = lambda name: getattr(module, name, {})  # noqa: E731
    return read("SPILL_BYTES"), read("MAX_LAUNCHES"), read("TENSOR_CORES")


def check_kernel(kernel: dict, spill_bytes: dict, tensor_cores: set) -> None:
    name, capability = kernel["kernel"], kernel["capability"]
    where = f"{name} for sm_{capability}: {kernel['line']}"
    assert kernel["shared"] <= SHARED_LIMIT[capability], where
    assert kernel["spills"] <= spill_bytes.get(name, 0), where
    assert kernel["registers"] * kernel["threads"] <= REGISTERS, where
    if name in tensor_cores and kernel["dtype"] in ("*bf16", "*fp16"):
        assert kernel["instructions"], where


def check_op(op: str, found: dict) -> None:
    """Resources of each kernel, and that each was reached, by no more launches than are allowed."""
    spill_bytes, max_launches, tensor_cores = limits(op)
    for kernel in found["kernels"]:
        check_kernel(kernel, spill_bytes, tensor_cores)
    assert {k["kernel"] for k in found["kernels"]} == set(found["declared"])
    for name, launches in found["launches"].items():
        allowed = 2 if name.endswith("_backward") else 1
        assert launches <= max_launches.get(name, allowed), name


def summary(found: dict) -> dict:
    kernels = found["kernels"]
    largest = {k: max(x[k] for x in kernels) for k in ("shared", "registers", "spills")}
    return {"kernels": len(found["declared"]), "configurations": len(kernels), **largest}


def check_all(found: dict[int, dict], record_property) -> None:
    for capability, ops in found.items():
        for op, of_op in ops.items():
            check_op(op, of_op)
            record_property("triton_aot", (op, capability, summary(of_op)))


def test_every_kernel_compiles_within_its_budget_and_once_for_all_sizes(record_property):
    found = compiled("--quick", ",".join(modules()), "90")
    check_all(found, record_property)
    for op, of_op in found[90].items():
        module = importlib.import_module(f"genkern.triton_kernels.{op}")
        allowed = getattr(module, "VARIANTS", {})
        counts = of_op["variants"]
        assert counts and counts == {name: allowed.get(name, 1) for name in counts}, op
        chosen = getattr(module, "COMPILED", "*bf16")
        assert {k["dtype"] for k in of_op["kernels"]} == {chosen}, op
        lowered, others = sorted(map(tuple, of_op["lowered"])), set(LOWERED) - {chosen}
        assert lowered == sorted(itertools.product(of_op["declared"], others)), op


@pytest.mark.deep
@pytest.mark.parametrize("op", modules())
def test_every_configuration_compiles_for_every_chip_within_its_budget(op, record_property):
    found = compiled(op, *map(str, SHARED_LIMIT))
    assert set(found) == set(SHARED_LIMIT)
    check_all(found, record_property)
    quick = len(compiled("--quick", op, "90")[90][op]["kernels"])
    assert all(len(ops[op]["kernels"]) > quick for ops in found.values())
