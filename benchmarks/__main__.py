"""Command line: `python -m benchmarks {run,training,scaling,profile,compare,plot,readme,tune}`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the memory profiler says hello otherwise

import torch

from benchmarks import training
from benchmarks.core import case, store, tune
from benchmarks.core.compare import compare
from benchmarks.core.measure import FULL, QUICK, AboveRoofline
from benchmarks.core.profile import NoProfile, profile
from benchmarks.core.readme import NoMarkers, write_pages
from benchmarks.core.run import run
from benchmarks.core.scaling import scaling
from benchmarks.core.train import train

DTYPES = ("float32", "float64", "bfloat16", "float16")
BASELINES = ("eager", "compile", "library")


def _one_of(kind: str, valid: Sequence[str]):
    def check(text: str) -> str:
        if text not in valid:
            raise argparse.ArgumentTypeError(
                f"{kind} must be one of {', '.join(valid)}; got {text!r}"
            )
        return text

    return check


def _baselines(text: str) -> tuple[str, ...]:
    check = _one_of("baseline", BASELINES)
    return tuple(check(name) for name in text.split(",") if name)


def _measuring(command: argparse.ArgumentParser, ops: Sequence[str]) -> None:
    command.add_argument("op", nargs="*", type=_one_of("op", ops), help=", ".join(ops))
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--dtype", choices=DTYPES, default="float32")
    command.add_argument("--threads", type=int, help="default: torch's")
    _placing(command)


def _placing(command: argparse.ArgumentParser) -> None:
    place = command.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help="JSON lines; default: print only")
    place.add_argument(
        "--store", action="store_true", help="into benchmarks/results, by device and level"
    )
    command.add_argument("--quick", action="store_true", help="a look, not a result")


def parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    top = argparse.ArgumentParser(prog="python -m benchmarks", allow_abbrev=False)
    sub = top.add_subparsers(dest="command", required=True)
    helps = {
        "run": "measure genkern and its baselines",
        "training": "training steps of whole networks, and their memory, against plain PyTorch",
        "scaling": "time against batch, channels, side and threads",
        "profile": "where the time of a case goes, by function of the C++ sources",
        "compare": "genkern's times in two files",
        "plot": "PNG of result files",
        "readme": "rewrite the tables of README.md and docs/benchmarks.md from the stored results",
        "tune": "measure tiles of the Triton kernels on this GPU and rewrite their table",
    }
    commands = {n: sub.add_parser(n, help=h, allow_abbrev=False) for n, h in helps.items()}
    _measuring(commands["run"], case.names())
    commands["run"].add_argument(
        "--against",
        type=_baselines,
        help=f"of {','.join(BASELINES)}; default all, and without compile under --quick",
    )
    commands["run"].add_argument(
        "--busy", type=int, default=0, metavar="N", help="beside N processes that never pause"
    )
    names = ", ".join(training.networks())
    commands["training"].add_argument("op", nargs="*", help=f"parts of the names of {names}")
    _placing(commands["training"])
    commands["training"].set_defaults(device="cpu", dtype="float32", threads=None)
    _measuring(commands["scaling"], case.families())
    commands["profile"].add_argument("op", type=_one_of("op", case.names()))
    commands["profile"].add_argument("shape", nargs="?", default="", help="part of its name")
    commands["profile"].add_argument("--phase", choices=case.PHASES, default=case.PHASES[1])
    commands["profile"].add_argument("--dtype", choices=DTYPES, default="float32")
    for name in ("a", "b"):
        commands["compare"].add_argument(name, type=Path)
    commands["plot"].add_argument("file", nargs="+", type=Path)
    commands["plot"].add_argument("--out", type=Path, help="folder; default: beside each file")
    commands["tune"].add_argument("--dtype", choices=DTYPES, help="default: one of each size")
    commands["tune"].set_defaults(device="cuda")
    return top, commands


def _command(arguments: argparse.Namespace) -> str:
    """The line that repeats this run, without the place of its output."""
    words = ["python", "-m", "benchmarks", arguments.command, *arguments.op]
    words += ["--device", arguments.device, "--dtype", arguments.dtype]
    if arguments.threads is not None:
        words += ["--threads", str(arguments.threads)]
    if getattr(arguments, "against", None):
        words += ["--against", ",".join(arguments.against)]
    if getattr(arguments, "busy", 0):
        words += ["--busy", str(arguments.busy)]
    return shlex.join(words + ["--quick"] * arguments.quick)


def _measure(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    dtype, device = getattr(torch, arguments.dtype), arguments.device
    budget = QUICK if arguments.quick else FULL
    context = store.context(device, _command(arguments), getattr(arguments, "busy", 0))
    if arguments.command == "run":
        against = arguments.against
        if against is None:
            against = ("eager", "library") if arguments.quick else BASELINES
        cases = case.select(arguments.op, arguments.quick)
        records = run(cases, dtype, device, budget, against, context)
    elif arguments.command == "training":
        parts = arguments.op or [""]
        found = [n for n in training.networks().values() if any(p in n.name for p in parts)]
        records = train(found, budget, context)
    else:
        records = scaling(arguments.op or case.families(), dtype, device, budget, context)
    if arguments.out is not None or arguments.store:
        path = arguments.out or store.place(records)
        store.write(path, records)
    failures = [record for record in records if record["kind"] == "failure"]
    for record in failures:
        shape = f"{record['op']} {record['shape']} {record['phase']}"
        print(f"RED: {shape} {record['implementation']}: {record['error']}", file=sys.stderr)
    return int(any(record["implementation"] == "genkern" for record in failures))


def _profile(arguments: argparse.Namespace) -> int:
    cases = [c for c in case.select([arguments.op]) if arguments.shape in c.shape]
    for found in cases:
        if arguments.phase in found.phases:
            lines = profile(found, arguments.phase, getattr(torch, arguments.dtype))
            print("\n".join(lines) + "\n", flush=True)
    return 0 if cases else 2


def _plot(files: Sequence[Path], folder: Path | None) -> None:
    from benchmarks.core.plot import plot

    for path in files:
        for made in plot(store.read(path), folder or path.parent, path.stem):
            print(made)


def main(words: Sequence[str] | None = None) -> int:
    top, commands = parser()
    arguments, rest = top.parse_known_args(words)
    command = commands[arguments.command]
    if rest:
        command.error(f"unrecognized arguments: {' '.join(rest)}\n{command.format_help()}")
    if getattr(arguments, "store", False) and (arguments.op or arguments.quick):
        command.error("--store keeps whole runs: without op and --quick; --out keeps any")
    if getattr(arguments, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        command.error("--device cuda: no CUDA device")
    try:
        if arguments.command == "compare":
            print(compare(store.read(arguments.a), store.read(arguments.b)))
        elif arguments.command == "profile":
            return _profile(arguments)
        elif arguments.command == "plot":
            _plot(arguments.file, arguments.out)
        elif arguments.command == "readme":
            write_pages(store.ROOT, sorted(store.RESULTS.glob("*/*/*.jsonl")))
        elif arguments.command == "tune":
            names = [arguments.dtype] if arguments.dtype else ["bfloat16", "float32", "float64"]
            tune.write([getattr(torch, name) for name in names])
        else:
            return _measure(arguments)
    except AboveRoofline as error:
        print(f"above the roofline: {error}", file=sys.stderr)
        return 1
    except (store.BadFile, NoMarkers, NoProfile) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
