"""The options of a run, and the model that they describe."""

import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import Any

from examples import registry
from examples.errors import UsageError, unknown_name
from examples.model import DataSpec, GenerativeModel

Option = bool | int | float | str
PRECISIONS = ("no", "bf16", "fp16")
#: What may change when a run is resumed; all else would make it another run.
CHANGEABLE = (
    "steps",
    "eval_every",
    "patience",
    "checkpoint_every",
    "sample_every",
    "data_dir",
    "device",
)


@dataclass
class TrainConfig:
    """All options of a training run; `for_model` fills in those that the registry recommends."""

    model: str
    steps: int
    lr: float
    batch_size: int
    beta1: float
    ema_decay: float
    data: str = "digits"
    data_dir: str | None = None
    options: dict[str, Option] = field(default_factory=dict)
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    eval_every: int = 50
    patience: int = 5
    checkpoint_every: int = 500
    sample_every: int = 1000
    seed: int = 0
    precision: str = "no"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("seed", "eval_every", "patience", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0; got {getattr(self, name)}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise UsageError(f"ema_decay must be in [0, 1); got {self.ema_decay}")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.device not in ("auto", "cpu"):
            raise unknown_name("device", self.device, ("auto", "cpu"))

    @classmethod
    def for_model(cls, model: str, **overrides: Any) -> "TrainConfig":
        """The registry's options of ``model``, with overrides (an unknown one is a TypeError)."""
        entry = dataclasses.asdict(registry.entry(model))
        del entry["path"]
        return cls(model=model, **{**entry, **overrides})

    def resumed(self, given: dict[str, Any]) -> "TrainConfig":
        """This configuration, from a checkpoint, with the options ``given`` on the command line."""
        for name, value in given.items():
            if name not in CHANGEABLE and value != getattr(self, name):
                raise UsageError(
                    f"--resume: {name} is {getattr(self, name)!r} in the checkpoint; got {value!r} "
                    f"(only these may change: {', '.join(CHANGEABLE)})"
                )
        return dataclasses.replace(self, **given)


def build_model(name: str, spec: DataSpec, options: dict[str, Option]) -> GenerativeModel:
    """Constructs a model of the registry.

    Raises:
        UsageError: an unknown option, a value that the model refuses, or data it cannot use.
    """
    model_class = registry.model_class(name)
    reason = model_class.unsupported(spec)
    if reason is not None:
        raise UsageError(f"{name} cannot be trained on this data: {reason}")
    known = model_options(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    try:
        return model_class(spec, **options)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{name}: {error}") from error


def model_options(name: str) -> dict[str, Option]:
    """The keyword options of a model and their defaults."""
    parameters = inspect.signature(registry.model_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def parse_options(name: str, pairs: list[str]) -> dict[str, Option]:
    """Reads NAME=VALUE pairs by the types of the model's defaults."""
    known, options = model_options(name), {}
    for pair in pairs:
        option, _, text = pair.partition("=")
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
        options[option] = _parse(option, text, type(known[option]))
    return options


def _parse(option: str, text: str, kind: type) -> Option:
    if kind is bool:
        if text not in ("true", "false"):
            raise UsageError(f"option {option} must be true or false; got {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"option {option} must be {kind.__name__}; got {text!r}") from None
