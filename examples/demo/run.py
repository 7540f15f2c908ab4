"""Trains, samples and compares the models; the numbers of the report come from here."""

import contextlib
import json
import math
import platform
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import genkern
from examples import data
from examples.data import Dataset
from examples.demo import report
from examples.harness import checkpoint, images
from examples.harness.config import TrainConfig
from examples.harness.recorder import LOG_NAME, bits_per_dim
from examples.harness.trainer import Trainer

MODELS = ("pixel_cnn", "pixel_rnn", "vae", "gan")
NUM_SAMPLES = 100
COMPARED_STEPS = 50
TOLERANCE = 1e-3
LARGEST_BITS = 1.92
IWAE_SAMPLES = 64
EXACT = ("pixel_cnn", "pixel_rnn")


def demo(out: Path, steps: int | None = None) -> int:
    """Runs the demo; returns 0 if every check holds, else 1.

    Args:
        out: directory of the runs, ``report.html`` and ``metrics.json``.
        steps: training steps of every model; None: as the registry says.
    """
    begin = time.perf_counter()
    dataset = data.load("digits")
    models: dict[str, Any] = {}
    for number, name in enumerate(MODELS, start=1):
        prefix = f"[{number}/{len(MODELS)}] {name}"
        print(f"{prefix}: training on {dataset.name}", flush=True)
        models[name] = train(name, dataset, out / name, steps)
        print(f"{prefix}: {COMPARED_STEPS} steps on genkern and on the reference", flush=True)
        models[name]["comparison"] = compare(name, dataset, out / name)
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
    for check in metrics["checks"]:
        print(f"{'ok    ' if check['ok'] else 'FAILED'} {check['text']}")
    print(f"{metrics['wall_seconds']:.0f} s; wrote {out / 'report.html'} and metrics.json")
    return 0 if all(check["ok"] for check in metrics["checks"]) else 1


def train(name: str, dataset: Dataset, out: Path, steps: int | None) -> dict[str, Any]:
    """Trains one model with genkern, evaluates its test split, draws its samples."""
    if out.exists():
        known = {checkpoint.FILE_NAME, LOG_NAME, "tensorboard", "samples", "samples.png"}
        print(f"replacing the earlier demo run in {out}")
        for path in out.iterdir():
            if path.name in known:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    overrides = {} if steps is None else {"steps": steps}
    trainer = Trainer(TrainConfig.for_model(name, sample_every=0, **overrides), dataset, out)
    start = time.perf_counter()
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
    """Takes the first steps twice from one seed, on genkern and on the PyTorch reference.

    In float32, which is timed, and in float64, which is checked: training a GAN multiplies a
    rounding error by about 10^4 in 50 steps, on either side alone, so that only in float64 do equal
    losses mean equal mathematics.
    """
    result: dict[str, Any] = {"steps": COMPARED_STEPS}
    for dtype, key in ((torch.float32, "float32"), (torch.float64, "float64")):
        sides = {
            side: first_steps(name, dataset, out / side, side, dtype)
            for side in ("genkern", "reference")
        }
        fused, plain = sides["genkern"]["losses"], sides["reference"]["losses"]
        pairs = [pair for loss in plain for pair in zip(fused[loss], plain[loss], strict=True)]
        result[f"difference_{key}"] = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
        if dtype is torch.float32:
            result |= sides
    result["speedup"] = result["reference"]["step_ms"] / result["genkern"]["step_ms"]
    return result


def first_steps(
    name: str, dataset: Dataset, out: Path, side: str, dtype: torch.dtype
) -> dict[str, Any]:
    """Losses and median time of the first steps; `Trainer.train_step` writes nothing to ``out``."""
    forced = genkern.use_backend("reference") if side == "reference" else contextlib.nullcontext()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with forced:
            trainer = Trainer(TrainConfig.for_model(name), dataset, out)
            losses: dict[str, list[float]] = {}
            seconds = []
            for _ in range(COMPARED_STEPS):
                start = time.perf_counter()
                scalars = trainer.train_step()
                seconds.append(time.perf_counter() - start)
                for key, value in scalars.items():
                    if key.endswith("loss"):
                        losses.setdefault(key, []).append(value.item())
            backends = {op: genkern.last_backend(op) for op in op_families(trainer.model)}
    finally:
        torch.set_default_dtype(before)
    return {"losses": losses, "step_ms": 1e3 * statistics.median(seconds), "backends": backends}


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
        difference = result["comparison"]["difference_float64"]
        text = f"{name}: losses of {COMPARED_STEPS} steps in float64 differ by {difference:.1e}"
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
