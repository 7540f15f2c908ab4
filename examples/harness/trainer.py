"""The training loop."""

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.data.dataset import Dataset
from examples.errors import UsageError, reason, unknown_name
from examples.harness import checkpoint
from examples.harness.batches import NOISE, Batches, stream_seed
from examples.harness.config import TrainConfig, build_model
from examples.harness.recorder import Recorder, shown
from examples.harness.rundir import set_aside
from examples.harness.runlog import EMPTY
from examples.harness.sampling import draw, num_samples
from examples.harness.signals import caught_signals
from examples.harness.state import check, collect, restore
from examples.model import GenerativeModel
from examples.paths import CHECKPOINT, LOG

LOG_EVERY = 10


class Trainer:
    """Trains one model in one run directory.

    Args:
        config: options; on resume, those of the checkpoint (`TrainConfig.resumed`).
        dataset: what to train on.
        out: run directory.
        resume_from: state of `checkpoint.load`, or None for a new run.
        quiet: no output.
        rewrite: what becomes of the model before its optimisers are made.

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
        rewrite: Callable[[GenerativeModel], GenerativeModel] = lambda model: model,
    ) -> None:
        self.config, self.dataset, self.out, self.quiet = config, dataset, out, quiet
        self.resumed = resume_from is not None
        self.check_free()
        self.step, self.interrupted = 0, False
        self.saved = None if resume_from is None else resume_from["step"]
        self.mark = EMPTY if resume_from is None else resume_from["log"]
        self.recorder: Recorder | None = None
        self.data_digest = dataset.digest()
        self.best: dict[str, Any] = {"step": 0, "value": None, "model": None, "stale": 0}
        torch.manual_seed(config.seed)
        self.model = rewrite(build_model(config.model, dataset.spec, config.options))
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        for player in config.players:
            if player not in self.model.players:
                raise unknown_name("--player", player, self.model.players)
        if resume_from is not None:
            check(self, resume_from)
        self._prepare()
        if resume_from is not None:
            restore(self, resume_from)
        self.accelerator.wait_for_everyone()

    def check_free(self) -> None:
        """A new run takes no folder that already holds one."""
        if not self.resumed and (self.out / CHECKPOINT).exists():
            raise UsageError(
                f"--out {self.out} already holds a run; add --resume, or choose another --out"
            )

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
        optimizers = {}
        for player, module in self.model.players.items():
            given = config.of_player(player)
            optimizers[player] = torch.optim.Adam(
                module.parameters(),
                lr=given["lr"],
                betas=(given["beta1"], given["beta2"]),
                weight_decay=given["weight_decay"],
            )
        self.wrapped, *prepared = self.accelerator.prepare(self.model, *optimizers.values())
        self.optimizers = dict(zip(optimizers, prepared, strict=True))
        self.ema.to(self.accelerator.device)
        items, labels = self.dataset.splits["train"], self.dataset.labels.get("train")
        self.batches = Batches(items, labels, config.batch_size, config.seed, rank, world_size)
        seed = stream_seed(config.seed, NOISE, 0 if self.model.shared_noise else rank)
        torch.manual_seed(seed)
        self.generator = torch.Generator(self.accelerator.device).manual_seed(seed)

    def train(self) -> None:
        """Trains until ``steps``, until validation stops improving, or until a signal.

        Raises:
            UsageError: a loss is not finite, or something cannot be written; the last checkpoint
                is whole, and the text says so.
        """
        try:
            with contextlib.ExitStack() as stack:
                caught = stack.enter_context(caught_signals())
                self._begin(stack)
                self._loop(caught)
                if self.recorder is not None:
                    self.recorder.line(self._summary(caught))
        except OSError as error:
            what = f"{error.filename or self.out} cannot be written: {reason(error)}"
            raise UsageError(f"{what}; {self._safe()}") from None
        if self.recorder is not None and self.recorder.broken:
            broken = self.recorder.broken
            raise UsageError(f"the output is closed or full ({broken}); {self._safe()}")

    def _begin(self, stack: contextlib.ExitStack) -> None:
        """A first checkpoint, and then the log: a crash between the two leaves a run."""
        self.check_free()
        word, orphan = "", self.out / LOG
        if not self.resumed:
            self.out.mkdir(parents=True, exist_ok=True)
            if self.accelerator.is_main_process and orphan.exists():
                kept = set_aside(orphan).name
                word = f"{orphan} has no checkpoint (kept as {kept}); the run starts again."
            self._save()
        if self.accelerator.is_main_process:
            name, steps = self.config.model, self.config.steps
            self.recorder = Recorder(
                self.out, self.model, name, steps, self.step, self.mark, self.quiet
            )
            stack.callback(self.recorder.close)
            if word or self.recorder.log.word:
                self.recorder.line(word or self.recorder.log.word)

    def _loop(self, caught: list[int]) -> None:
        pending: list[dict[str, torch.Tensor]] = []
        while not self._finished() and not self.interrupted:
            pending.append(self.train_step())
            self.step += 1
            broken = self.recorder is not None and bool(self.recorder.broken)
            self.interrupted = self._agree_to_stop(bool(caught) or broken)
            # A checkpoint must not be ahead of the log.
            if self.step % LOG_EVERY == 0 or self._due("eval_every", "checkpoint_every"):
                self._flush(pending)
            self._periodic()
        self._flush(pending)
        self._save()

    def train_step(self) -> dict[str, torch.Tensor]:
        """One turn of every player in the schedule; returns the scalars of the losses."""
        scalars = {}
        self.wrapped.train()
        # Nats per dimension, so that clip_norm means the same on any size of image.
        scale = 1.0 / self.model.spec.dims if self.model.likelihood else 1.0
        for turn in self.model.turns(self.step):
            player = turn.partition(" ")[0]
            optimizer = self.optimizers[player]
            self._anneal(player, optimizer)
            optimizer.zero_grad()
            values = self.wrapped(
                self.batches.next().to(self.accelerator.device), self.generator, turn
            )
            self.accelerator.backward(values["loss"] * scale)
            parameters = self.model.players[player].parameters()
            largest = self.config.of_player(player)["clip_norm"]
            self.accelerator.clip_grad_norm_(parameters, largest)
            optimizer.step()
            prefix = "" if len(self.optimizers) == 1 else f"{turn} "
            scalars |= {prefix + name: value.detach() for name, value in values.items()}
        self.ema.update_parameters(self.model)
        return scalars

    def _anneal(self, player: str, optimizer: torch.optim.Optimizer) -> None:
        """The learning rate of this step, which the number of steps and the step alone decide."""
        falling = self.config.anneal * self.config.steps
        if falling:
            lr = self.config.of_player(player)["lr"]
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (self.config.steps - self.step) / falling)

    @torch.no_grad()
    def evaluate(self, split: str, model: GenerativeModel) -> float:
        """Mean loss of ``model`` on a split, nats per item; the noise is the same every time."""
        model.eval()
        generator = torch.Generator(self.accelerator.device).manual_seed(self.config.seed)
        total = 0.0
        for batch in self.dataset.batches(split, self.config.batch_size):
            with self.accelerator.autocast():
                loss = model(batch.to(self.accelerator.device), generator)["loss"]
            total += loss.item() * len(batch)
        return total / len(self.dataset.splits[split])

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

    def _flush(self, pending: list[dict[str, torch.Tensor]]) -> None:
        """Reads the losses of the last steps from the device, and records them."""
        if not pending:
            return
        values = torch.stack([value.float() for step in pending for value in step.values()])
        values = self.accelerator.reduce(values, reduction="mean")
        if not values.isfinite().all():
            raise UsageError(
                f"{self.config.model}: the loss is not finite by step {self.step}; the last "
                f"checkpoint in {self.out} is kept (a lower --lr may help)"
            )
        numbers = iter(values.tolist())
        rows = [{name: next(numbers) for name in step} for step in pending]
        if self.recorder is not None:
            for step, row in enumerate(rows, start=self.step - len(rows) + 1):
                self.recorder.losses(step, row)
            self.recorder.progress(self.step, rows[-1])
        pending.clear()

    def _periodic(self) -> None:
        if self.model.likelihood and self._due("eval_every"):
            self._validate()
        if self._due("sample_every") and self.recorder is not None:
            model = self.ema.module.eval()
            generator = torch.Generator(self.accelerator.device).manual_seed(self.config.seed)
            count, batch = num_samples(self.dataset.spec), self.dataset.whole("val")
            drawn = draw(self.config.model, model, count, generator, batch=batch)
            self.recorder.samples(self.step, drawn)
        if self._due("checkpoint_every"):
            self._save()

    def _validate(self) -> None:
        value = self.evaluate("val", self.ema.module)
        better = self.best["value"] is None or value < self.best["value"]
        if better:
            weights = {k: v.detach().cpu().clone() for k, v in self.ema.module.state_dict().items()}
            self.best = {"step": self.step, "value": value, "model": weights, "stale": 0}
        else:
            self.best["stale"] += 1
        if self.recorder is not None:
            self.recorder.evaluation(self.step, value, better)

    def _summary(self, caught: list[int]) -> str:
        path = self.out / CHECKPOINT
        if self.interrupted:
            name = signal.Signals(caught[0]).name if caught else "another process"
            return f"Interrupted ({name}) at step {self.step}; saved {path}. Go on with --resume."
        best = ""
        if self.best["value"] is not None:
            value = shown(self.model, self.best["value"])
            best = f"; best validation {value} at step {self.best['step']}"
        return f"Finished at step {self.step}{best}; saved {path}."

    def _save(self) -> None:
        state = collect(self)
        if state is not None:
            checkpoint.save(self.out / CHECKPOINT, state)
        self.saved = self.step

    def _safe(self) -> str:
        """What is left of a run that could not write."""
        if self.saved is None:
            return "nothing was saved"
        return f"step {self.saved} is saved in {self.out / CHECKPOINT}; go on with --resume"
