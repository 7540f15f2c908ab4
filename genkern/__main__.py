"""`python -m genkern`: what is installed, what was built, and which backend runs which op."""

import argparse
import importlib.metadata
import json
import os
import pkgutil
import platform
from typing import Any

import torch

import genkern
from genkern import library, ops


def families() -> list[str]:
    """The op families: the modules of `genkern.ops`."""
    return sorted(module.name for module in pkgutil.iter_modules(ops.__path__))


def _triton_version() -> str:
    try:
        return importlib.metadata.version("triton")  # without importing it
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cuda_devices() -> list[str]:
    if not torch.cuda.is_available():
        return []
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return [f"{d.name}, compute capability {d.major}.{d.minor}" for d in found]


def collect() -> dict[str, Any]:
    compiled = library.compiled
    return {
        "genkern": genkern.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "built": [level for level in library.LEVELS if library.ops_file(level).exists()],
        "loaded": None if compiled is None else compiled.isa,
        "not_loaded_because": library.compiled_error or None,
        "compiler": None if compiled is None else compiled.compiler,
        "bf16_pairs": None if compiled is None else compiled.bf16_pairs,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_level": library.cpu_level(),
        "GENKERN_CPU_ISA": os.environ.get("GENKERN_CPU_ISA"),
        "GENKERN_BACKEND": os.environ.get("GENKERN_BACKEND"),
        "GENKERN_BF16_PAIRS": os.environ.get("GENKERN_BF16_PAIRS"),
        "threads": torch.get_num_threads(),
        "triton": _triton_version(),
        "cuda_devices": _cuda_devices(),
        "sampler": {name: library.unavailable("sampler", name) for name in ("cpu", "triton")},
        "backends": {
            family: {name: library.unavailable(family, name) for name in library.BACKENDS}
            for family in families()
        },
    }


def _setting(value: str | None) -> str:
    return "not set" if value is None else f"= {value}"


def _table(backends: dict[str, dict[str, str | None]]) -> list[str]:
    """One row a family; a number stands for the reason in the list below the table."""
    reasons: list[str] = []
    rows = [["op family", *library.BACKENDS]]
    for family, states in backends.items():
        row = [family]
        for reason in states.values():
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            row.append("available" if reason is None else f"no ({reasons.index(reason) + 1})")
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return lines + [f"({i}) {reason}" for i, reason in enumerate(reasons, 1)]


def report(info: dict[str, Any]) -> str:
    if info["loaded"] is None:
        loaded = f"none loaded: {info['not_loaded_because']}"
    else:
        loaded = f"loaded: {info['loaded']} (compiler {info['compiler']})"
    lines = {
        "genkern": info["genkern"],
        "torch": f"{info['torch']}, Python {info['python']}",
        "compiled parts": f"built: {', '.join(info['built']) or 'none'}; {loaded}",
        "CPU level": f"{info['cpu_level']} (torch says {info['cpu_capability']}; "
        f"GENKERN_CPU_ISA {_setting(info['GENKERN_CPU_ISA'])})",
        "bfloat16": ("multiplied in pairs" if info["bf16_pairs"] else "multiplied as float32")
        + f" (GENKERN_BF16_PAIRS {_setting(info['GENKERN_BF16_PAIRS'])})",
        "backend": "by the tensor's device"
        if info["GENKERN_BACKEND"] is None
        else f"{info['GENKERN_BACKEND']} (GENKERN_BACKEND)",
        "threads": str(info["threads"]),
        "triton": f"{info['triton']}; the kernels have not yet run on a GPU",
        "sampling": "; ".join(
            f"{name} {'available' if reason is None else f'no: {reason}'}"
            for name, reason in info["sampler"].items()
        ),
        "CUDA": "; ".join(info["cuda_devices"]) or "no device",
    }
    head = [f"{name:<16}{text}" for name, text in lines.items()]
    return "\n".join([*head, "", *_table(info["backends"])])


def main() -> None:
    parser = argparse.ArgumentParser("python -m genkern", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    as_json = parser.parse_args().json
    info = collect()
    print(json.dumps(info, indent=2) if as_json else report(info))


if __name__ == "__main__":
    main()
