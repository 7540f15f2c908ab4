"""Commands in processes of their own, forked from one that has imported all they need.

A fork costs milliseconds where a fresh interpreter costs seconds; what a process leaves behind when
it is killed is the same.
"""

import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Order:
    """What to run, and what happens to it.

    Args:
        argv: of ``python -m examples``.
        cwd: the folder that it runs in.
        environment: added to the environment.
        signal, after, log, step: sent after so many seconds, or once a log has the step.
        largest_file: bytes that a file may have; a write beyond fails, as on a full disk.
        stdout: path of what it writes to; "pipe": one that nobody reads.
        ranks: as many processes, with the variables that torchrun sets.
    """

    argv: list[str]
    cwd: str = "."
    environment: dict[str, str] = field(default_factory=dict)
    signal: int | None = None
    after: float = 0.0
    log: str | None = None
    step: int = 0
    largest_file: int | None = None
    stdout: str | None = None
    ranks: int = 1


@dataclass(frozen=True)
class Done:
    """How it ended: the exit code (minus the signal, if one ended it) and what it wrote."""

    code: int
    out: str
    err: str
    seconds: float


class Server:
    """The process that forks; one order at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.examples.processes"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: object, **given: object) -> Done:
        order = Order([str(a) for a in argv], **given)  # type: ignore[arg-type]
        print(json.dumps(dataclasses.asdict(order)), file=self.process.stdin, flush=True)
        return Done(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    from examples import commands, data, registry

    assert commands.train
    # The first optimiser imports a thousand modules, and the first backward starts its engine.
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()

    for name in registry.MODELS:
        registry.model_class(name)
    data.load("digits")
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(_execute(Order(**json.loads(line))))), flush=True)


def _execute(order: Order) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        start = time.perf_counter()
        pids = []
        for variables in _ranks(order.ranks):
            pids.append(os.fork())
            if pids[-1] == 0:
                order.environment.update(variables)
                _child(order, out, err)
        pid = pids[0]
        if order.signal is not None:
            _wait(order, pid)
            os.kill(pid, order.signal)  # a process that has ended is there until it is waited for
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        seconds = time.perf_counter() - start
        texts = [path.read_text() if path.exists() else "" for path in (out, err)]
        return Done(next((code for code in codes if code), 0), *texts, seconds)


def _ranks(count: int) -> list[dict[str, str]]:
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [{**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(count)]


def _wait(order: Order, pid: int) -> None:
    from examples.harness.runlog import read_log

    time.sleep(order.after)
    while order.log is not None and not any(
        record["step"] >= order.step for record in read_log(Path(order.log))
    ):
        time.sleep(0.01)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _child(order: Order, out: Path, err: Path) -> None:
    code = 70
    try:
        if order.stdout == "pipe":
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open(order.stdout or out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(writer, 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored
        os.environ.update(order.environment)
        os.chdir(order.cwd)
        if order.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file, order.largest_file))
        from examples.cli import main

        code = main(order.argv)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = 71
        os._exit(code)


if __name__ == "__main__":
    serve()
