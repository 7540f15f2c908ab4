"""What a stage has said so far: one line of JSON an item, written at once, so that no end of the
process, however sudden, takes anything back."""

import json
import os
import time
from pathlib import Path
from typing import Any

STARTED, PASSED, FAILED, SKIPPED = "started", "passed", "failed", "skipped"
CRASHED, HUNG, CUT_SHORT = "crashed", "hung", "cut short"


class Journal:
    """The lines of one stage. The last line of an item is its outcome."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, item: str, outcome: str, **details: Any) -> None:
        line = {"item": item, "outcome": outcome, "at": time.time(), **details}
        with self.path.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # the line before was cut short
                    file.write(b"\n")
            file.write(json.dumps(line, default=str).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def items(self) -> dict[str, dict[str, Any]]:
        """The last line of each item, in the order in which they started."""
        found: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return found
        for line in self.path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the end of a line that was cut short
            found[record.pop("item")] = record
        return found

    def open_item(self) -> tuple[str, float] | None:
        """The item that has started and not ended, and when it started."""
        for name, record in self.items().items():
            if record["outcome"] == STARTED:
                return name, record["at"]
        return None

    def close(self, outcome: str, error: str) -> None:
        """Ends the item that the process died in."""
        item = self.open_item()
        if item is not None:
            name, at = item
            self.write(name, outcome, seconds=round(time.time() - at, 3), error=error)
