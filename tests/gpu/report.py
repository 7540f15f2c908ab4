"""The report of `make gpu`: one JSON file, whole after every stage."""

import collections
import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.gpu.journal import PASSED, SKIPPED, Journal
from tests.gpu.table import Stage

ERROR_LINES = 10


class Report:
    def __init__(self, path: Path, facts: dict[str, Any], stages: list[Stage]) -> None:
        self.path, self.start = path, time.monotonic()
        self.content: dict[str, Any] = {
            "schema": 1,
            **facts,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "planned": [{"number": s.number, "name": s.name, "limit": s.seconds} for s in stages],
            "seconds": 0.0,
            "complete": False,
            "stages": [],
        }
        self._write()

    def add(self, stage: Stage, state: str, seconds: float, journal: Journal) -> dict[str, Any]:
        items = journal.items()
        record = {
            "number": stage.number,
            "name": stage.name,
            "limit": round(stage.seconds, 1),
            "seconds": round(seconds, 1),
            "state": state,
            "counts": dict(collections.Counter(i["outcome"] for i in items.values())),
            "items": items,
        }
        self.content["stages"].append(record)
        self._write()
        return record

    def close(self) -> None:
        self.content["complete"] = True
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self.start, 1)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.content, indent=1, default=str) + "\n")
        os.replace(beside, self.path)


def is_green(record: dict[str, Any]) -> bool:
    outcomes = {i["outcome"] for i in record["items"].values()}
    return record["state"] == "finished" and outcomes <= {PASSED, SKIPPED}


def describe(record: dict[str, Any]) -> str:
    """A line for a stage, and ten for its first failure."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in record["counts"].items()) or "nothing"
    line = f"stage {record['number']} {record['name']}: {counts}; {record['state']}"
    line += f" after {record['seconds']} s of {record['limit']} s"
    bad = [(n, i) for n, i in record["items"].items() if i["outcome"] not in (PASSED, SKIPPED)]
    if bad:
        name, item = bad[0]
        error = str(item.get("error", "")).splitlines()[-(ERROR_LINES - 1) :]
        line += "\n" + "\n".join(
            [f"  first: {name}: {item['outcome']}", *(f"    {e}" for e in error)]
        )
    return line
