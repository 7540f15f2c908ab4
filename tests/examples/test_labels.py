"""Labels: a class-conditional model trains through the harness with one file and one entry."""

import pytest
import torch

from examples import data, registry
from examples.cli import main
from examples.data.dataset import Dataset
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.config import TrainConfig, build_model
from examples.harness.sampling import draw
from examples.harness.trainer import Trainer
from examples.model import DataSpec
from examples.paths import CHECKPOINT
from tests.examples.toy import ENTRY


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(registry.MODELS, "toy", ENTRY)


def test_a_conditional_model_learns_its_classes(tmp_path):
    """Samples of a class are nearer to the mean of that class than to the others."""
    digits = data.load("digits")
    config = TrainConfig.for_model("toy", sample_every=0)
    trainer = Trainer(config, digits, tmp_path, quiet=True)
    trainer.train()
    model = checkpoint.load_model("toy", tmp_path / CHECKPOINT)
    samples = draw("toy", model, 200, torch.Generator().manual_seed(0)).flatten(1).float()
    items, labels = digits.splits["train"].flatten(1).float(), digits.labels["train"]
    means = torch.stack([items[labels == c].mean(0) for c in range(10)])
    found = torch.cdist(samples, means).argmin(1)
    assert (found == torch.arange(200) % 10).float().mean() > 0.7
    unconditional = torch.cdist(samples[torch.randperm(200)], means).argmin(1)
    assert (unconditional == torch.arange(200) % 10).float().mean() < 0.3


def test_labels_and_items_stay_together():
    digits = data.load("digits")
    seen = {
        bytes(x.numpy()): int(y)
        for x, y in zip(digits.splits["val"], digits.labels["val"], strict=True)
    }
    for batch in digits.batches("val", 7):
        for item, label in zip(batch.items, batch.labels, strict=True):
            assert seen[bytes(item.numpy())] == label


def test_the_command_line_samples_one_class_or_each_in_turn(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "toy", "--steps", "2", "--out", run]) == 0
    assert main(["sample", "toy", "--run", run, "--label", "3", "--num", "4"]) == 0
    capsys.readouterr()
    assert main(["sample", "toy", "--run", run, "--label", "10"]) == 2
    assert capsys.readouterr().err == "error: --label takes a class from 0 to 9; got '10'\n"
    assert main(["train", "vae", "--steps", "2", "--out", str(tmp_path / "vae")]) == 0
    assert main(["sample", "vae", "--run", str(tmp_path / "vae"), "--label", "3"]) == 2
    assert "--label takes nothing where MODEL takes no labels; got '3'" in capsys.readouterr().err


def test_data_without_labels_are_refused_before_anything_is_written(tmp_path, capsys):
    command = ["train", "toy", "--data", "patches", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert (
        "--data takes data that toy can be trained on; got 'patches' (it needs labels)" in message
    )
    assert not any(tmp_path.iterdir())
    with pytest.raises(UsageError, match="it needs labels"):
        build_model("toy", DataSpec((1, 8, 8), 17), {})


def test_models_without_labels_train_on_data_without_them(tmp_path):
    items = data.load("digits").splits
    plain = Dataset("plain", DataSpec((1, 8, 8), 17), items, {})
    config = TrainConfig.for_model("vae", steps=2, options=registry.entry("vae").small)
    Trainer(config, plain, tmp_path, quiet=True).train()
