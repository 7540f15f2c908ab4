"""What a checkpoint holds of a trainer, and a trainer made to go on from it."""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.runlog import EMPTY
from examples.paths import CHECKPOINT

if TYPE_CHECKING:
    from examples.harness.trainer import Trainer


def collect(trainer: "Trainer") -> dict[str, Any] | None:
    """The whole state, on the main process; all processes call it."""
    device_rng = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    rng = [(torch.get_rng_state(), trainer.generator.get_state(), device_rng)]
    rng = gather_object(rng) if trainer.accelerator.num_processes > 1 else rng
    if not trainer.accelerator.is_main_process:
        return None
    scaler = trainer.accelerator.scaler
    return {
        "config": dataclasses.asdict(trainer.config),
        "spec": dataclasses.asdict(trainer.dataset.spec),
        "data": trainer.data_digest,
        "model": dict(trainer.model.state_dict()),
        "ema": dict(trainer.ema.state_dict()),
        "optimizers": {name: o.state_dict() for name, o in trainer.optimizers.items()},
        "scaler": None if scaler is None else scaler.state_dict(),
        "step": trainer.step,
        "position": trainer.batches.position,
        "rng": rng,
        "best": trainer.best,
        "log": EMPTY if trainer.recorder is None else trainer.recorder.log.mark,
    }


def check(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Raises a UsageError where the state is of another model or of other data."""
    path = trainer.out / CHECKPOINT
    checkpoint.load_weights(trainer.model, state["model"], trainer.config.model, path)
    checkpoint.load_weights(trainer.ema, state["ema"], trainer.config.model, path)
    if state["data"] != trainer.data_digest:
        raise UsageError(f"--resume: the data of {trainer.config.data} are not those of the run")


def restore(trainer: "Trainer", state: dict[str, Any]) -> None:
    ranks, found = trainer.accelerator.num_processes, len(state["rng"])
    if found != ranks:
        raise UsageError(f"the run has {found} processes; got {ranks}")
    try:
        for name, optimizer in trainer.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        scaler = trainer.accelerator.scaler
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        torch_rng, noise_rng, device_rng = state["rng"][trainer.accelerator.process_index]
        torch.set_rng_state(torch_rng)
        trainer.generator.set_state(noise_rng)
        if device_rng is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(device_rng)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        text = str(error).strip().partition("\n")[0]
        raise UsageError(f"{trainer.out / CHECKPOINT} does not fit the run: {text}") from None
    trainer.step, trainer.best = state["step"], state["best"]
    trainer.batches.position = state["position"]
