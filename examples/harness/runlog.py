"""log.jsonl: one record a line. The checkpoint keeps its length and SHA-256."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from examples.harness.rundir import set_aside
from examples.paths import LOG

EMPTY = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}


class RunLog:
    """Appends records to the log of a run.

    Args:
        out: run directory.
        mark: `mark` at the checkpoint from which the run goes on; what was written after it is
            dropped, because those steps are taken again. A log that is not the one of the
            mark is set aside, and `word` says so.
    """

    def __init__(self, out: Path, mark: dict[str, Any]) -> None:
        path, size, self.word = out / LOG, mark["bytes"], ""
        content = path.read_bytes()[:size] if path.is_file() else b""
        self._hash = hashlib.sha256(content)
        if self.mark_of(content) != mark:
            found = f"kept as {set_aside(path).name}" if path.exists() else "it is missing"
            self.word = f"{path} is not the log of the checkpoint ({found}); a new one begins."
            content, self._hash = b"", hashlib.sha256()
        self._size = len(content)
        self._file = path.open("ab")
        self._file.truncate(self._size)

    @staticmethod
    def mark_of(content: bytes) -> dict[str, Any]:
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    @property
    def mark(self) -> dict[str, Any]:
        """Length and hash so far, once the records are on the disk: what a checkpoint keeps."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        self._file.write(line)
        self._hash.update(line)
        self._size += len(line)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(out: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line cut short by a crash is left out."""
    path = out / LOG
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not (isinstance(record, dict) and isinstance(record.get("step"), int)):
            break
        records.append(record)
    return records
