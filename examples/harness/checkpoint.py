"""Checkpoints: one file, written whole or not at all, read without executing anything."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from examples.errors import UsageError
from examples.harness.config import TrainConfig, build_model
from examples.model import DataSpec, GenerativeModel

FILE_NAME = "checkpoint.pt"
KEYS = ("config", "spec", "model", "ema", "optimizers", "scaler", "step", "position", "rng", "best")
MAX_SHOWN = 12


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes beside ``path``, then renames: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint on the CPU.

    Raises:
        UsageError: no such file, or not a checkpoint of this harness.
    """
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is damaged or not a checkpoint: {reason}") from None
    missing = [key for key in KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise UsageError(f"{path} is not a checkpoint of `examples`: it lacks {', '.join(missing)}")
    return state


def load_weights(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], name: str, path: Path
) -> None:
    """Copies ``weights`` into ``model``, or changes nothing and names every difference.

    Raises:
        UsageError: a key or a shape differs.
    """
    own = model.state_dict()
    problems = [f"  {key} is missing from the checkpoint" for key in own if key not in weights]
    problems += [f"  {key} is not in the model" for key in weights if key not in own]
    problems += [
        f"  {key} has shape {tuple(weights[key].shape)}; the model has {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if len(problems) > MAX_SHOWN:
        problems[MAX_SHOWN:] = [f"  and {len(problems) - MAX_SHOWN} more"]
    if problems:
        raise UsageError(f"{path} does not match the model {name}:\n" + "\n".join(problems))
    model.load_state_dict(weights)


def load_model(name: str, path: Path) -> GenerativeModel:
    """The trained model of a checkpoint, on the CPU, in eval mode.

    These are the averaged weights at the best validation step, or else the last ones.

    Raises:
        UsageError: the checkpoint is missing, damaged, or of another model.
    """
    state = load(path)
    config = TrainConfig(**state["config"])
    options = config.options if config.model == name else {}
    model = build_model(name, DataSpec(**state["spec"]), options)
    weights = state["best"]["model"]
    if weights is None:
        averaged = state["ema"].items()
        weights = {k.removeprefix("module."): v for k, v in averaged if k.startswith("module.")}
    load_weights(model, weights, name, path)
    return model.eval()
