"""Runs that are killed, interrupted, cut off from disk or terminal, or started twice."""

import functools
import os
import random
import signal
from pathlib import Path

import pytest
import torch

from examples.harness import checkpoint, rundir
from examples.harness.runlog import read_log
from examples.paths import CHECKPOINT, LOCK, LOG

#: Of the runs that are killed: a few checkpoints, validations in between, no end before the end.
SMALL = {
    "gan": ("hidden=16", "k=2"),
    "pixel_cnn": ("hidden=8", "blocks=1"),
    "vae": ("hidden=16",),
}
PERIODS = ("--checkpoint-every", 7, "--eval-every", 5, "--patience", 0, "--sample-every", 0)


def command(name: str, out: Path, steps: int = 40) -> list:
    options = ("--steps", steps, "--batch-size", 32, *PERIODS, "--set", *SMALL[name])
    return ["train", name, *options, "--out", out]


def assert_same_run(first: Path, second: Path) -> None:
    """The logs are the same bytes, and every tensor of the checkpoints is bitwise the same."""
    assert (first / LOG).read_bytes() == (second / LOG).read_bytes()
    a, b = (checkpoint.load(path / CHECKPOINT) for path in (first, second))
    flat_a, flat_b = (torch.utils._pytree.tree_flatten(state) for state in (a, b))
    assert flat_a[1] == flat_b[1]
    for x, y in zip(flat_a[0], flat_b[0], strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """A model's name to the folder of its undisturbed run, and the seconds that it took."""

    @functools.cache
    def run(name: str) -> tuple[Path, float]:
        out = tmp_path_factory.mktemp("whole") / name
        done = server.run(*command(name, out))
        assert done.code == 0, done.err
        return out, done.seconds

    return run


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", SMALL)
def test_a_killed_run_goes_on_and_ends_bitwise_as_if_undisturbed(
    tmp_path, server, whole, name, kills
):
    """SIGKILL at random moments, from the first on; 3 models x 20 kills in the deep tier."""
    undisturbed, seconds = whole(name)
    random_ = random.Random(name)
    begun = 0
    for number in range(kills):
        out = tmp_path / f"killed{number}"
        after = random_.uniform(0.0, seconds)
        killed = server.run(*command(name, out), signal=signal.SIGKILL, after=after)
        assert killed.code in (-signal.SIGKILL, 0), killed.err
        begun += (out / CHECKPOINT).exists()
        resume = ["--resume"] if (out / LOCK).exists() else []
        again = server.run(*command(name, out), *resume)
        assert again.code == 0, (after, again.err)
        assert_same_run(undisturbed, out)
    assert begun or kills < 20


def test_a_run_killed_between_its_lock_and_its_checkpoint_starts_again(tmp_path, server):
    (tmp_path / LOCK).touch()
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    done = server.run(*command("vae", tmp_path, 2), "--resume")
    assert done.code == 0, done.err
    assert "has no checkpoint yet: the run starts again, with the options given." in done.out
    assert read_log(tmp_path)[-1]["step"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, server, number):
    out = tmp_path / "run"
    done = server.run(*command("vae", out, 10**6), signal=number, log=str(out / "."), step=20)
    assert done.code == 130, done.err
    step = checkpoint.load(out / CHECKPOINT)["step"]
    assert f"Interrupted ({number.name}) at step {step}; saved " in done.out
    assert "Go on with --resume." in done.out
    assert read_log(out)[-1]["step"] == step


@pytest.mark.parametrize("stdout", ["pipe", "/dev/full"])
def test_a_run_whose_output_closes_saves_and_says_so(tmp_path, server, whole, stdout):
    done = server.run(*command("vae", tmp_path), stdout=stdout)
    assert done.code == 2
    step = checkpoint.load(tmp_path / CHECKPOINT)["step"]
    assert 0 < step < 40
    assert (
        done.err.startswith("error: the output is closed or full (") and done.err.count("\n") == 1
    )
    assert f"step {step} is saved in" in done.err and "go on with --resume" in done.err
    again = server.run(*command("vae", tmp_path), "--resume")
    assert again.code == 0, again.err
    assert_same_run(whole("vae")[0], tmp_path)


def test_a_disk_that_fills_leaves_the_last_checkpoint_and_says_which(tmp_path, server, whole):
    """The optimiser's state makes the second checkpoint larger than the first."""
    first = server.run(*command("vae", tmp_path / "one", 1))
    assert first.code == 0, first.err
    size = (tmp_path / "one" / CHECKPOINT).stat().st_size
    out = tmp_path / "run"
    done = server.run(*command("vae", out), largest_file=int(0.8 * size))
    assert done.code == 2
    assert done.err.count("\n") == 1 and "Traceback" not in done.err
    assert f"step 0 is saved in {out / CHECKPOINT}; go on with --resume" in done.err
    assert checkpoint.load(out / CHECKPOINT)["step"] == 0
    assert not list(out.glob("*.tmp"))
    assert server.run(*command("vae", out), "--resume").code == 0
    assert_same_run(whole("vae")[0], out)


def test_a_disk_that_is_full_from_the_start_says_that_nothing_was_saved(tmp_path, server):
    done = server.run(*command("vae", tmp_path), largest_file=1000)
    assert done.code == 2
    assert done.err.count("\n") == 1 and "nothing was saved" in done.err


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_second_process_is_refused(tmp_path, server, resume):
    with rundir.locked(tmp_path):
        done = server.run(*command("vae", tmp_path), *resume)
    assert done.code == 2
    assert f"another process is writing to {tmp_path}" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK]
    assert server.run(*command("vae", tmp_path, 1), *resume).code == 0


def test_a_folder_that_cannot_be_made_is_a_wrong_option(server):
    done = server.run("train", "vae", "--steps", 1, "--out", "/proc/self/run")
    assert done.code == 2
    assert done.err.startswith("error: --out takes a folder that can be written; got ")
    assert done.err.count("\n") == 1


def test_a_crash_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    rundir.write_sealed(path, memoryview(b"old"))

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space left"):
        rundir.write_sealed(path, memoryview(b"new"))
    assert bytes(rundir.read_sealed(path)) == b"old"
    assert list(tmp_path.iterdir()) == [path]
