"""Results as JSON lines: each record stands alone, with the machine and versions behind it."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import genkern
from benchmarks.core.measure import DEVICES

SCHEMA = 2
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Record = dict[str, Any]

CONTEXT_KEYS = frozenset({"schema", "commit", "dirty", "date", "command", "machine", "versions"})
IDENTITY = ("op", "shape", "phase", "dtype", "device", "implementation")
FAILURE_KEYS = CONTEXT_KEYS | {*IDENTITY, "kind", "error"}
TIMING_KEYS = CONTEXT_KEYS | {
    *IDENTITY,
    *("kind", "backend", "library_call", "seconds", "rounds", "calls_per_sample", "graph_seconds"),
    *("flops", "bytes", "gflops", "gbs", "bound", "percent_of_ceiling", "ceilings"),
    *("allocator_peak_bytes", "resident_peak_bytes", "over_genkern", "target"),
}
SCALING_KEYS = CONTEXT_KEYS | {
    *("kind", "op", "axis", "dtype", "device", "implementation", "phase"),
    *("points", "slope", "work_slope"),
}
SAMPLING_KEYS = CONTEXT_KEYS | {"kind", "op", "axis", "dtype", "device", "method", "batch"}
KEYS = {
    "timing": TIMING_KEYS,
    "failure": FAILURE_KEYS,
    "scaling": SCALING_KEYS,
    "sampling": SAMPLING_KEYS,
}


class BadFile(Exception):
    """A file that is no result of this harness."""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # a machine without git can measure, too
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def context(device: str, command: str, busy: int = 0) -> Record:
    """Where and from what a record comes. Names the hardware, not the host or its paths.

    Args:
        busy: processes that this run starts beside the measurement.
    """
    compiled = genkern.library.compiled
    sources = ("genkern", "csrc", "triton_kernels", "setup.py", "benchmarks/*.py")
    return {
        "schema": SCHEMA,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", *sources)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "cpu": DEVICES["cpu"].model(),
            "gpu": DEVICES["cuda"].model() if device == "cuda" else None,
            "isa": compiled.isa if compiled else None,
            "aten_isa": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            # Other work on the machine shows here: a result wants it near zero.
            "load": round(os.getloadavg()[0], 1),
            "busy": busy,
            "cache_bytes": DEVICES[device].cache_bytes(),
        },
        "versions": {
            "genkern": genkern.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": compiled.compiler if compiled else None,
        },
    }


def machine_name(record: Record) -> str:
    machine = record["machine"]
    name = machine["gpu"] or f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads"
    return name + (f", {machine['busy']} busy processes beside" if machine["busy"] else "")


def place(records: Sequence[Record]) -> Path:
    """Where `--store` keeps a whole run: results/<device>/<level>/<what>.jsonl."""
    first = records[0]
    machine = first["machine"]
    level = machine["isa"] if machine["gpu"] is None else machine["gpu"].lower().replace(" ", "-")
    what = "scaling" if first["kind"] == "scaling" else first["dtype"]
    what = f"training-{what}" if first["op"] == "training" else what
    busy = "-busy" if machine["busy"] else ""
    return RESULTS / first["device"] / str(level) / f"{what}{busy}.jsonl"


def write(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def read(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        BadFile: the file is missing or a line is no record of this schema.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            missing = KEYS[record["kind"]] - record.keys()
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{path}, line {number}: no benchmark record") from error
        if record["schema"] != SCHEMA or missing:
            raise BadFile(f"{path}, line {number}: not schema {SCHEMA} ({sorted(missing)} missing)")
        records.append(record)
    return records


def by_case(records: Iterable[Record]) -> dict[tuple[str, str, str, str, str], dict[str, Record]]:
    """Timings grouped as {(op, shape, phase, dtype, device): {implementation: record}}."""
    groups: dict[tuple, dict[str, Record]] = {}
    for record in records:
        if record["kind"] == "timing":
            key = tuple(record[name] for name in IDENTITY[:-1])
            groups.setdefault(key, {})[record["implementation"]] = record
    return groups
