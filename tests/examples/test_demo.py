"""The demo: what it measures, writes and promises."""

import json
import re

import pytest

from examples.data import load
from examples.demo import run


def test_short_demo_writes_its_report_and_fails_its_likelihood_checks(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "COMPARED_STEPS", 2)
    monkeypatch.setattr(run, "NUM_SAMPLES", 4)
    for _ in range(2):  # the second time replaces the first
        assert run.demo(tmp_path, steps=2) == 1
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["models"]) == set(run.MODELS)
    for name, result in metrics["models"].items():
        assert result["steps"] == 2
        assert result["comparison"]["difference_float64"] <= 1e-9, name
        assert result["comparison"]["difference_float32"] <= run.TOLERANCE, name
        for side, backend in (("genkern", "cpu"), ("reference", "reference")):
            assert set(result["comparison"][side]["backends"].values()) == {backend}, name
    failed = [check["text"] for check in metrics["checks"] if not check["ok"]]
    assert [text.partition(":")[0] for text in failed] == ["pixel_cnn", "pixel_rnn"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(run.MODELS) + 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    for name in run.MODELS:
        assert f"{name} samples" in page


def test_baselines_are_those_of_uniform_and_independent_pixels():
    baselines = run.baselines(load("digits"))
    assert baselines["uniform"] == pytest.approx(4.0875, abs=1e-4)
    assert 2.3 < baselines["independent pixels"] < 2.5
