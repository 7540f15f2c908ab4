"""The options of a run, and the model that they describe."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from examples import data, registry
from examples.errors import UsageError, unknown_name, wrong
from examples.model import DataSpec, GenerativeModel
from examples.options import PLAYER, TRAIN, Value, flag

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
    beta2: float
    ema_decay: float
    players: dict[str, dict[str, float]] = field(default_factory=dict)
    data: str = "digits"
    data_dir: str | None = None
    options: dict[str, Value] = field(default_factory=dict)
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    anneal: float = 0.0
    eval_every: int = 50
    patience: int = 5
    checkpoint_every: int = 500
    sample_every: int = 1000
    seed: int = 0
    precision: str = "no"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, (takes, _) in TRAIN.items():
            setattr(self, name, takes.check(flag(name), getattr(self, name)))
        if not isinstance(self.data_dir, str | None):
            raise wrong("--data-dir", "a folder", self.data_dir)
        for name, kind in (("data", str), ("options", dict), ("players", dict)):
            if not isinstance(getattr(self, name), kind):
                raise wrong(flag(name), kind.__name__, getattr(self, name))
        for name, value in self.options.items():
            registry.takes(self.model, name).check(f"--set {name}", value)
        for player, given in self.players.items():
            check_player(player, given)

    @classmethod
    def for_model(cls, model: str, **overrides: Any) -> "TrainConfig":
        """The registry's options of ``model``, with overrides (an unknown one is a TypeError)."""
        entry = registry.entry(model)
        names = ("steps", "lr", "batch_size", "beta1", "beta2", "ema_decay")
        given = {name: getattr(entry, name) for name in names}
        source = data.source(overrides.get("data", cls.data))
        if source.large:
            given |= entry.large
        if not source.images:
            given |= entry.points
        options = {**given.get("options", {}), **overrides.get("options", {})}
        given |= overrides | {"options": options}
        given["players"] = merged(entry.players, overrides.get("players", {}))
        return cls(model=model, **given)

    @classmethod
    def read(cls, found: dict[str, Any]) -> "TrainConfig":
        """The configuration in a checkpoint; of an older one, defaults stand for newer options."""
        fields = dataclasses.fields(cls)
        names = [f.name for f in fields]
        newer = {f.name for f in fields if f.default is not dataclasses.MISSING}
        if not set(names) - newer <= set(found) <= set(names):
            raise wrong("config", ", ".join(names), ", ".join(map(str, found)))
        if not isinstance(found["model"], str):
            raise wrong("config.model", "a name", found["model"])
        return cls(**found)

    def of_player(self, player: str) -> dict[str, float]:
        """Values of `PLAYER`."""
        shared = {name: getattr(self, name) for name in PLAYER}
        return shared | self.players.get(player, {})

    def resumed(self, given: dict[str, Any]) -> "TrainConfig":
        """This configuration, from a checkpoint, with the options ``given`` on the command line."""
        if "players" in given:
            given = {**given, "players": merged(self.players, given["players"])}
        for name, value in given.items():
            if name not in CHANGEABLE and value != getattr(self, name):
                raise UsageError(
                    f"--resume: {name} is {getattr(self, name)!r} in the checkpoint; got {value!r} "
                    f"(only these may change: {', '.join(CHANGEABLE)})"
                )
        return dataclasses.replace(self, **given)


def merged(first: dict[str, dict], second: dict[str, dict]) -> dict[str, dict]:
    """Options of the players, those of ``second`` over those of ``first``."""
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in {**first, **second}}


def check_player(player: str, given: dict[str, Any]) -> None:
    if not isinstance(given, dict):
        raise wrong(f"--player {player}", "NAME=VALUE", given)
    for name, value in given.items():
        if name not in PLAYER:
            raise unknown_name(f"--player {player}", name, PLAYER)
        PLAYER[name][0].check(f"--player {player}.{name}", value)


def build_model(name: str, spec: DataSpec, given: dict[str, Value]) -> GenerativeModel:
    """Constructs a model of the registry.

    Raises:
        UsageError: an unknown option, a value that the model refuses, or data it cannot use.
    """
    levels, labels = spec.levels is not None, spec.classes is not None
    reason = registry.refusal(name, images=spec.is_image, levels=levels, labels=labels)
    if reason is not None:
        raise UsageError(f"{name} cannot be trained on this data: {reason}")
    for option, value in given.items():
        registry.takes(name, option).check(f"--set {option}", value)
    try:
        return registry.model_class(name)(spec, **given)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{name}: {error}") from error
