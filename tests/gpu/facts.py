"""What the report says of the machine, as JSON; in a process of its own, because it starts CUDA."""

import hashlib
import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def version(package: str) -> str | None:
    try:
        return importlib.import_module(package).__version__
    except Exception:  # a package that is broken is one that is not there
        return None


def commit() -> str | None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def source() -> str:
    """Which sources ran, where no commit can say it: a digest of the package and its kernels."""
    digest = hashlib.sha256()
    for folder in ("genkern", "triton_kernels"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def collect(device: str) -> dict:
    on_cuda = device == "cuda" and torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if on_cuda else None
    return {
        "device": properties.name if properties else None,
        "capability": 10 * properties.major + properties.minor if properties else None,
        "processors": properties.multi_processor_count if properties else None,
        "memory_gib": round(properties.total_memory / 2**30, 1) if properties else None,
        "commit": commit(),
        "source": source(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: version(name) for name in ("triton", "numpy", "hypothesis")},
        },
    }


if __name__ == "__main__":
    print(json.dumps(collect(sys.argv[1])))
