"""The training harness: exact resume, checkpoints, signals, data order, processes, commands."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from examples import data
from examples.cli import main
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.batches import Batches
from examples.harness.config import TrainConfig
from examples.harness.recorder import read_log
from examples.harness.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "gan": {"hidden": 16, "k": 2},
    "pixel_cnn": {"hidden": 4, "blocks": 1},
    "vae": {"hidden": 16},
}


def small_config(name: str, steps: int, **overrides) -> TrainConfig:
    fixed = {"eval_every": 5, "checkpoint_every": 0, "sample_every": 0, "patience": 0}
    return TrainConfig.for_model(
        name, steps=steps, options=SMALL[name], **{**fixed, "batch_size": 512, **overrides}
    )


def train(config: TrainConfig, out: Path, *, resume: bool = False) -> Trainer:
    state = checkpoint.load(out / checkpoint.FILE_NAME) if resume else None
    trainer = Trainer(config, data.load("digits"), out, resume_from=state, quiet=True)
    trainer.train()
    return trainer


def assert_same_state(first: Path, second: Path) -> None:
    """Every tensor of two checkpoints is bitwise the same; paths and limits may differ."""
    a, b = (checkpoint.load(path / checkpoint.FILE_NAME) for path in (first, second))
    for state in (a, b):
        del state["config"]
    flat_a, flat_b = (torch.utils._pytree.tree_flatten(state) for state in (a, b))
    assert flat_a[1] == flat_b[1]
    for x, y in zip(flat_a[0], flat_b[0], strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "examples", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not any(record["step"] >= step for record in read_log(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", SMALL)
def test_resumed_run_is_bitwise_the_uninterrupted_run(tmp_path, name):
    """12 steps of 2 or 3 batches an epoch; the stop at 7 is inside an epoch."""
    train(small_config(name, 12), tmp_path / "whole")
    train(small_config(name, 7), tmp_path / "halves")
    train(small_config(name, 12), tmp_path / "halves", resume=True)
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "halves")
    assert_same_state(tmp_path / "whole", tmp_path / "halves")


def test_killed_run_resumes_bitwise(tmp_path):
    """SIGKILL at any moment; what was logged since the checkpoint is dropped and done again."""
    options = ("--steps", 2000, "--checkpoint-every", 7, "--sample-every", 0, "--set", "hidden=16")
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command("train", "gan", *options, "--out", killed), cwd=ROOT, env=environment()
    )
    wait_for_step(killed, 20, process)
    time.sleep(random.uniform(0.0, 0.3))
    process.kill()
    process.wait()
    stopped_at = checkpoint.load(killed / checkpoint.FILE_NAME)["step"]
    assert 14 <= stopped_at < 2000
    last = stopped_at + 10
    assert main(["train", "gan", "--out", str(killed), "--resume", "--steps", str(last)]) == 0
    whole = tmp_path / "whole"
    given = [str(option) for option in options]
    given[1] = str(last)
    assert main(["train", "gan", *given, "--out", str(whole)]) == 0
    assert [r["step"] for r in read_log(killed)] == list(range(1, last + 1))
    assert read_log(whole) == read_log(killed)
    assert_same_state(whole, killed)


def test_interrupt_saves_and_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        command("train", "vae", "--steps", 100000, "--patience", 0, "--out", tmp_path / "run"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_step(tmp_path / "run", 20, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    step = checkpoint.load(tmp_path / "run" / checkpoint.FILE_NAME)["step"]
    assert f"Interrupted (SIGINT) at step {step}; saved " in output
    assert "Go on with --resume." in output
    assert read_log(tmp_path / "run")[-1]["step"] == step


def test_processes_see_disjoint_shares_of_one_order():
    items = torch.arange(103)
    whole = Batches(items, 20, seed=3)
    shares = [Batches(items, 20, seed=3, rank=r, world_size=2) for r in range(2)]
    for _ in range(12):
        batch, parts = whole.next(), [share.next() for share in shares]
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())
        assert not set(parts[0].tolist()) & set(parts[1].tolist())


def test_epoch_visits_no_item_twice_and_epochs_differ():
    batches = Batches(torch.arange(103), 20, seed=0)
    epochs = [torch.cat([batches.next() for _ in range(5)]) for _ in range(2)]
    assert all(len(epoch.unique()) == 100 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("batch_size", "world_size"), [(104, 1), (21, 2)])
def test_batches_refuse_sizes_that_do_not_fit(batch_size, world_size):
    with pytest.raises(UsageError, match=f"batch_size must be .*got {batch_size}"):
        Batches(torch.arange(103), batch_size, seed=0, world_size=world_size)


def test_two_processes_train_as_one(tmp_path):
    """torchrun with gloo: same order, so the first loss is that of one process."""
    options = ("--steps", 2, "--batch-size", 64, "--set", "hidden=4", "blocks=1")
    run = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "examples")
    arguments = ("train", "pixel_cnn", *options, "--out", tmp_path / "two")
    result = subprocess.run(
        [*run, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Test: ") == 1
    train(small_config("pixel_cnn", 2, batch_size=64), tmp_path / "one")
    one, two = (read_log(tmp_path / n) for n in ("one", "two"))
    assert [r["step"] for r in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert len(checkpoint.load(tmp_path / "two" / checkpoint.FILE_NAME)["rng"]) == 2
    with pytest.raises(UsageError, match="the run has 2 processes; got 1"):
        train(small_config("pixel_cnn", 2), tmp_path / "two", resume=True)


def test_checkpoint_of_other_shapes_names_each_and_changes_nothing(tmp_path, capsys):
    run = tmp_path / "run"
    train(small_config("pixel_cnn", 1), run)
    path = run / checkpoint.FILE_NAME
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    state = checkpoint.load(path)
    config = small_config("pixel_cnn", 2)
    config.options = {"hidden": 6, "blocks": 1}
    with pytest.raises(UsageError) as error:
        Trainer(config, data.load("digits"), run, resume_from=state)
    text = "layers.0.weight has shape (8, 1, 7, 7); the model has (12, 1, 7, 7)"
    assert text in str(error.value)
    assert main(["sample", "vae", "--run", str(run)]) == 2
    message = capsys.readouterr().err
    assert "does not match the model vae" in message
    assert "encoder.0.weight is missing from the checkpoint" in message
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_run_directory_is_not_overwritten(tmp_path, capsys):
    run = tmp_path / "run"
    train(small_config("vae", 1, lr=0.002), run)
    before = (run / checkpoint.FILE_NAME).read_bytes()
    assert main(["train", "vae", "--steps", "2", "--out", str(run)]) == 2
    assert "already holds a run; add --resume, or choose another --out" in capsys.readouterr().err
    assert main(["train", "vae", "--lr", "0.5", "--resume", "--out", str(run)]) == 2
    assert "--resume: lr is 0.002 in the checkpoint; got 0.5" in capsys.readouterr().err
    assert (run / checkpoint.FILE_NAME).read_bytes() == before


def test_crash_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / checkpoint.FILE_NAME
    checkpoint.save(path, {"step": 1})

    def crash(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_or_missing_checkpoint_exits_with_code_2(tmp_path, capsys, content):
    path = tmp_path / checkpoint.FILE_NAME
    if content is not None:
        path.write_bytes(content)
    assert main(["sample", "vae", "--run", str(tmp_path)]) == 2
    text = "there is no checkpoint" if content is None else "is damaged or not a checkpoint"
    assert text in capsys.readouterr().err


def test_validation_selects_and_stops_early(tmp_path):
    config = small_config("vae", 60, lr=0.05, ema_decay=0.0, eval_every=1, patience=3)
    trainer = train(config, tmp_path)
    values = [(r["val"], r["step"]) for r in read_log(tmp_path) if "val" in r]
    assert (trainer.best["value"], trainer.best["step"]) == min(values)
    assert trainer.step == trainer.best["step"] + 3 < 60
    assert trainer.evaluate("val", trainer.chosen_model()) == trainer.best["value"]


def test_bf16_mixed_precision_trains(tmp_path):
    options = ("--precision", "bf16", "--steps", 3, "--set", "hidden=4", "blocks=1")
    run = command("train", "pixel_cnn", *options, "--out", tmp_path)
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True, env=environment())
    state = checkpoint.load(tmp_path / checkpoint.FILE_NAME)
    assert all(w.dtype == torch.float32 for w in state["model"].values())
    assert read_log(tmp_path)[-1]["loss"] < 200


def test_sample_command_writes_a_grid(tmp_path, capsys):
    config = small_config("gan", 1, sample_every=1)
    train(config, tmp_path)
    assert (tmp_path / "samples" / "step_000001.png").is_file()
    assert any((tmp_path / "tensorboard").iterdir())
    assert main(["sample", "gan", "--run", str(tmp_path), "--num", "5"]) == 0
    assert "Wrote 5 samples" in capsys.readouterr().out
    assert (tmp_path / "samples.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "pixelcnn"], "did you mean pixel_cnn?); valid: gan, pixel_cnn, pixel_rnn, vae"),
        (["train", "vae", "--step", "3"], "did you mean --steps?); valid: "),
        (["train", "vae", "--set", "latnt=3"], "did you mean latent?); valid: hidden, latent"),
        (["train", "vae", "--set", "latent=x"], "option latent must be int; got 'x'"),
        (["train", "vae", "--data", "digts"], "did you mean digits?); valid: checkerboard"),
        (["train", "vae", "--data", "ring8"], "vae cannot be trained on this data"),
        (["train", "vae", "--precision", "fp8"], "unknown precision 'fp8'; valid: no, bf16, fp16"),
        (["train", "vae", "--steps", "0"], "steps must be at least 1; got 0"),
        (["train", "vae", "--resume"], "there is no checkpoint"),
        (["sample", "gann"], "did you mean gan?"),
    ],
)
def test_wrong_arguments_say_what_is_valid(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert text in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_list_names_models_options_and_data_sets(capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for name in ("pixel_cnn", "pixel_rnn", "vae", "gan", "saturating=False", *data.DATASETS):
        assert name in output


def test_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(UsageError, match=r"vae: the loss is not finite by step 5; .* --lr"):
        train(small_config("vae", 20, lr=1e30, clip_norm=1e30), tmp_path)
    assert checkpoint.load(tmp_path / checkpoint.FILE_NAME)["step"] == 0


def test_log_is_json_lines(tmp_path):
    train(small_config("vae", 3), tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
