"""The arguments of each command; their values are checked in `examples.cli`."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from examples import data, options
from examples.errors import UsageError, unknown_name, wrong

PAIRS = {
    "set": "NAME=VALUE, options of the model",
    "player": "PLAYER.NAME=VALUE, options of one player",
}


class Parser(argparse.ArgumentParser):
    """Every error is a sentence: the option, what it takes, what it got."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.takes: dict[str, object] = {}

    def add(self, name: str, takes: object, text: str, **given: Any) -> None:
        self.add_argument(options.flag(name), dest=name, help=f"{text} ({takes})", **given)
        self.takes[options.flag(name)] = takes

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        joined: list[str] = []
        for text in argv:  # a value such as -inf is no option
            previous = joined[-1] if joined else ""
            negative = re.fullmatch(r"-[^-].*", text) and text != "-h"
            if negative and self.takes.get(previous, "") not in ("", *PAIRS.values()):
                joined[-1] += "=" + text
            else:
                joined.append(text)
        args, unknown = self.parse_known_args(joined)
        if unknown:
            flags = [f for a in self._actions for f in a.option_strings if f.startswith("--")]
            bad = next((text for text in unknown if text.startswith("-")), unknown[0])
            raise unknown_name(self.prog, bad.partition("=")[0], flags)
        return args

    def error(self, message: str) -> NoReturn:
        found = re.match(r"argument (--[\w-]+): expected", message)
        if found:
            raise wrong(found[1], self.takes[found[1]], "nothing")
        raise UsageError(f"{self.prog}: {message}")


def train_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="python -m examples list")
    parser.add("data", ", ".join(data.DATASETS), "data set; default digits")
    parser.add("data_dir", "a folder", "where local data files are; default $GENKERN_DATA")
    add_numbers(parser, options.TRAIN)
    for name, takes in PAIRS.items():
        parser.add(name, takes, "one or several", nargs="+", action="extend", default=[])
    parser.add("out", "a folder that can be written", "of the run; default runs/MODEL")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")


def sample_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="python -m examples list")
    parser.add("run", "the folder of a run", "default runs/MODEL")
    add_numbers(parser, options.SAMPLE)
    parser.add("out", "a .png file that can be written", "default RUN/samples.png")
    parser.add("film", "a .gif file that can be written", "the drawing, beside a pass per place")


def evaluate_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="python -m examples list")
    parser.add("run", "the folder of a run", "default runs/MODEL")
    parser.add("data_dir", "a folder", "of local data files; default: the run's")
    page_option(parser)


def page_option(parser: Parser) -> None:
    text = "README.md, which is to have what comes of it too; default: none"
    parser.add("page", "a folder that can be written", text)


def compare_options(parser: Parser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs, on the same data")
    parser.add("data_dir", "a folder", "of local data files; default: the run's")
    page_option(parser)


def complete_options(parser: Parser) -> None:
    evaluate_options(parser)
    add_numbers(parser, options.COMPLETE)
    parser.add("out", "a .png file that can be written", "default RUN/completions.png")


def demo_options(parser: Parser) -> None:
    parser.add("out", "a folder that can be written", "default runs/demo", default="runs/demo")


def table_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="*", help="default: all")
    parser.add("data", ", ".join(data.DATASETS), "data set; default digits", default="digits")
    parser.add("data_dir", "a folder", "where local data files are; default $GENKERN_DATA")
    add_numbers(parser, {"steps": options.TRAIN["steps"]})
    parser.add("out", "a folder that can be written", "of the runs", default="runs/table")
    text = "go on from the runs in --out; measure those that are finished"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "README.md, pictures and rows go there; default examples"
    parser.add("page", "a folder that can be written", text, default="examples")


def add_numbers(parser: Parser, table: dict[str, tuple[options.Takes, str]]) -> None:
    for name, (takes, text) in table.items():
        parser.add(name, takes, text, default=argparse.SUPPRESS)
