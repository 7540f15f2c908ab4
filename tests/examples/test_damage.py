"""Single-byte damage: every damaged file is refused in one sentence, or gives what was written."""

import dataclasses
import io
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from examples import data
from examples.cli import main
from examples.data.dataset import Dataset
from examples.data.files import SUMS, cifar10, mnist
from examples.errors import UsageError
from examples.harness import checkpoint, rundir
from examples.harness.config import TrainConfig
from examples.harness.runlog import RunLog, read_log
from examples.harness.trainer import Trainer
from examples.paths import CHECKPOINT, LOG
from tests.examples.test_data import TEST, TRAIN, write_cifar, write_mnist

DAMAGES = pytest.mark.parametrize("damages", [100, pytest.param(1000, marks=pytest.mark.deep)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three steps."""
    out = tmp_path_factory.mktemp("damage") / "run"
    options = {"hidden": 8, "latent": 2}
    config = TrainConfig.for_model("vae", steps=3, options=options, sample_every=0)
    Trainer(config, data.load("digits"), out, quiet=True).train()
    return out


def damaged(content: bytes, random_: random.Random) -> bytes:
    """One byte changed: one bit of it in half of the cases."""
    place = random_.randrange(len(content))
    change = 1 << random_.randrange(8) if random_.random() < 0.5 else random_.randrange(1, 256)
    return content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]


@DAMAGES
def test_every_damage_to_a_checkpoint_is_refused(finished, tmp_path, capsys, damages):
    path, random_ = tmp_path / CHECKPOINT, random.Random(0)
    content = (finished / CHECKPOINT).read_bytes()
    for number in range(damages):
        bad = damaged(content, random_)
        path.write_bytes(bad)
        with pytest.raises(UsageError, match="is damaged or not a checkpoint"):
            checkpoint.load(path)
        if number % 100 == 0:
            for command in (["sample", "vae", "--run"], ["train", "vae", "--resume", "--out"]):
                assert main([*command, str(tmp_path)]) == 2
                assert capsys.readouterr().err.count("\n") == 1
        assert path.read_bytes() == bad
    for size in (0, 1, rundir.HEADER - 1, rundir.HEADER, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UsageError, match="is damaged or not a checkpoint"):
            checkpoint.load(path)


@DAMAGES
def test_every_damage_to_a_log_sets_it_aside(finished, tmp_path, damages):
    mark = checkpoint.load(finished / CHECKPOINT)["log"]
    path, content, random_ = tmp_path / LOG, (finished / LOG).read_bytes(), random.Random(1)
    assert mark["bytes"] == len(content) > 100
    for _ in range(damages):
        bad = damaged(content, random_)
        path.write_bytes(bad)
        log = RunLog(tmp_path, mark)
        log.close()
        aside = tmp_path / "log.aside-1.jsonl"
        assert "is not the log of the checkpoint (kept as log.aside-1.jsonl)" in log.word
        assert (aside.read_bytes(), path.read_bytes()) == (bad, b"")
        aside.unlink()


@pytest.mark.parametrize("content", [b"\x80\xff\x00binary", b"[1, 2]\n", b'{"step": "x"}\n', b""])
def test_a_run_with_a_strange_log_goes_on(finished, tmp_path, capsys, content):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / LOG).write_bytes(content)
    assert read_log(run) == []
    assert main(["train", "vae", "--resume", "--steps", "5", "--out", str(run)]) == 0
    assert "is not the log of the checkpoint (kept as log.aside-1.jsonl)" in capsys.readouterr().out
    assert [record["step"] for record in read_log(run)] == [4, 5]
    assert (run / "log.aside-1.jsonl").read_bytes() == content


def test_a_log_without_a_checkpoint_is_kept_and_the_run_starts_again(finished, tmp_path, capsys):
    shutil.copy(finished / LOG, tmp_path)
    before = (tmp_path / LOG).read_bytes()
    assert main(["train", "vae", "--steps", "2", "--out", str(tmp_path)]) == 0
    assert "has no checkpoint (kept as log.aside-1.jsonl); the run starts again" in (
        capsys.readouterr().out
    )
    assert (tmp_path / "log.aside-1.jsonl").read_bytes() == before


def summed(folder: Path) -> None:
    import hashlib

    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in folder.iterdir()]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


def same_data(first: Dataset, second: Dataset) -> bool:
    return first.digest() == second.digest()


@DAMAGES
@pytest.mark.parametrize("kind", ["idx", "idx.gz", "cifar"])
def test_every_damage_to_a_data_file_is_seen(tmp_path, kind, damages):
    """A .gz file has a checksum of its own; the others have SHA256SUMS, which is damaged too."""
    random_ = random.Random(2)
    if kind == "cifar":
        write_cifar(tmp_path, 2)
        load = lambda: cifar10(tmp_path, count=2)  # noqa: E731
    else:
        write_mnist(tmp_path, compress=kind == "idx.gz")
        load = lambda: mnist(tmp_path, train_count=TRAIN, test_count=TEST)  # noqa: E731
    if kind != "idx.gz":
        summed(tmp_path)
    whole, files = load(), sorted(tmp_path.iterdir())
    assert not whole.word
    refused = 0
    for _ in range(damages):
        path = random_.choice(files)
        content = path.read_bytes()
        bad = damaged(content, random_)
        path.write_bytes(bad)
        try:
            assert same_data(load(), whole)
        except UsageError as error:
            assert "missing or damaged" in str(error) and "\n" not in str(error)
            refused += 1
        assert path.read_bytes() == bad
        path.write_bytes(content)
    # Some bytes of a .gz header say nothing about the content: a time, a system.
    assert refused > (0.8 if kind == "idx.gz" else 0.99) * damages


def test_files_that_cannot_be_checked_are_said_to_be(tmp_path):
    write_mnist(tmp_path, compress=False)
    word = mnist(tmp_path, train_count=TRAIN, test_count=TEST).word
    assert "a changed byte in its files would not be seen" in word and SUMS in word


class Code:
    """A pickle that runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, capsys, sealed, how):
    mark, buffer = tmp_path / "ran", io.BytesIO()
    if how == "pickle":
        pickle.dump(Code(mark), buffer)
    else:
        torch.save({"config": Code(mark)}, buffer)
    path = tmp_path / CHECKPOINT
    if sealed:
        rundir.write_sealed(path, buffer.getbuffer())
    else:
        path.write_bytes(buffer.getvalue())
    assert main(["sample", "vae", "--run", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "not a checkpoint" in message
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # it would have run


#: Where in the state, and what stands there instead.
STRANGE = [
    ("step", "3"),
    ("step", True),
    ("model", [1]),
    ("model", {"encoder.0.weight": 3}),
    ("rng", None),
    ("rng", []),
    ("rng", [3]),
    ("optimizers", {}),
    ("optimizers", {"model": {"state": 3}}),
    ("best", {"step": 1}),
    ("best", {"step": 1, "value": "x", "model": None, "stale": 0}),
    ("log", {"bytes": "1", "sha256": "x"}),
    ("log", []),
    ("spec", {"shape": (1, "8", 8), "levels": 17, "classes": 10}),
    ("spec", {"shape": 3, "levels": 17, "classes": 10}),
    ("config", {}),
    ("config", {"model": 3}),
    ("config.newer", 1),
    ("config.lr", "fast"),
    ("config.steps", 2.5),
    ("config.model", "transformer"),
    ("config.data", "imagenet"),
    ("config.data_dir", 3),
    ("config.options", {"hidden": "wide"}),
    ("config.options", {"hiden": 8}),
    ("config.players", {"model": {"lr": -1.0}}),
    ("config.players", {"model": 3}),
    ("extra", 1),
]


@pytest.mark.parametrize(("place", "value"), STRANGE)
def test_a_sealed_state_of_wrong_types_is_one_sentence(finished, tmp_path, capsys, place, value):
    content = io.BytesIO(rundir.read_sealed(finished / CHECKPOINT))
    state = torch.load(content, weights_only=True)
    part, _, key = place.partition(".")
    if key:
        state[part][key] = value
    else:
        state[part] = value
    checkpoint.save(tmp_path / CHECKPOINT, state)
    before = (tmp_path / CHECKPOINT).read_bytes()
    assert main(["train", "vae", "--resume", "--steps", "5", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_from_before_an_option_has_its_default(finished):
    state = checkpoint.load(finished / CHECKPOINT)
    given = dataclasses.asdict(state["config"])
    assert TrainConfig.read({k: v for k, v in given.items() if k != "anneal"}) == state["config"]
    with pytest.raises(UsageError, match=r"config takes .*anneal"):
        TrainConfig.read({k: v for k, v in given.items() if k != "lr"})
