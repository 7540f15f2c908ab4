"""The demo: what it measures, writes and promises."""

import json
import re

import pytest
import torch
from torch import nn

import genkern
from examples import registry
from examples.data import load
from examples.demo import run
from examples.demo.plain import PLAIN, plain
from examples.harness.config import build_model
from examples.model import Batch, DataSpec


def test_short_demo_writes_its_report_and_fails_its_likelihood_checks(tmp_path, monkeypatch, few):
    monkeypatch.setattr(run, "TIMED_STEPS", 2)
    monkeypatch.setattr(run, "CHECKED_STEPS", 2)
    monkeypatch.setattr(run, "NUM_SAMPLES", 4)
    with monkeypatch.context() as one:
        one.setattr(run, "STEPS", {"vae": 1})
        assert run.demo(tmp_path) == 0  # it promises no likelihood
    assert run.demo(tmp_path, steps=2) == 1  # in the place of the first
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["models"]) == set(run.STEPS)
    for name, result in metrics["models"].items():
        assert result["steps"] == 2
        assert result["comparison"]["difference"] <= 1e-9, name
        assert set(result["comparison"]["backends"].values()) == {"cpu"}, name
    failed = [check["text"] for check in metrics["checks"] if not check["ok"]]
    assert [text.partition(":")[0] for text in failed] == ["pixel_cnn", "pixel_rnn"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(run.STEPS) + 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    for name in run.STEPS:
        assert f"{name} samples" in page


def test_baselines_are_those_of_uniform_and_independent_pixels():
    baselines = run.baselines(load("digits"))
    assert baselines["uniform"] == pytest.approx(4.0875, abs=1e-4)
    assert 2.3 < baselines["independent pixels"] < 2.5


@pytest.mark.parametrize("name", run.STEPS)
def test_plain_models_compute_the_same_without_genkern(name, monkeypatch):
    """The same losses and gradients from the same weights; a VAE is given the same noise."""
    torch.manual_seed(0)
    fused = build_model(name, DataSpec((1, 8, 8), 17, 10), registry.entry(name).small).double()
    other = plain(fused)
    assert not [m for m in other.modules() if type(m).__module__.startswith("genkern")]
    eps = torch.randn(16, 4, dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, **_: self.copy_(eps))
    monkeypatch.setattr(
        genkern.nn.GaussianLatent,
        "forward",
        lambda self, features, **_: genkern.gaussian_kl_rsample(*features.chunk(2, 1), eps=eps),
    )
    batch = Batch(load("digits").splits["val"][:16])
    for player in fused.players:
        losses = []
        for model in (fused, other):
            model.eval().zero_grad()
            loss = model(batch, torch.Generator().manual_seed(0), player)["loss"]
            loss.backward()
            losses.append(loss)
        torch.testing.assert_close(*losses)
        pairs = zip(
            fused.players[player].parameters(), other.players[player].parameters(), strict=True
        )
        for a, b in pairs:
            torch.testing.assert_close(a.grad, b.grad)


def test_colour_groups_have_the_mask_of_their_layer():
    layer = genkern.nn.MaskedConv2d(6, 9, (3, 5), mask_type="A", data_channels=3, dilation=2)
    x = torch.randn(2, 6, 7, 8)
    torch.testing.assert_close(PLAIN[type(layer)](layer)(x), layer(x), rtol=1e-4, atol=1e-5)


def test_a_layer_without_a_plain_counterpart_is_an_error(monkeypatch):
    monkeypatch.delitem(PLAIN, genkern.nn.GANLoss)
    with pytest.raises(ValueError, match="there is no plain GANLoss"):
        plain(nn.Sequential(genkern.nn.GANLoss()))
