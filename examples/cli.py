"""The command line. Options and paths are checked before torch is imported or a file written."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples import arguments, data, described, options, paths, registry
from examples.compression import command as compression
from examples.errors import UsageError, reason, unknown_name, wrong

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


def given_or(text: str | None, default: str) -> str:
    """An empty text was given, and is wrong."""
    return default if text is None else text


def numbers(args: argparse.Namespace, table: dict[str, tuple[options.Takes, str]]) -> dict:
    """The options of a table that were given, read and checked."""
    given = {name: getattr(args, name) for name in table if hasattr(args, name)}
    return {name: table[name][0].read(options.flag(name), text) for name, text in given.items()}


def data_options(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """The options about data, checked for the models of ``names``."""
    given = {n: getattr(args, n) for n in ("data", "data_dir") if getattr(args, n) is not None}
    name = given.get("data", "digits")
    source = data.source(name)
    for model in names:
        why = refusal(model, source)
        if why is not None:
            raise wrong("--data", f"data that {model} can be trained on", name, why)
    folder = given.get("data_dir", os.environ.get("GENKERN_DATA") if source.local else None)
    if folder is not None:
        paths.folder_to_read("--data-dir" if "data_dir" in given else "GENKERN_DATA", folder)
    return given


def model_settings(name: str, pairs: Sequence[str]) -> dict[str, options.Value]:
    found = {}
    for text in pairs:
        option, value = options.pair("--set", text)
        found[option] = registry.takes(name, option).read(f"--set {option}", value)
    return found


def player_settings(pairs: Sequence[str]) -> dict[str, dict[str, options.Value]]:
    found: dict[str, dict[str, options.Value]] = {}
    for text in pairs:
        left, value = options.pair("--player", text)
        player, _, option = left.rpartition(".")
        if not player:
            raise wrong("--player", arguments.PAIRS["player"], text)
        if option not in options.PLAYER:
            raise unknown_name(f"--player {player}", option, options.PLAYER)
        takes = options.PLAYER[option][0]
        found.setdefault(player, {})[option] = takes.read(f"--player {left}", value)
    return found


def run_train(args: argparse.Namespace) -> int:
    registry.entry(args.model)
    given: dict[str, Any] = numbers(args, options.TRAIN)
    if args.set:
        given["options"] = model_settings(args.model, args.set)
    if args.player:
        given["players"] = player_settings(args.player)
    given |= data_options(args, [args.model] if args.data or not args.resume else [])
    out = paths.folder_to_write("--out", given_or(args.out, f"runs/{args.model}"))
    started = (out / paths.CHECKPOINT).is_file()
    if args.resume and not (started or (out / paths.LOCK).exists()):
        raise wrong("--resume", "a run", str(out), f"there is no checkpoint in {out}")
    if started and not args.resume:
        raise wrong("--out", "a folder without a run", str(out), "it holds one; add --resume")
    from examples.commands import train

    return train(args.model, given, out, resume=args.resume)


def run_sample(args: argparse.Namespace) -> int:
    registry.entry(args.model)
    given = numbers(args, options.SAMPLE)
    run = paths.run_to_read("--run", given_or(args.run, f"runs/{args.model}"))
    out = paths.picture_to_write("--out", given_or(args.out, str(run / "samples.png")))
    from examples.commands import sample

    return sample(args.model, run, out, film=paths.film_to_write(args.film), **given)


def run_evaluate(args: argparse.Namespace) -> int:
    run, folder = run_of(args, registry.likelihood_entry)
    page = page_folder(args)
    from examples.evaluate import evaluate

    return evaluate(args.model, run, folder, page)


def run_compare(args: argparse.Namespace) -> int:
    if len(args.runs) < 2:
        raise wrong("RUN", "two or more folders of runs", args.runs[0])
    runs = [paths.run_to_read("RUN", text) for text in args.runs]
    if args.data_dir is not None:
        paths.folder_to_read("--data-dir", args.data_dir)
    page = page_folder(args)
    from examples.evaluate import compare

    return compare(runs, args.data_dir, page)


def page_folder(args: argparse.Namespace) -> Path | None:
    return None if args.page is None else paths.folder_to_write("--page", args.page)


def run_complete(args: argparse.Namespace) -> int:
    run, folder = run_of(args, registry.exact_entry)
    given = numbers(args, options.COMPLETE)
    out = paths.picture_to_write("--out", given_or(args.out, str(run / "completions.png")))
    page = page_folder(args)
    from examples.evaluate import complete

    return complete(args.model, run, folder, out, page, **given)


def run_of(
    args: argparse.Namespace, entry: Callable[[str], registry.Entry]
) -> tuple[Path, str | None]:
    """The run of a model that ``entry`` takes, and the folder of its data."""
    entry(args.model)
    run = paths.run_to_read("--run", given_or(args.run, f"runs/{args.model}"))
    if args.data_dir is not None:
        paths.folder_to_read("--data-dir", args.data_dir)
    return run, args.data_dir


def run_demo(args: argparse.Namespace) -> int:
    out = paths.folder_to_write("--out", args.out)
    from examples.demo.run import demo

    return demo(out)


def run_table(args: argparse.Namespace) -> int:
    names = args.model or trainable(args.data)
    for name in names:
        registry.entry(name)
    given = {**numbers(args, {"steps": options.TRAIN["steps"]}), **data_options(args, names)}
    out = paths.folder_to_write("--out", args.out)
    page = paths.folder_to_write("--page", args.page)
    from examples.table import table

    return table(names, given, out, page, resume=args.resume)


def trainable(name: str) -> list[str]:
    """The models that can be trained on a data set."""
    return [model for model in registry.MODELS if refusal(model, data.source(name)) is None]


def refusal(model: str, source: data.Source) -> str | None:
    """Why a model cannot be trained on such data, or None."""
    kind = {"images": source.images, "levels": source.images}
    return registry.refusal(model, **kind, labels=source.labels, colours=source.colours)


def run_list(args: argparse.Namespace) -> int:
    print("models (python -m examples train NAME --set OPTION=VALUE)")
    for name, entry in registry.MODELS.items():
        given = " ".join(f"{key}={value}" for key, value in registry.model_options(name).items())
        print(f"  {name:23} {described.summary(entry.path)}\n  {'':23}   {given}")
    print("\ndata sets (--data NAME)")
    for name, source in data.DATASETS.items():
        print(f"  {name:23} {described.summary(source.path)}")
    return 0


Command = tuple[str, Callable[[arguments.Parser], None], Callable[[argparse.Namespace], int]]
COMMANDS: dict[str, Command] = {
    "list": ("models, their options, and data sets", lambda parser: None, run_list),
    "train": ("train a model", arguments.train_options, run_train),
    "sample": ("sample a trained model", arguments.sample_options, run_sample),
    "evaluate": (
        "likelihood or its bounds, classes, outliers",
        arguments.evaluate_options,
        run_evaluate,
    ),
    "compare": ("runs, on the same test images", arguments.compare_options, run_compare),
    "complete": (
        "draw lower halves of images, or their colours",
        arguments.complete_options,
        run_complete,
    ),
    **compression.COMMANDS,
    "table": ("train models; write examples/README.md", arguments.table_options, run_table),
    "demo": ("train four models; write a report", arguments.demo_options, run_demo),
}


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    if sys.stderr is None:  # it is closed: errors have nowhere to go
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        if sys.stdout is None:
            raise UsageError("standard output is closed; takes a terminal, a file or a pipe")
        code = run(list(argv))
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'the output'} cannot be written: {reason(error)}")
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(argv: list[str]) -> int:
    ranks = options.Number(int, 0, 10**6)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        if name in os.environ:
            ranks.read(name, os.environ[name])
    if not argv or argv[0] in ("-h", "--help"):
        print("python -m examples COMMAND [-h]\n")
        print("\n".join(f"  {name:10} {text}" for name, (text, _, _) in COMMANDS.items()))
        return 0
    if argv[0] not in COMMANDS:
        raise unknown_name("COMMAND", argv[0], COMMANDS)
    text, add, start = COMMANDS[argv[0]]
    parser = arguments.Parser(f"python -m examples {argv[0]}", description=text, allow_abbrev=False)
    add(parser)
    try:
        return start(parser.parse(argv[1:]))
    except SystemExit as done:  # of --help
        return int(done.code or 0)


def _fail(text: str) -> int:
    rank = os.environ.get("RANK", "")
    if rank == "0" or not rank.isdecimal():  # of several processes, one says it
        try:
            print("error: " + " ".join(text.split()), file=sys.stderr)
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            # What is left in the buffer of a closed or full output must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_USAGE
