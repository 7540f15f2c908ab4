"""Writes what `make gpu-test` found as JSON: python tests/gpu/report.py junit.xml gpu-test.json"""

import json
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import torch


def version(package: str) -> str | None:
    try:
        return __import__(package).__version__
    except ImportError:
        return None


def commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None


def outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return next((k for k in ("failure", "error", "skipped") if k in kinds), "passed")


def main(junit: str, target: str) -> None:
    cases = list(ElementTree.parse(junit).iter("testcase"))
    found = [{"test": c.get("name"), "outcome": outcome(c), "s": c.get("time")} for c in cases]
    available = torch.cuda.is_available()
    report = {
        "device": torch.cuda.get_device_name() if available else None,
        "capability": torch.cuda.get_device_capability() if available else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "commit": commit(),
        "counts": {k: sum(f["outcome"] == k for f in found) for k in {f["outcome"] for f in found}},
        "tests": found,
    }
    Path(target).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "tests"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
