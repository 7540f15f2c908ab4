"""The training harness: exact resume, checkpoints, data order, players, processes."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import data, registry
from examples.cli import main
from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.batches import Batches
from examples.harness.config import TrainConfig
from examples.harness.runlog import read_log
from examples.harness.trainer import Trainer
from examples.paths import CHECKPOINT
from tests.examples.few import few_digits

ROOT = Path(__file__).resolve().parents[2]


def small_config(name: str, steps: int, **overrides) -> TrainConfig:
    fixed = {"eval_every": 5, "checkpoint_every": 0, "sample_every": 0, "patience": 0}
    return TrainConfig.for_model(
        name,
        steps=steps,
        options=registry.entry(name).small,
        **{**fixed, "batch_size": 512, **overrides},
    )


def train(
    config: TrainConfig, out: Path, *, resume: bool = False, dataset: Dataset | None = None
) -> Trainer:
    state = checkpoint.load(out / CHECKPOINT) if resume else None
    dataset = data.load("digits") if dataset is None else dataset
    trainer = Trainer(config, dataset, out, resume_from=state, quiet=True)
    trainer.train()
    return trainer


def assert_same_state(first: Path, second: Path) -> None:
    """Every tensor of two checkpoints is bitwise the same; paths and limits may differ."""
    a, b = (checkpoint.load(path / CHECKPOINT) for path in (first, second))
    for state in (a, b):
        del state["config"]
    flat_a, flat_b = (torch.utils._pytree.tree_flatten(state) for state in (a, b))
    assert flat_a[1] == flat_b[1]
    for x, y in zip(flat_a[0], flat_b[0], strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("name", registry.MODELS)
def test_resumed_run_is_bitwise_the_uninterrupted_run(tmp_path, name):
    """7 steps of one to three batches, four of which are an epoch: the stop at 5 is inside of one,
    between two validations."""
    config = functools.partial(small_config, name, batch_size=32, eval_every=3)
    train(config(7), tmp_path / "whole", dataset=few_digits())
    train(config(5), tmp_path / "halves", dataset=few_digits())
    train(config(7), tmp_path / "halves", resume=True, dataset=few_digits())
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "halves")
    assert_same_state(tmp_path / "whole", tmp_path / "halves")


def test_processes_see_disjoint_shares_of_one_order():
    items = torch.arange(103)
    whole = Batches(items, -items, 20, seed=3)
    shares = [Batches(items, -items, 20, seed=3, rank=r, world_size=2) for r in range(2)]
    for _ in range(12):
        batch, parts = whole.next(), [share.next() for share in shares]
        assert all(torch.equal(part.labels, -part.items) for part in (batch, *parts))
        first, second = (part.items.tolist() for part in parts)
        assert sorted(first + second) == sorted(batch.items.tolist())
        assert not set(first) & set(second)


def test_epoch_visits_no_item_twice_and_epochs_differ():
    batches = Batches(torch.arange(103), None, 20, seed=0)
    epochs = [torch.cat([batches.next().items for _ in range(5)]) for _ in range(2)]
    assert all(len(epoch.unique()) == 100 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("batch_size", "world_size"), [(104, 1), (21, 2)])
def test_batches_refuse_sizes_that_do_not_fit(batch_size, world_size):
    with pytest.raises(UsageError, match=f"--batch-size takes .*got '{batch_size}'"):
        Batches(torch.arange(103), None, batch_size, seed=0, world_size=world_size)


def test_two_processes_train_as_one(tmp_path, server):
    """The same order of the data, so that the losses are those of one process."""
    done = server.run(*two_steps(tmp_path / "two"), ranks=2)
    assert done.code == 0, done.err
    assert done.out.count("Test: ") == 1
    train(small_config("pixel_cnn", 2, batch_size=64), tmp_path / "one")
    one, two = (read_log(tmp_path / n) for n in ("one", "two"))
    assert [r["step"] for r in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert len(checkpoint.load(tmp_path / "two" / CHECKPOINT)["rng"]) == 2
    with pytest.raises(UsageError, match="the run has 2 processes; got 1"):
        train(small_config("pixel_cnn", 2), tmp_path / "two", resume=True)
    again = server.run(*two_steps(tmp_path / "two", 4), "--resume", ranks=2)
    assert again.code == 0, again.err
    whole = server.run(*two_steps(tmp_path / "whole", 4), ranks=2)
    assert whole.code == 0, whole.err
    assert_same_state(tmp_path / "whole", tmp_path / "two")


def test_learning_rates_fall_to_0_at_the_end(tmp_path):
    trainer = train(small_config("vae", 4, anneal=0.75), tmp_path)
    rates = []
    for trainer.step in range(5):
        trainer._anneal("model", trainer.optimizers["model"])
        rates.append(trainer.optimizers["model"].param_groups[0]["lr"] / trainer.config.lr)
    assert rates == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])


def two_steps(out: Path, steps: int = 2) -> list[str]:
    options = ("--steps", steps, "--batch-size", 64, "--set", "hidden=8", "blocks=2")
    return list(map(str, ("train", "pixel_cnn", *options, "--out", out)))


@pytest.mark.deep
def test_torchrun_trains(tmp_path, server):
    run = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "examples")
    result = subprocess.run(
        [*run, *two_steps(tmp_path / "torchrun")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Test: ") == 1
    assert server.run(*two_steps(tmp_path / "forked"), ranks=2).code == 0
    one, two = (read_log(tmp_path / name) for name in ("torchrun", "forked"))
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in two], rel=1e-5)


def test_checkpoint_of_other_shapes_names_each_and_changes_nothing(tmp_path, capsys):
    run = tmp_path / "run"
    train(small_config("pixel_cnn", 1), run)
    path = run / CHECKPOINT
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    state = checkpoint.load(path)
    config = small_config("pixel_cnn", 2)
    config.options = {"hidden": 6, "blocks": 2}
    with pytest.raises(UsageError) as error:
        Trainer(config, data.load("digits"), run, resume_from=state)
    text = "layers.0.weight has shape (16, 1, 7, 7) torch.float32; the model has (12, 1, 7, 7)"
    assert text in str(error.value)
    lost = {key: value for key, value in state["model"].items() if key != "layers.0.weight"}
    with pytest.raises(UsageError, match=r"layers\.0\.weight is missing from the checkpoint"):
        checkpoint.load_weights(
            Trainer(config, data.load("digits"), run / "no").model, lost, "", path
        )
    assert main(["sample", "vae", "--run", str(run)]) == 2
    message = capsys.readouterr().err
    assert "--run takes a run of vae; got " in message and "(a run of pixel_cnn)" in message
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_run_directory_is_not_overwritten(tmp_path, capsys):
    run = tmp_path / "run"
    train(small_config("vae", 1, lr=0.002), run)
    before = (run / CHECKPOINT).read_bytes()
    assert main(["train", "vae", "--steps", "2", "--out", str(run)]) == 2
    assert "--out takes a folder without a run" in capsys.readouterr().err
    assert main(["train", "vae", "--lr", "0.5", "--resume", "--out", str(run)]) == 2
    assert "--resume: lr is 0.002 in the checkpoint; got 0.5" in capsys.readouterr().err
    assert (run / CHECKPOINT).read_bytes() == before


def test_validation_selects_and_stops_early(tmp_path):
    config = small_config("vae", 60, lr=0.05, ema_decay=0.0, eval_every=1, patience=3)
    trainer = train(config, tmp_path)
    values = [(r["val"], r["step"]) for r in read_log(tmp_path) if "val" in r]
    assert (trainer.best["value"], trainer.best["step"]) == min(values)
    assert trainer.step == trainer.best["step"] + 3 < 60
    assert trainer.evaluate("val", trainer.chosen_model()) == trainer.best["value"]


def test_bf16_mixed_precision_trains(tmp_path, server):
    options = ("--precision", "bf16", "--steps", 3, "--set", "hidden=4", "blocks=1")
    assert server.run("train", "pixel_cnn", *options, "--out", tmp_path).code == 0
    state = checkpoint.load(tmp_path / CHECKPOINT)
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


def test_list_names_models_options_and_data_sets(capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for name in ("pixel_cnn", "pixel_rnn", "vae", "gan", "saturating=False", *data.DATASETS):
        assert name in output


def test_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(UsageError, match=r"vae: the loss is not finite by step 5; .* --lr"):
        train(small_config("vae", 20, lr=1e30, clip_norm=1e30), tmp_path)
    assert checkpoint.load(tmp_path / CHECKPOINT)["step"] == 0


def test_log_is_json_lines(tmp_path):
    train(small_config("vae", 3), tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_optimiser_options_of_one_player_leave_the_others_alone(tmp_path):
    config = small_config("gan", 1, lr=0.01, players={"generator": {"lr": 0.5, "beta2": 0.9}})
    trainer = Trainer(config, data.load("digits"), tmp_path)
    found = {name: o.param_groups[0] for name, o in trainer.optimizers.items()}
    assert (found["generator"]["lr"], found["generator"]["betas"]) == (0.5, (0.5, 0.9))
    assert (found["discriminator"]["lr"], found["discriminator"]["betas"]) == (0.01, (0.5, 0.999))


def test_an_unknown_player_is_an_error_that_lists_the_players(tmp_path):
    config = small_config("gan", 1, players={"critic": {"lr": 0.5}})
    with pytest.raises(UsageError, match="--player takes discriminator, generator; got 'critic'"):
        Trainer(config, data.load("digits"), tmp_path)


def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    train(small_config("vae", 1), tmp_path)
    digits = data.load("digits")
    splits = {name: items.clone() for name, items in digits.splits.items()}
    splits["train"][0, 0, 0, 0] += 1
    other = Dataset("digits", digits.spec, splits, digits.labels)
    with pytest.raises(UsageError, match="the data of digits are not those of the run"):
        state = checkpoint.load(tmp_path / CHECKPOINT)
        Trainer(small_config("vae", 2), other, tmp_path, resume_from=state)


@pytest.mark.parametrize("name", [n for n, s in data.DATASETS.items() if not s.local])
def test_sources_say_what_their_data_are(name):
    source = data.source(name)
    spec = data.load(name).spec
    assert (spec.is_image, spec.levels is not None) == (source.images, source.images)
    assert (spec.classes is not None) == source.labels
    assert source.colours == (spec.is_image and spec.shape[0] == 3)
    assert source.large == (spec.is_image and spec.dims >= 784)


@pytest.mark.parametrize("name", registry.MODELS)
def test_options_read_from_a_file_are_those_of_the_class(name):
    import inspect

    parameters = inspect.signature(registry.model_class(name)).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert registry.model_options(name) == found
    for option, value in {**found, **registry.entry(name).small}.items():
        assert registry.takes(name, option).check(option, value) == value
