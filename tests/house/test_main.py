"""`python -m genkern`; as a process: test_process.py."""

import sys

import pytest
import torch

import genkern.__main__
from genkern import library
from tests.core.samples import stems


def main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["genkern", *arguments])
    genkern.__main__.main()
    return capsys.readouterr().out


def test_the_report_names_versions_levels_threads_and_backends(monkeypatch, capsys):
    head, _, table = main(monkeypatch, capsys).partition("\n\n")
    lines = {line[:16].strip(): line[16:] for line in head.splitlines()}
    assert lines["genkern"] == genkern.__version__
    if library.compiled is not None:
        assert lines["compiled parts"].startswith("built: baseline")
        assert f"loaded: {library.compiled.isa} (compiler " in lines["compiled parts"]
    assert lines["CPU level"].startswith(library.cpu_level())
    assert lines["threads"] == str(torch.get_num_threads())
    assert lines["backend"] == "by the tensor's device"
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["op"][1:] == list(library.BACKENDS)
    for family in stems():
        assert rows[family][0] == "available"
        assert (rows[family][1] == "available") == (library.compiled is not None)


def test_a_misspelt_option_lists_the_valid_ones(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(monkeypatch, capsys, "--jsn")
    error = capsys.readouterr().err
    assert "[--json]" in error and "unrecognized arguments: --jsn" in error
