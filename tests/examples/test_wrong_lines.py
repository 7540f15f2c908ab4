"""Wrong command lines: one sentence, exit code 2, nothing written, torch not imported."""

import json
import subprocess
import sys

import pytest

from tests.examples.processes import ROOT
from tests.examples.wrong_lines import LINES

PLACES = {"FILE", "FOLDER", "RUN", "FILE/x", "FILE/a/b", "FILE/x.png"}

PROGRAM = """
import contextlib, io, json, sys, time
from examples.cli import main

results = []
for argv in json.load(sys.stdin):
    out, err, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    results.append((code, out.getvalue(), err.getvalue(), time.perf_counter() - start))
    assert "torch" not in sys.modules, (argv, err.getvalue())
json.dump(results, sys.stdout)
"""


def test_wrong_lines_are_refused_in_one_sentence(tmp_path):
    """One process takes them all, so that none can hide behind the time of an import."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"kept")
    before = sorted(tmp_path.rglob("*"))
    names = {"FILE": "file", "FOLDER": "folder", "RUN": "run"}
    lines = [[_filled(text, names) for text in line[0]] for line in LINES]
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(lines),
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    wrong = [
        (argv, err)
        for argv, line, (code, out, err, seconds) in zip(lines, LINES, results, strict=True)
        if not _refused(line, names, code, out, err) or seconds > 3
    ]
    assert not wrong
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"
    assert len({tuple(argv) for argv in lines}) == len(LINES) >= 150


def _filled(text: str, names: dict[str, str]) -> str:
    first, slash, rest = text.partition("/")
    return names.get(first, first) + slash + rest


def _refused(line, names, code: int, out: str, err: str) -> bool:
    _, option, takes, got = line
    shown = repr(_filled(got, names))[1:-1][:70]
    one = err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    return code == 2 and not out and one and all(part in err for part in (option, takes, shown))


@pytest.mark.deep
@pytest.mark.parametrize("argv", [a for a, *_ in LINES if not PLACES & set(a)][::8])
def test_a_wrong_line_alone_takes_less_than_three_seconds(tmp_path, argv):
    process = subprocess.run(
        [sys.executable, "-m", "examples", *argv],
        env={"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        timeout=3,
    )
    assert process.returncode == 2
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
def test_a_wrong_rank_is_refused(monkeypatch, capsys, name):
    from examples.cli import main

    monkeypatch.setenv(name, "x")
    assert main(["list"]) == 2
    assert (
        capsys.readouterr().err == f"error: {name} takes an integer from 0 to 1,000,000; got 'x'\n"
    )


def test_help_says_what_every_option_takes(capsys):
    from examples import options
    from examples.cli import main

    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, (takes, _) in options.TRAIN.items():
        assert options.flag(name) in text and f"({takes})" in text, name


@pytest.mark.parametrize("redirect", ["> /dev/full", ">&-"])
def test_a_closed_or_full_output_is_one_sentence(redirect):
    command = f"{sys.executable} -m examples list {redirect}"
    process = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1
