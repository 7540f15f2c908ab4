"""What the commands do, once their options are checked."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

from examples import data
from examples.errors import UsageError
from examples.harness import checkpoint, images, rundir
from examples.harness.config import TrainConfig
from examples.harness.recorder import shown
from examples.harness.sampling import draw
from examples.harness.trainer import Trainer
from examples.paths import CHECKPOINT

EXIT_INTERRUPTED = 130
FILMED = 16  # images at most


def train(name: str, given: dict[str, Any], out: Path, *, resume: bool) -> int:
    with contextlib.ExitStack() as stack:
        state = None
        if resume:
            stack.enter_context(rundir.locked(out))
            state = _resumed(out)
        if state is None:
            config = TrainConfig.for_model(name, **given)
        else:
            config = state["config"].resumed({"model": name, **given})
        dataset = data.load(config.data, config.data_dir)
        if dataset.word and rundir.is_main():
            print(dataset.word, file=sys.stderr)
        trainer = Trainer(config, dataset, out, resume_from=state)
        if not resume:
            stack.enter_context(rundir.locked(out))
        trainer.train()
        model = trainer.chosen_model()
        if model.likelihood and trainer.accelerator.is_main_process and not trainer.interrupted:
            print(f"Test: {shown(model, trainer.evaluate('test', model))}")
        # Without this, gloo's threads are still running when the interpreter ends.
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
    return EXIT_INTERRUPTED if trainer.interrupted else 0


def _resumed(out: Path) -> dict[str, Any] | None:
    """The state of a run; None where it ended before its first checkpoint."""
    if (out / CHECKPOINT).is_file():
        return checkpoint.load(out / CHECKPOINT)
    print(f"{out} has no checkpoint yet: the run starts again, with the options given.", flush=True)
    return None


def sample(
    name: str,
    run: Path,
    out: Path,
    *,
    num: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    label: int | None = None,
    film: Path | None = None,
) -> int:
    model = checkpoint.load_model(name, run / CHECKPOINT)
    generator = torch.Generator().manual_seed(seed)
    config = checkpoint.load(run / CHECKPOINT)["config"]
    drawn = draw(name, model, num, generator, temperature, label)
    items, spec = data.as_images(config.data, config.data_dir, drawn, model.spec)
    try:
        images.save(items, spec, out)
    except ValueError as error:  # e.g. a picture of sides that PNG does not have
        raise UsageError(f"--num {num}: {error}") from None
    print(f"Wrote {num} samples to {out}")
    if film is not None:
        from examples.harness.film import film as record

        told = record(name, model, min(num, FILMED), seed, label, film)
        print(f"Wrote {film}: {told}")
    return 0
