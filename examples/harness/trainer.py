"""The training loop."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.data import Dataset
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.batches import NOISE, Batches, stream_seed
from examples.harness.config import TrainConfig, build_model
from examples.harness.recorder import LOG_NAME, Recorder, shown
from examples.model import GenerativeModel

LOG_EVERY = 10
NUM_SAMPLES = 64


class Trainer:
    """Trains one model in one run directory.

    Args:
        config: options; on resume, those of the checkpoint (`TrainConfig.resumed`).
        dataset: what to train on.
        out: run directory.
        resume_from: state of `checkpoint.load`, or None for a new run.
        quiet: no output.

    Raises:
        UsageError: ``out`` already holds a run, or the checkpoint does not match.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        out: Path,
        *,
        resume_from: dict[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        self.config, self.dataset, self.out, self.quiet = config, dataset, out, quiet
        records = (out / checkpoint.FILE_NAME, out / LOG_NAME)
        if resume_from is None and any(path.exists() for path in records):
            raise UsageError(f"{out} already holds a run; add --resume, or choose another --out")
        self.step, self.interrupted = 0, False
        self.best: dict[str, Any] = {"step": 0, "value": None, "model": None, "stale": 0}
        torch.manual_seed(config.seed)
        self.model = build_model(config.model, dataset.spec, config.options)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        if resume_from is not None:
            self._check_weights(resume_from)
        self._prepare()
        if resume_from is not None:
            self._restore(resume_from)
        self.accelerator.wait_for_everyone()

    def _prepare(self) -> None:
        config = self.config
        # A turn of one player leaves the parameters of the others without gradients.
        ddp = DistributedDataParallelKwargs(find_unused_parameters=len(self.model.players) > 1)
        # Without cpu=True, accelerate ignores torchrun on a machine that has only CPUs.
        cpu = config.device == "cpu" or not torch.accelerator.is_available()
        self.accelerator = Accelerator(
            mixed_precision=config.precision, cpu=cpu, kwargs_handlers=[ddp]
        )
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        optimizers = {
            player: torch.optim.Adam(
                module.parameters(),
                lr=config.lr,
                betas=(config.beta1, 0.999),
                weight_decay=config.weight_decay,
            )
            for player, module in self.model.players.items()
        }
        self.wrapped, *prepared = self.accelerator.prepare(self.model, *optimizers.values())
        self.optimizers = dict(zip(optimizers, prepared, strict=True))
        self.ema.to(self.accelerator.device)
        self.batches = Batches(
            self.dataset.splits["train"], config.batch_size, config.seed, rank, world_size
        )
        seed = stream_seed(config.seed, NOISE, rank)
        torch.manual_seed(seed)
        self.generator = torch.Generator(self.accelerator.device).manual_seed(seed)

    def train(self) -> None:
        """Trains until ``steps``, until validation stops improving, or until a signal."""
        recorder = None
        if self.accelerator.is_main_process:
            recorder = Recorder(
                self.out, self.model, self.config.model, self.config.steps, self.step, self.quiet
            )
        if self.step == 0:
            self._save()
        with _caught_signals() as caught, contextlib.closing(recorder or contextlib.ExitStack()):
            pending: list[dict[str, torch.Tensor]] = []
            while not self._finished() and not self.interrupted:
                pending.append(self.train_step())
                self.step += 1
                self.interrupted = self._agree_to_stop(bool(caught))
                # A checkpoint must not be ahead of the log.
                if self.step % LOG_EVERY == 0 or self._due("eval_every", "checkpoint_every"):
                    self._flush(pending, recorder)
                self._periodic(recorder)
            self._flush(pending, recorder)
            self._save()
            if recorder is not None:
                recorder.line(self._summary(caught))

    def train_step(self) -> dict[str, torch.Tensor]:
        """One turn of every player in the schedule; returns the scalars of the losses."""
        scalars = {}
        self.wrapped.train()
        # Nats per dimension, so that clip_norm means the same on any size of image.
        scale = 1.0 / self.model.spec.dims if self.model.likelihood else 1.0
        for player in self.model.schedule:
            optimizer = self.optimizers[player]
            optimizer.zero_grad()
            values = self.wrapped(
                self.batches.next().to(self.accelerator.device), self.generator, player
            )
            self.accelerator.backward(values["loss"] * scale)
            parameters = self.model.players[player].parameters()
            self.accelerator.clip_grad_norm_(parameters, self.config.clip_norm)
            optimizer.step()
            prefix = "" if len(self.optimizers) == 1 else f"{player} "
            scalars |= {prefix + name: value.detach() for name, value in values.items()}
        self.ema.update_parameters(self.model)
        return scalars

    @torch.no_grad()
    def evaluate(self, split: str, model: GenerativeModel) -> float:
        """Mean loss of ``model`` on a split, nats per item; the noise is the same every time."""
        model.eval()
        items = self.dataset.splits[split]
        generator = torch.Generator(self.accelerator.device).manual_seed(self.config.seed)
        total = 0.0
        for batch in items.split(self.config.batch_size):
            with self.accelerator.autocast():
                loss = model(batch.to(self.accelerator.device), generator)["loss"]
            total += loss.item() * len(batch)
        return total / len(items)

    def chosen_model(self) -> GenerativeModel:
        """The averaged model, at its best validation step where there is one; in eval mode."""
        model = self.ema.module
        if self.best["model"] is not None:
            model = build_model(self.config.model, self.dataset.spec, self.config.options)
            model.load_state_dict(self.best["model"])
        return model.to(self.accelerator.device).eval()

    def _due(self, *options: str) -> bool:
        periods = [getattr(self.config, option) for option in options]
        return any(every > 0 and self.step % every == 0 for every in periods)

    def _finished(self) -> bool:
        patience = self.config.patience
        return self.step >= self.config.steps or 0 < patience <= self.best["stale"]

    def _agree_to_stop(self, caught: bool) -> bool:
        """Whether any process was told to stop; asked rarely where there are several."""
        if self.accelerator.num_processes == 1:
            return caught
        if self.step % LOG_EVERY:
            return False
        flag = torch.tensor(float(caught), device=self.accelerator.device)
        return self.accelerator.reduce(flag).item() > 0

    def _flush(self, pending: list[dict[str, torch.Tensor]], recorder: Recorder | None) -> None:
        """Reads the losses of the last steps from the device, and records them."""
        if not pending:
            return
        names = list(pending[0])
        values = torch.stack([torch.stack([s[n].float() for n in names]) for s in pending])
        values = self.accelerator.reduce(values, reduction="mean")
        if not values.isfinite().all():
            raise UsageError(
                f"{self.config.model}: the loss is not finite by step {self.step}; the last "
                f"checkpoint in {self.out} is kept (a lower --lr may help)"
            )
        rows = values.tolist()
        if recorder is not None:
            for i, row in enumerate(rows):
                recorder.losses(self.step - len(rows) + 1 + i, dict(zip(names, row, strict=True)))
            recorder.progress(self.step, dict(zip(names, rows[-1], strict=True)))
        pending.clear()

    def _periodic(self, recorder: Recorder | None) -> None:
        if self.model.likelihood and self._due("eval_every"):
            self._validate(recorder)
        if self._due("sample_every") and recorder is not None:
            model = self.ema.module.eval()
            generator = torch.Generator(self.accelerator.device).manual_seed(self.config.seed)
            recorder.samples(self.step, model.sample(NUM_SAMPLES, generator))
        if self._due("checkpoint_every"):
            self._save()

    def _validate(self, recorder: Recorder | None) -> None:
        value = self.evaluate("val", self.ema.module)
        better = self.best["value"] is None or value < self.best["value"]
        if better:
            weights = {k: v.detach().cpu().clone() for k, v in self.ema.module.state_dict().items()}
            self.best = {"step": self.step, "value": value, "model": weights, "stale": 0}
        else:
            self.best["stale"] += 1
        if recorder is not None:
            recorder.evaluation(self.step, value, better)

    def _summary(self, caught: list[int]) -> str:
        path = self.out / checkpoint.FILE_NAME
        if self.interrupted:
            name = signal.Signals(caught[0]).name if caught else "another process"
            return f"Interrupted ({name}) at step {self.step}; saved {path}. Go on with --resume."
        best = ""
        if self.best["value"] is not None:
            value = shown(self.model, self.best["value"])
            best = f"; best validation {value} at step {self.best['step']}"
        return f"Finished at step {self.step}{best}; saved {path}."

    def _save(self) -> None:
        device_rng = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        rng = [(torch.get_rng_state(), self.generator.get_state(), device_rng)]
        rng = gather_object(rng) if self.accelerator.num_processes > 1 else rng
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "config": dataclasses.asdict(self.config),
            "spec": dataclasses.asdict(self.dataset.spec),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": None if scaler is None else scaler.state_dict(),
            "step": self.step,
            "position": self.batches.position,
            "rng": rng,
            "best": self.best,
        }
        checkpoint.save(self.out / checkpoint.FILE_NAME, state)

    def _check_weights(self, state: dict[str, Any]) -> None:
        path = self.out / checkpoint.FILE_NAME
        checkpoint.load_weights(self.model, state["model"], self.config.model, path)
        checkpoint.load_weights(self.ema, state["ema"], self.config.model, path)

    def _restore(self, state: dict[str, Any]) -> None:
        ranks = self.accelerator.num_processes
        if len(state["rng"]) != ranks:
            raise UsageError(f"the run has {len(state['rng'])} processes; got {ranks}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.batches.position, self.best = (
            state["step"],
            state["position"],
            state["best"],
        )
        torch_rng, noise_rng, device_rng = state["rng"][self.accelerator.process_index]
        torch.set_rng_state(torch_rng)
        self.generator.set_state(noise_rng)
        if device_rng is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(device_rng)


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that the step under way can end and be saved."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
