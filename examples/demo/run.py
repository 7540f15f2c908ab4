"""Trains, samples and compares the models; the numbers of the report come from here."""

import contextlib
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import genkern
from examples import data
from examples.data.dataset import Dataset
from examples.demo import report
from examples.demo.plain import plain
from examples.harness import images, rundir
from examples.harness.config import TrainConfig
from examples.harness.recorder import bits_per_dim
from examples.harness.trainer import Trainer
from examples.paths import CHECKPOINT

#: Enough for the checks below; `python -m examples table` trains to the end.
STEPS = {"pixel_cnn": 600, "pixel_rnn": 450, "vae": 1200, "gan": 1200}
NUM_SAMPLES = 100
TIMED_STEPS, CHECKED_STEPS = 30, 20
TOLERANCE = 1e-3
LARGEST_BITS = 1.92
IWAE_SAMPLES = 64
EXACT = ("pixel_cnn", "pixel_rnn")


def demo(out: Path, steps: int | None = None) -> int:
    """Runs the demo; returns 0 if every check holds, else 1.

    Args:
        out: directory of the runs, ``report.html`` and ``metrics.json``.
        steps: training steps of every model; None: `STEPS`.
    """
    begin = time.perf_counter()
    dataset = data.load("digits")
    models: dict[str, Any] = {}
    for number, name in enumerate(STEPS, start=1):
        prefix = f"[{number}/{len(STEPS)}] {name}"
        print(f"{prefix}: training on {dataset.name}", flush=True)
        models[name] = train(name, dataset, out / name, steps or STEPS[name])
        print(f"{prefix}: {TIMED_STEPS} steps on genkern and in plain PyTorch", flush=True)
        models[name]["comparison"] = compare(name, dataset, out / name / "compared")
    real = dataset.splits["test"][:NUM_SAMPLES]
    images.save(real, dataset.spec, out / "real.png")
    metrics = {
        "machine": machine(),
        "data": dataset.name,
        "baselines": baselines(dataset),
        "models": models,
        "checks": checks(models),
        "wall_seconds": time.perf_counter() - begin,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    report.write(metrics, dataset.spec, out)
    for name, result in models.items():
        speedup = result["comparison"]["speedup"]
        print(f"{name}: a training step in plain PyTorch takes {speedup:.2f} times genkern's")
    for check in metrics["checks"]:
        print(f"{'ok    ' if check['ok'] else 'FAILED'} {check['text']}")
    print(f"{metrics['wall_seconds']:.0f} s; wrote {out / 'report.html'} and metrics.json")
    return 0 if all(check["ok"] for check in metrics["checks"]) else 1


def train(name: str, dataset: Dataset, out: Path, steps: int) -> dict[str, Any]:
    """Trains one model with genkern, evaluates its test split, draws its samples."""
    if (out / CHECKPOINT).exists():
        print(f"replacing the earlier demo run in {out}")
    rundir.clear(out)
    trainer = Trainer(TrainConfig.for_model(name, sample_every=0, steps=steps), dataset, out)
    start = time.perf_counter()
    with rundir.locked(out):
        trainer.train()
    seconds = time.perf_counter() - start
    if trainer.interrupted:
        raise KeyboardInterrupt
    model = trainer.chosen_model()
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trainer.step,
        "train_seconds": seconds,
        "best_step": trainer.best["step"],
        "test": {},
    }
    if model.likelihood:
        result["test"]["nats"] = trainer.evaluate("test", model)
        result["test"]["bits_per_dim"] = bits_per_dim(model.spec, result["test"]["nats"])
    if hasattr(model, "iwae_nll"):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            nats = model.iwae_nll(dataset.splits["test"], IWAE_SAMPLES, generator).mean().item()
        result["test"]["iwae_samples"] = IWAE_SAMPLES
        result["test"]["iwae_bits_per_dim"] = bits_per_dim(model.spec, nats)
    start = time.perf_counter()
    samples = model.sample(NUM_SAMPLES, torch.Generator().manual_seed(0))
    result["sample_seconds"] = time.perf_counter() - start
    images.save(samples, dataset.spec, out / "samples.png")
    return result


def compare(name: str, dataset: Dataset, out: Path) -> dict[str, Any]:
    """The first steps of training: on genkern and in plain PyTorch, timed; and checked.

    What is checked: genkern's operators and their references, from one seed, have the same losses
    in float64. (In float32 a GAN multiplies a rounding error by about 10^4 in 50 steps, on either
    side alone.) What is timed, in float32 and in turn: genkern, and what people write without it.
    """
    config = TrainConfig.for_model(name)
    fused, stated = (first_losses(config, dataset, out, backend) for backend in (None, "reference"))
    difference = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(fused, stated, strict=True))
    sides = {"genkern": Trainer(config, dataset, out)}
    sides["plain"] = Trainer(config, dataset, out, rewrite=plain)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(TIMED_STEPS):
        for side, trainer in sides.items():
            start = time.perf_counter()
            trainer.train_step()
            seconds[side].append(time.perf_counter() - start)
    milliseconds = {side: 1e3 * statistics.median(times) for side, times in seconds.items()}
    families = op_families(sides["genkern"].model)
    return {
        "step_ms": milliseconds,
        "speedup": milliseconds["plain"] / milliseconds["genkern"],
        "difference": difference,
        "backends": {family: genkern.last_backend(family) for family in families},
    }


def first_losses(
    config: TrainConfig, dataset: Dataset, out: Path, backend: str | None
) -> list[float]:
    """Losses of the first steps in float64; `Trainer.train_step` writes nothing to ``out``."""
    forced = contextlib.nullcontext() if backend is None else genkern.use_backend(backend)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with forced:
            trainer = Trainer(config, dataset, out)
            steps = [trainer.train_step() for _ in range(CHECKED_STEPS)]
    finally:
        torch.set_default_dtype(before)
    return [value.item() for s in steps for key, value in s.items() if key.endswith("loss")]


def op_families(model: torch.nn.Module) -> list[str]:
    """The families of genkern's ops that a model uses: the stems of its genkern.nn modules."""
    homes = {type(module).__module__ for module in model.modules()}
    return sorted(h.rpartition(".")[2] for h in homes if h.startswith("genkern.nn."))


def baselines(dataset: Dataset) -> dict[str, float]:
    """Test bits/dim of two models without training: uniform, and independent pixels."""
    levels = dataset.spec.levels
    train, test = (dataset.splits[s].flatten(1).long() for s in ("train", "test"))
    counts = torch.nn.functional.one_hot(train, levels).sum(0) + 1.0
    nats = -(counts / counts.sum(1, keepdim=True)).log().gather(1, test.T).mean().item()
    return {"uniform": math.log2(levels), "independent pixels": nats / math.log(2.0)}


def checks(models: dict[str, Any]) -> list[dict[str, Any]]:
    """What the demo promises, and whether this run kept it."""
    found = []
    for name, result in models.items():
        difference = result["comparison"]["difference"]
        text = f"{name}: losses of {CHECKED_STEPS} steps in float64 differ from those of the "
        text += f"references by {difference:.1e}"
        found.append({"text": f"{text} <= {TOLERANCE:g}", "ok": difference <= TOLERANCE})
        if name in EXACT:
            bits = result["test"]["bits_per_dim"]
            text = f"{name}: test {bits:.4f} bits/dim <= {LARGEST_BITS}"
            found.append({"text": text, "ok": bits <= LARGEST_BITS})
    return found


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "genkern": genkern.__version__,
        "python": platform.python_version(),
    }
