"""What a run tells: progress bar, log.jsonl, TensorBoard, sample pictures."""

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from examples.errors import reason
from examples.harness import images
from examples.harness.runlog import RunLog
from examples.model import DataSpec, GenerativeModel

LINES = 10


def shown(model: GenerativeModel, nats: float) -> str:
    """A loss as people read it: nats and bits per dimension of a likelihood, else the number."""
    if not model.likelihood:
        return f"{nats:.4f}"
    return f"{nats:.2f} nats, {bits_per_dim(model.spec, nats):.4f} bits/dim"


def bits_per_dim(spec: DataSpec, nats: float) -> float:
    return nats / (math.log(2.0) * spec.dims)


class Recorder:
    """Writes the records of one run; only the main process has one.

    Args:
        out: run directory.
        model: says how to show its losses and samples.
        name, steps: of the progress bar.
        start: step at which the run begins or resumes; later records are dropped.
        mark: of the log at that step (`RunLog`).
        quiet: no progress bar and no lines.
    """

    def __init__(
        self,
        out: Path,
        model: GenerativeModel,
        name: str,
        steps: int,
        start: int,
        mark: dict[str, Any],
        quiet: bool,
    ) -> None:
        self.out, self.model, self.quiet = out, model, quiet
        #: Why the terminal or the pipe that the run talks to can no longer be written.
        self.broken = ""
        self.log = RunLog(out, mark)
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)
        # The bar shows itself on a terminal only; elsewhere a line now and then takes its place.
        self.bar = tqdm(
            total=steps, initial=start, desc=name, unit="step", disable=True if quiet else None
        )
        self.name, self.steps, self.next_line = name, steps, start

    @contextlib.contextmanager
    def _console(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = reason(error)

    def losses(self, step: int, scalars: dict[str, float]) -> None:
        self.log.write({"step": step, **scalars})
        for name, value in scalars.items():
            self.board.add_scalar(f"train/{name}", value, step)

    def progress(self, step: int, scalars: dict[str, float]) -> None:
        self.log.flush()
        losses = {k: v for k, v in scalars.items() if k.endswith("loss")}
        text = "; ".join(f"{k} {shown(self.model, v)}" for k, v in losses.items())
        with self._console():
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(text)
        if self.bar.disable and step >= self.next_line:
            self.next_line = step + max(1, self.steps // LINES)
            self.line(f"{self.name} step {step} of {self.steps}: {text}")

    def evaluation(self, step: int, nats: float, best: bool) -> None:
        self.log.write({"step": step, "val": nats})
        self.log.flush()
        self.board.add_scalar("val/loss", nats, step)
        mark = " (best)" if best else ""
        self.line(f"{self.name} step {step}: validation {shown(self.model, nats)}{mark}")

    def samples(self, step: int, items: torch.Tensor) -> None:
        picture = images.picture(items, self.model.spec)
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"step_{step:06d}.png")
        self.board.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def line(self, text: str) -> None:
        if not self.quiet:
            with self._console():
                tqdm.write(text)
                sys.stdout.flush()

    def close(self) -> None:
        with self._console():
            self.bar.close()
        self.log.close()
        self.board.close()
