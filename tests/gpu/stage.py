"""One stage of `make gpu`, in a process of its own: its items one by one, each into the journal.

    python -m tests.gpu.stage NAME --out DIR --families a,b --device cuda --capability 90 \
      --seconds 60

Items that the journal already has are not run again: after a crash the stage goes on behind it.
"""

import argparse
import contextlib
import ctypes
import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from tests.gpu.journal import FAILED, PASSED, SKIPPED, STARTED, Journal
from tests.gpu.kit import Item, Setting, Skipped

BROKEN = 75  # exit status: the CUDA context is lost, and a new process may go on
MOST_LINES = 40  # of an error, in the report


def die_with_the_parent() -> None:
    """A kill of the command, however sudden, leaves no stage behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def prepare() -> None:
    """One arithmetic for all releases of torch: float32 is float32, and fresh memory is NaN."""
    # By the older names: what reads these raises once a program has used both.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)


def is_broken(device: str) -> bool:
    """Whether an error of a kernel has taken the CUDA context with it."""
    if device != "cuda" or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def short(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-MOST_LINES:])


def attempt(item: Item, setting: Setting, journal: Journal) -> None:
    start = time.perf_counter()
    journal.write(item.name, STARTED)
    details, error = {}, None
    try:
        details = item.run() or {}
        if setting.device == "cuda" and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # an error of this item is not the next one's
        outcome = PASSED
    except Skipped as reason:
        outcome, error = SKIPPED, str(reason)
    except Exception as found:
        outcome, error = FAILED, short(found)
        print(f"{item.name}: {error}", flush=True)
    if error is not None:
        details = {**details, "error": error}
    journal.write(item.name, outcome, seconds=round(time.perf_counter() - start, 3), **details)


def run(name: str, setting: Setting, journal: Journal) -> int:
    known = journal.items()
    for item in importlib.import_module(f"tests.gpu.{name}").items(setting):
        if item.name in known:
            continue
        attempt(item, setting, journal)
        if is_broken(setting.device):
            return BROKEN
    return 0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.stage")
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--capability", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    a = parser.parse_args(words)
    die_with_the_parent()
    prepare()
    setting = Setting(a.families.split(","), a.device, a.capability, a.seconds, a.out)
    return run(a.name, setting, Journal(a.out / f"{a.name}.jsonl"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
