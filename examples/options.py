"""The options and what each takes: one table, which checks values and writes the help text."""

import math
from dataclasses import dataclass
from typing import Any

from examples.errors import unknown_name, wrong

Value = bool | int | float | str


@dataclass(frozen=True)
class Number:
    """Finite numbers from ``low`` to ``high``; ``above``, ``below``: the end itself is excluded."""

    kind: type
    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        noun = "an integer" if self.kind is int else "a number"
        if self.high == math.inf:
            return f"a finite number {'above' if self.above else 'of at least'} {self.low:g}"
        if self.kind is int:
            return f"{noun} from {self.low:,} to {self.high:,}"
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"{noun} in {left}{self.low:g}, {self.high:g}{right}"

    def read(self, option: str, text: str) -> Value:
        try:
            value = self.kind(text)
        except ValueError:
            raise wrong(option, self, text) from None
        return self.check(option, value, text)

    def check(self, option: str, value: Any, text: str | None = None) -> Value:
        """The value, if it is taken; ``text``: as it was typed."""
        numeric = isinstance(value, (int, self.kind)) and not isinstance(value, bool)
        if (
            not numeric
            or not -math.inf < value < math.inf
            or not (value > self.low if self.above else value >= self.low)
            or not (value < self.high if self.below else value <= self.high)
        ):
            raise wrong(option, self, value if text is None else text)
        return self.kind(value)


@dataclass(frozen=True)
class Choice:
    """One of a few names."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.names)

    def read(self, option: str, text: str) -> Value:
        return self.check(option, text)

    def check(self, option: str, value: Any) -> Value:
        if value not in self.names:
            raise unknown_name(option, str(value), self.names)
        return value


class Switch(Choice):
    """true or false."""

    def __init__(self) -> None:
        super().__init__(("true", "false"))

    def read(self, option: str, text: str) -> Value:
        return super().check(option, text) == "true"

    def check(self, option: str, value: Any) -> Value:
        if not isinstance(value, bool):
            raise wrong(option, self, value)
        return value


Takes = Number | Choice
COUNT, PERIOD, UNIT = Number(int, 1, 10**9), Number(int, 0, 10**9), Number(float, 0, 1, below=True)
NOT_NEGATIVE = Number(float, 0)
POSITIVE, SEED = Number(float, 0, above=True), Number(int, 0, 2**63 - 1)

#: Of every player of a model; `--player NAME.OPTION=VALUE` sets one player's alone.
PLAYER: dict[str, tuple[Takes, str]] = {
    "lr": (POSITIVE, "learning rate of Adam"),
    "beta1": (UNIT, "first momentum of Adam"),
    "beta2": (UNIT, "second momentum of Adam"),
    "weight_decay": (Number(float, 0), "weight decay of Adam"),
    "clip_norm": (POSITIVE, "largest gradient norm"),
}
TRAIN: dict[str, tuple[Takes, str]] = {
    "steps": (COUNT, "training steps at most"),
    "batch_size": (Number(int, 1, 10**6), "items in a batch, over all processes"),
    **PLAYER,
    "anneal": (Number(float, 0, 1), "share of the steps, the last ones, in which lr falls to 0"),
    "ema_decay": (UNIT, "decay of the averaged weights"),
    "eval_every": (PERIOD, "steps between validations; 0: never"),
    "patience": (PERIOD, "validations without improvement before the end; 0: no early end"),
    "checkpoint_every": (PERIOD, "steps between checkpoints; 0: only at the end"),
    "sample_every": (PERIOD, "steps between sample pictures; 0: never"),
    "seed": (SEED, "of weights, data order and noise"),
    "precision": (Choice(("no", "bf16", "fp16")), "mixed precision"),
    "device": (Choice(("auto", "cpu")), "where to train"),
}
SAMPLE: dict[str, tuple[Takes, str]] = {
    "num": (Number(int, 1, 10**6), "samples; default 64"),
    "temperature": (NOT_NEGATIVE, "default 1; below 1: nearer to what is likely; 0: that itself"),
    "seed": (SEED, "default 0"),
    "label": (Number(int, 0, 10**6), "class, of models that take labels; default: each in turn"),
}
COMPLETE: dict[str, tuple[Takes, str]] = {
    "num": (Number(int, 1, 1000), "images to complete; default 8"),
    "temperature": SAMPLE["temperature"],
    "seed": SAMPLE["seed"],
}
#: Options of a model (`--set`), by the type of their default, where its entry says nothing closer.
OF_MODEL: dict[type, Takes] = {
    bool: Switch(),
    int: Number(int, 1, 65536),
    float: Number(float, 0),
}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def pair(option: str, text: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise wrong(option, "NAME=VALUE", text)
    return name, value
