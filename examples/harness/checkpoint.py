"""Checkpoints: one file, written whole or not at all, read without executing anything."""

import io
from pathlib import Path
from typing import Any

import torch

from examples.errors import UsageError, wrong
from examples.harness import rundir
from examples.harness.config import TrainConfig, build_model
from examples.model import DataSpec, GenerativeModel

NONE = type(None)
#: What a checkpoint holds, and the types of each.
TYPES: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "spec": (dict,),
    "data": (str,),
    "model": (dict,),
    "ema": (dict,),
    "optimizers": (dict,),
    "scaler": (dict, NONE),
    "step": (int,),
    "position": (int,),
    "rng": (list,),
    "best": (dict,),
    "log": (dict,),
}
NESTED: dict[str, dict[str, tuple[type, ...]]] = {
    "spec": {"shape": (tuple,), "levels": (int, NONE), "classes": (int, NONE)},
    "best": {"step": (int,), "value": (float, NONE), "model": (dict, NONE), "stale": (int,)},
    "log": {"bytes": (int,), "sha256": (str,)},
}
MAX_SHOWN = 12


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint; a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    rundir.write_sealed(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint on the CPU.

    Raises:
        UsageError: no such file, damaged, or not a checkpoint of this harness.
    """
    content = rundir.read_sealed(path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever was sealed; unpacking it may fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{path} is not a checkpoint of `examples`: {lines[0]}") from None
    _check_types(path, "", state, TYPES)
    for name, types in NESTED.items():
        _check_types(path, f"{name}.", state[name], types)
    if not all(type(size) is int and size > 0 for size in state["spec"]["shape"]):
        raise wrong(f"{path}: spec.shape", "sizes of at least 1", state["spec"]["shape"])
    try:
        state["config"] = TrainConfig.read(state["config"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return state


def _check_types(path: Path, prefix: str, state: Any, types: dict[str, tuple[type, ...]]) -> None:
    if not isinstance(state, dict) or set(state) != set(types):
        keys = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise wrong(f"{path}: {prefix or 'a checkpoint'}", ", ".join(types), keys)
    for name, allowed in types.items():
        if type(state[name]) not in allowed:
            names = " or ".join(kind.__name__ for kind in allowed)
            raise wrong(f"{path}: {prefix}{name}", names, type(state[name]).__name__)


def load_weights(model: torch.nn.Module, weights: dict[str, Any], name: str, path: Path) -> None:
    """Copies ``weights`` into ``model``, or changes nothing and names every difference.

    Raises:
        UsageError: a key, a type or a shape differs.
    """
    own = model.state_dict()
    problems = [f"{key} is missing from the checkpoint" for key in own if key not in weights]
    problems += [f"{key} is not in the model" for key in weights if key not in own]
    for key in own:
        found = weights.get(key, own[key])
        if not isinstance(found, torch.Tensor):
            problems.append(f"{key} is of type {type(found).__name__}")
        elif (found.shape, found.dtype) != (own[key].shape, own[key].dtype):
            theirs, ours = (f"{tuple(t.shape)} {t.dtype}" for t in (found, own[key]))
            problems.append(f"{key} has shape {theirs}; the model has {ours}")
    if len(problems) > MAX_SHOWN:
        problems[MAX_SHOWN:] = [f"and {len(problems) - MAX_SHOWN} more"]
    if problems:
        raise UsageError(f"{path} does not match the model {name}: " + "; ".join(problems))
    model.load_state_dict(weights)


def load_model(name: str, path: Path) -> GenerativeModel:
    """The trained model of a checkpoint, on the CPU, in eval mode.

    These are the averaged weights at the best validation step, or else the last ones.

    Raises:
        UsageError: the checkpoint is missing, damaged, or of another model.
    """
    state = load(path)
    config = state["config"]
    if config.model != name:
        raise wrong("--run", f"a run of {name}", path.parent, f"a run of {config.model}")
    model = build_model(name, DataSpec(**state["spec"]), config.options)
    weights = state["best"]["model"]
    if weights is None:
        averaged = state["ema"].items()
        weights = {k.removeprefix("module."): v for k, v in averaged if k.startswith("module.")}
    load_weights(model, weights, name, path)
    return model.eval()
