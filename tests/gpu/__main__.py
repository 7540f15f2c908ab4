"""`make gpu`: everything that a machine with a GPU can say, most important things first.

    python -m tests.gpu --out DIR [--stages 2,3] [--families gaussian]

Each stage is a process of its own with a time limit; together they take at most 300 s. DIR gets
report.json after every stage, and a line in <stage>.jsonl after every item of one. Exit status: 0
all green, 1 something failed or was cut short, 2 a wrong selection, 3 no GPU.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.gpu import journal, report, table
from tests.gpu.table import ROOT, Stage

POLL_SECONDS = 0.1
FACTS_SECONDS = 60
NO_GPU = "make gpu: no CUDA device here ({}); nothing was run"


def missing_gpu() -> str | None:
    """Why there is no GPU, asked of the driver alone: importing torch takes longer than this."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "libcuda.so.1 is not installed"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return f"the driver says error {status}"
    return None if count.value else "the driver sees none"


def environment(device: str) -> dict[str, str]:
    """Of the stages: the same for all of them, or kernels would be compiled twice."""
    cache = ROOT / "build" / "gpu-cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "writable").touch()
    except OSError:
        cache = Path(tempfile.mkdtemp(prefix="genkern-gpu-"))
    found = {k: v for k, v in os.environ.items() if not k.startswith("GENKERN_")}
    return found | {
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_DISABLE_LINE_INFO": "1",
        "TRITON_INTERPRET": "0" if device == "cuda" else "1",
        "PYTHONUNBUFFERED": "1",
    }


def kill(process: subprocess.Popen) -> None:
    """The process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def watch(process: subprocess.Popen, lines: journal.Journal, end: float, item: float) -> str | None:
    """Waits for the end of the process: None, or why it had to be killed."""
    while process.poll() is None:
        if time.monotonic() > end:
            return journal.CUT_SHORT
        open_item = lines.open_item()
        if open_item is not None and time.time() - open_item[1] > item:
            return journal.HUNG
        time.sleep(POLL_SECONDS)
    return None


def run_stage(stage: Stage, command: list[str], device: str, out: Path) -> str:
    """The state in which the stage ended. After a crash or a hanging item it goes on behind it."""
    lines = journal.Journal(out / f"{stage.name}.jsonl")
    end = time.monotonic() + stage.seconds
    variables = environment(device)
    if stage.name == "compiling":
        variables["TRITON_INTERPRET"] = "0"
    while True:
        before = len(lines.items())
        with (out / f"{stage.name}.log").open("a") as log:
            process = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, start_new_session=True, cwd=ROOT
            )
            try:
                reason = watch(process, lines, end, stage.item_seconds)
            finally:
                kill(process)
        status = process.returncode
        if reason == journal.CUT_SHORT:
            lines.close(reason, f"the stage had {stage.seconds:.0f} s")
            return journal.CUT_SHORT
        if reason == journal.HUNG:
            lines.close(reason, f"stopped after {stage.item_seconds:.0f} s")
        elif status == 0:
            return "finished"
        else:
            lines.close(journal.CRASHED, f"exit status {status}")
        if len(lines.items()) == before:  # it dies before its first item
            tail = (out / f"{stage.name}.log").read_text().splitlines()[-report.ERROR_LINES :]
            lines.write("start", journal.CRASHED, error="\n".join(tail))
            return f"stopped with exit status {status}"


def facts(device: str) -> dict:
    """What `tests.gpu.facts` says, or an exit with the last line of what it died of."""
    command = [sys.executable, "-m", "tests.gpu.facts", device]
    pipes = {"capture_output": True, "text": True, "timeout": FACTS_SECONDS}
    try:
        found = subprocess.run(command, env=environment(device), cwd=ROOT, **pipes)
    except subprocess.TimeoutExpired:
        sys.exit(f"make gpu: torch did not start within {FACTS_SECONDS} s")
    if found.returncode != 0:
        last = (found.stderr.strip().splitlines() or ["no word"])[-1]
        sys.exit(f"make gpu: torch does not start here: {last}")
    return json.loads(found.stdout.splitlines()[-1])


def run(stages: list[Stage], families: list[str], device: str, out: Path) -> int:
    start = time.monotonic()
    known = facts(device)
    if device == "cuda" and known["device"] is None:
        print(NO_GPU.format(f"torch {known['versions']['torch']} sees none"), file=sys.stderr)
        return 3
    for stage in stages:
        (out / f"{stage.name}.jsonl").unlink(missing_ok=True)
    written = report.Report(out / "report.json", {**known, "families": families}, stages)
    spare, green = 0.0, True
    for stage in stages:
        left = table.TOTAL_SECONDS - 3 - (time.monotonic() - start)
        stage = stage._replace(seconds=max(1.0, min(stage.seconds + spare, left)))
        command = [sys.executable, "-m", "tests.gpu.stage", stage.name, "--out", str(out)]
        command += ["--families", ",".join(families), "--device", device]
        command += ["--capability", str(known["capability"] or 90)]
        command += ["--seconds", str(stage.seconds)]
        began = time.monotonic()
        state = run_stage(stage, command, device, out)
        took = time.monotonic() - began
        spare = max(0.0, stage.seconds - took)  # goes to the next stage
        lines = journal.Journal(out / f"{stage.name}.jsonl")
        record = written.add(stage, state, took, lines)
        print(report.describe(record), flush=True)
        green = green and report.is_green(record)
    written.close()
    print(f"{written.path} after {time.monotonic() - start:.0f} s", flush=True)
    return 0 if green else 1


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--stages", default="")
    parser.add_argument("--families", default="")
    parser.add_argument(
        "--stand-in", action="store_true", help="interpreted, on the CPU: for tests"
    )
    arguments = parser.parse_args(words)
    try:
        stages = table.chosen_stages(arguments.stages)
        families = table.chosen_families(arguments.families)
    except table.BadSelection as error:
        print(f"make gpu: {error}", file=sys.stderr)
        return 2
    device = "cpu" if arguments.stand_in else "cuda"
    reason = None if arguments.stand_in else missing_gpu()
    if reason is not None:
        print(NO_GPU.format(reason), file=sys.stderr)
        return 3
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # A polite end takes the stage with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return run(stages, families, device, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
