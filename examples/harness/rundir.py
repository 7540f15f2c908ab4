"""The folder of a run: files written whole or not at all, sealed by a hash; one process at a time.

Imports no torch.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from examples.errors import UsageError, reason, wrong
from examples.paths import CHECKPOINT, LOCK, LOG

MAGIC = b"genkern checkpoint 2\n"
HEADER = len(MAGIC) + 65


def _header(content: memoryview | bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"


def write_sealed(path: Path, content: memoryview) -> None:
    """Writes ``content`` after its SHA-256, beside ``path``, and renames: old file or new one."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_header(content))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every file system has it
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def read_sealed(path: Path) -> memoryview:
    """The content of a file of `write_sealed`.

    Raises:
        UsageError: it cannot be read, or one byte of it is not what was written.
    """
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    try:
        found = memoryview(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    if found[:HEADER] != _header(found[HEADER:]):
        raise UsageError(f"{path} is damaged or not a checkpoint: its SHA-256 is not the one in it")
    return found[HEADER:]


def set_aside(path: Path) -> Path:
    """Renames a file that is not to be trusted, nor lost."""
    number = 1
    while (aside := path.with_suffix(f".aside-{number}{path.suffix}")).exists():
        number += 1
    return path.rename(aside)


def is_main() -> bool:
    """Of the processes of a run, the one that writes."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder, and holds it: the lock ends with the process, however that ends."""
    if not is_main():  # which holds it
        yield
        return
    takes = "a folder that can be written"
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another process is writing to {out}; choose another --out") from None
    except OSError as error:
        raise wrong("--out", takes, out, reason(error)) from None
    try:
        yield
    finally:
        lock.release()


def clear(out: Path) -> None:
    """Removes the run in a folder that is made anew each time, and nothing else."""
    with locked(out):
        for path in (out / name for name in (CHECKPOINT, LOG, "samples.png")):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
