"""Every Triton kernel, dtype and configuration compiles for every chip, within its resources."""

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


def modules() -> list[str]:
    folder = Path(triton_kernels.__file__).parent
    found = folder.glob("*/__init__.py")
    return sorted(p.parent.name for p in found if "\nLAUNCHERS" in p.read_text())


def compiled(op: str) -> dict:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.core.aot", op, *map(str, SHARED_LIMIT)]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {int(capability): found for capability, found in json.loads(result.stdout).items()}


def limits(op: str):
    import importlib

    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    read = lambda name: getattr(module, name, {})  # noqa: E731
    return read("SPILL_BYTES"), read("MAX_LAUNCHES"), read("TENSOR_CORES")


def check_kernel(kernel: dict, spill_bytes: dict, tensor_cores: set) -> None:
    name, capability = kernel["kernel"], kernel["capability"]
    where = f"{name} for sm_{capability}: {kernel['line']}"
    assert kernel["shared"] <= SHARED_LIMIT[capability], where
    assert kernel["spills"] <= spill_bytes.get(name, 0), where
    assert kernel["registers"] * kernel["threads"] <= REGISTERS, where
    if name in tensor_cores and {"*bf16", "*fp16"} & set(kernel["dtypes"]):
        assert kernel["instructions"], where


@pytest.mark.parametrize("op", modules())
def test_every_configuration_compiles_within_its_budget(op, record_property):
    spill_bytes, max_launches, tensor_cores = limits(op)
    for capability, found in compiled(op).items():
        for kernel in found["kernels"]:
            check_kernel(kernel, spill_bytes, tensor_cores)
        assert {k["kernel"] for k in found["kernels"]} == set(found["declared"])
        for name, launches in found["launches"].items():
            allowed = 2 if name.endswith("_backward") else 1
            assert launches <= max_launches.get(name, allowed), name
        kernels = found["kernels"]
        summary = {
            "kernels": len(found["declared"]),
            "configurations": len(kernels),
            "shared": max(k["shared"] for k in kernels),
            "registers": max(k["registers"] for k in kernels),
            "spills": max(k["spills"] for k in kernels),
        }
        record_property("triton_aot", (op, capability, summary))
