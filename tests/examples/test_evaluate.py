"""`python -m examples evaluate` and `complete`: bits, classes, outliers, pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples import data, registry
from examples.autoregressive.gated_pixel_cnn import luminance
from examples.cli import main
from examples.data.dataset import Dataset
from examples.evaluate import COMPLETIONS, completions
from examples.harness import bounds, checkpoint, images, likelihood
from examples.model import Batch, DataSpec
from genkern.metrics import AIS
from tests.examples.test_examples import make, noise

SPEC = DataSpec((1, 3, 4), 3, 2)
GATED = "gated_pixel_cnn_class"


def of_model(name: str, seed: int, counts: tuple[int, ...] = (60, 200, 400)) -> tuple:
    """A model, and data that follow it exactly."""
    model = make(name, SPEC).eval()
    generator = noise(seed)
    items, labels = {}, {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        y = (torch.rand(count, generator=generator) < 0.3).long()
        items[split] = model.sample(count, generator, given=y if model.condition else None)
        labels[split] = y
    return model, Dataset("drawn", SPEC, items, labels)


def test_nats_have_an_interval_that_covers_the_entropy_of_the_model():
    """The data follow the model, so that the mean of -log p(x) is its entropy."""
    model, dataset = of_model("nade", 0, (1, 1, 20000))
    entropy = likelihood.nats(model, dataset.splits["test"]).mean().item()
    found = []
    for part in dataset.splits["test"].split(400)[:40]:
        each = Dataset("part", SPEC, {"test": part}, {})
        found.append(likelihood.likelihood(model, each))
    covered = [abs(f["nats"] - entropy) <= f["nats_half_width"] for f in found]
    assert 34 <= sum(covered) < 40 or all(covered)
    assert not all(abs(f["nats"] - entropy) <= 0.2 * f["nats_half_width"] for f in found)
    first = found[0]
    assert first["bits_per_dim"] == pytest.approx(first["nats"] / 12 / math.log(2))
    assert first["perplexity"] == pytest.approx(2 ** first["bits_per_dim"])


def test_perplexity_of_equal_levels_is_their_number():
    model, dataset = of_model("fvsbn", 0)
    for parameter in model.parameters():
        parameter.data.zero_()
    found = likelihood.likelihood(model, dataset)
    assert found["perplexity"] == pytest.approx(3.0, rel=1e-6)
    assert found["bits_per_dim_half_width"] == pytest.approx(0.0, abs=1e-6)


def conditional(seed: int = 0) -> tuple:
    torch.manual_seed(seed)
    model, dataset = of_model("gated_pixel_cnn_class", seed)
    return model, dataset


def test_bayes_rule_is_the_posterior_of_the_joint():
    model, dataset = conditional()
    prior = likelihood.prior(dataset)
    assert prior.sum().item() == pytest.approx(1.0)
    expected = (dataset.labels["train"] == 1).sum().item() + 1
    assert prior[1].item() == pytest.approx(expected / 62)
    items = dataset.splits["test"][:50]
    joint = likelihood.log_joint(model, items, prior)
    each = [-likelihood.nats(model, items, torch.full((50,), y)) + prior[y].log() for y in (0, 1)]
    torch.testing.assert_close(joint, torch.stack(each, 1))
    marginal = likelihood.marginal(model, dataset)(items)
    torch.testing.assert_close(marginal, -(joint.exp().sum(1)).log())


class Independent(torch.nn.Module):
    """p(x | y): each of 12 bits is 1 with probability 0.8 or 0.2, by the class."""

    condition = "class"

    def __init__(self) -> None:
        super().__init__()
        ones = torch.rand(3, 12, generator=noise(3)) < 0.5
        self.weight = torch.nn.Parameter(torch.where(ones, 0.8, 0.2))

    def nll(self, items, labels):
        one = self.weight[labels]
        return -torch.where(items.flatten(1) == 1, one, 1 - one).log().sum(1)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # the MLP learns the noise by heart
def test_no_classifier_beats_bayes_rule_with_the_true_model(monkeypatch):
    model, labels = Independent(), torch.arange(2000) % 3
    items = (torch.rand(2000, 12, generator=noise()) < model.weight[labels]).to(torch.uint8)
    splits = {"train": items[:300].view(-1, 1, 3, 4), "test": items[300:].view(-1, 1, 3, 4)}
    given = {"train": labels[:300], "test": labels[300:]}
    dataset = Dataset("drawn", DataSpec((1, 3, 4), 2, 3), splits, given)
    found = likelihood.classes(model, dataset)
    accuracy, half = found.accuracy
    # What the likeliest class reaches, over all images: sum_x max_y p(x, y).
    every = torch.cartesian_prod(*[torch.arange(2)] * 12)
    joint = torch.stack([-model.nll(every, torch.full((4096,), y)) for y in range(3)], 1).exp() / 3
    best = joint.max(1).values.sum().item()
    assert 0 < half < 0.03 and accuracy == pytest.approx(best, abs=2 * half) and best > 0.8
    entropy = -(joint * (joint / joint.sum(1, keepdim=True)).log()).sum().item()
    assert found.nats == pytest.approx(entropy, abs=0.06)
    assert set(found.others) == {"logistic regression", "MLP"}
    assert all(0.7 < other <= best + half for other in found.others.values())
    monkeypatch.setattr(likelihood, "discriminative", lambda dataset: {})  # trained above
    wrong = {**given, "test": labels[300:].roll(1)}
    shifted = likelihood.classes(model, Dataset("drawn", dataset.spec, splits, wrong))
    assert shifted.accuracy[0] < 0.2


def test_outliers_are_what_they_are_called():
    digits = data.load("digits")
    test, found = digits.splits["test"], likelihood.outliers(digits, noise())
    assert all(items.shape == test.shape and items.dtype == test.dtype for items in found.values())
    assert all(items.max() < 17 for items in found.values())
    shuffled = found["pixels shuffled"].flatten(1)
    assert torch.equal(shuffled.sort(1).values, test.flatten(1).sort(1).values)
    assert not torch.equal(shuffled, test.flatten(1))
    assert torch.equal(found["levels inverted"].long() + test, torch.full_like(test.long(), 16))
    assert torch.equal(found["upside down"].flip(2), test)
    assert found["blank"].sum() == 0
    constant = found["constant"].flatten(1)
    assert (constant == constant[:, :1]).all() and set(constant[:, 0].tolist()) == set(range(17))


class Smooth(torch.nn.Module):
    """-log p(x) is the number of changes of level between neighbours: blank is the likeliest."""

    condition = ""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def nll(self, items, labels=None):
        x = items.float()
        return (x.diff(dim=2).abs().sum((1, 2, 3)) + x.diff(dim=3).abs().sum((1, 2, 3))) / 10


def test_constant_images_are_likelier_and_yet_untypical():
    found = likelihood.detect(Smooth(), data.load("digits"))
    assert found["noise"].low > 0.99 and found["noise"].untypical > 0.99
    assert found["blank"].low == found["constant"].low == found["blank"].nats == 0.0
    assert found["blank"].untypical > 0.99
    assert found["upside down"].low == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["pixel_lstm", GATED])
def test_completions_stand_in_rows_behind_their_image(name):
    model = make(name, SPEC).eval()
    items = torch.randint(3, (4, 1, 3, 4), generator=noise(), dtype=torch.uint8)
    rows = completions(model, Batch(items, torch.tensor([0, 1, 1, 0])), noise())
    assert rows.shape == (4, 2 + COMPLETIONS, 1, 3, 4) and rows.dtype == torch.uint8
    assert torch.equal(rows[:, 0], items)
    assert torch.equal(
        rows[:, :, :, :1], items[:, None, :, :1].expand(-1, 2 + COMPLETIONS, -1, -1, -1)
    )
    assert (rows[:, 1, :, 1:] == 1).all()
    drawn = rows[:, 2:, :, 1:].flatten(2)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_colourings_stand_behind_their_image_and_its_luminance():
    spec = DataSpec((3, 3, 4), 6)
    model = make("gated_pixel_cnn_colour", spec).eval()
    items = torch.randint(6, (4, *spec.shape), generator=noise(), dtype=torch.uint8)
    rows = completions(model, Batch(items), noise())
    assert rows.shape == (4, 2 + COMPLETIONS, *spec.shape)
    assert torch.equal(rows[:, 0], items)
    assert torch.equal(rows[:, 1], luminance(items).expand_as(items))
    drawn = rows[:, 2:].flatten(2)
    assert all(not torch.equal(drawn[:, 0], drawn[:, k]) for k in range(1, COMPLETIONS))


def test_a_grid_has_the_columns_that_are_asked_for():
    items = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 2, 3)
    picture = images.grid(items, DataSpec((1, 2, 3), 6), height=1, columns=2)
    assert picture.size == (2 * 4 - 1, 3 * 3 - 1)
    levels = np.asarray(picture)[::3, ::4]
    assert (levels == np.arange(6).reshape(3, 2) * 51).all()


def test_the_command_line_evaluates_and_completes(tmp_path, capsys, few):
    run = str(tmp_path / "run")
    small = [f"{key}={value}" for key, value in registry.entry(GATED).small.items()]
    assert main(["train", GATED, "--steps", "2", "--out", run, "--set", *small]) == 0
    capsys.readouterr()
    assert main(["evaluate", GATED, "--run", run]) == 0
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    exact = report["likelihood"]
    assert f"{exact['nats']:.2f} +- {exact['nats_half_width']:.2f} nats given the class" in out
    assert f"{exact['bits_per_dim']:.4f} +- " in out and "by Bayes' rule" in out
    assert set(report) == {"model", "data", "given", "likelihood", "classes", "outliers"}
    for kind in report["outliers"]:
        assert f"  {kind} " in out
    assert main(["complete", GATED, "--run", run, "--num", "3", "--seed", "1"]) == 0
    picture = Image.open(tmp_path / "run" / "completions.png")
    assert picture.width / picture.height == pytest.approx((8 * 9 - 1) / (3 * 9 - 1))


def test_runs_are_compared_image_by_image(tmp_path, capsys, few):
    """The page shows the mean of the differences, and an interval of its own."""
    page, bits = tmp_path / "page", {}
    for name in ("fvsbn", "nade"):
        run = str(tmp_path / name)
        assert main(["train", name, "--steps", "3", "--out", run]) == 0
        model = checkpoint.load_model(name, tmp_path / name / "checkpoint.pt")
        found = likelihood.nats(model, few.splits["test"])
        bits[name] = found / (64 * math.log(2))
        assert main(["evaluate", name, "--run", run, "--page", str(page)]) == 0
    capsys.readouterr()
    runs = [str(tmp_path / name) for name in bits]
    assert main(["compare", *runs, "--page", str(page)]) == 0
    out = capsys.readouterr().out.splitlines()
    (row,) = json.loads((page / "compared.json").read_text())
    each = bits["nade"] - bits["fvsbn"]
    assert row["difference"] == pytest.approx(each.mean().item())
    assert row["half_width"] == pytest.approx(1.96 * each.std().item() / len(each) ** 0.5)
    assert row["better"] == pytest.approx((each < 0).double().mean().item())
    assert row["steps"] == [3, 3] and (row["first"], row["second"]) == ("fvsbn", "nade")
    assert out[0].startswith(f"{runs[0]}: fvsbn, 70,720 parameters, 3 steps, ")
    shown = f"{row['difference']:+.4f} +- {row['half_width']:.4f}"
    assert shown in out[1] and len(out) == 2
    text = (page / "README.md").read_text()
    assert f"| `fvsbn` | `nade` | digits | {shown} | {100 * row['better']:.0f} % |" in text
    assert main(["complete", "nade", "--run", runs[1], "--num", "1", "--page", str(page)]) == 0
    text = (page / "README.md").read_text()
    assert shown in text and "| `nade` | digits | " in text
    assert "![nade-digits](pictures/nade-digits-completions.png)" in text
    assert (page / "pictures" / "nade-digits-completions.png").is_file()
    assert main(["compare", runs[0], runs[0], "--page", str(page)]) == 0
    assert "+0.0000 +- 0.0000, 0 % of images likelier" in capsys.readouterr().out


SMALL = ["--set", "hidden=8", "latent=2", "--steps", "1", "--eval-every", "0"]


def test_bounds_are_evaluated_and_compared(tmp_path, capsys, monkeypatch, few):
    """ELBO, IWAE-64 and AIS of one model, and the differences of two, image by image."""
    monkeypatch.setattr(bounds, "ANNEALED", AIS(temperatures=2, leapfrogs=1))
    page, runs = tmp_path / "page", [str(tmp_path / name) for name in ("vae", "ladder_vae")]
    for run in runs:
        name = run.rpartition("/")[2]
        assert main(["train", name, "--out", run, *SMALL]) == 0
        assert main(["evaluate", name, "--run", run, "--page", str(page)]) == 0
    out = capsys.readouterr().out
    rows = json.loads((page / "bounds.json").read_text())
    assert [row["model"] for row in rows] == ["ladder_vae", "vae"]
    text = (page / "README.md").read_text()
    for row in rows:
        (elbo, _), (iwae, _), (ais, half) = (row[key] for key in ("elbo", "iwae", "ais"))
        assert elbo < iwae and row["gap"][0] == pytest.approx(ais - elbo)
        assert f"  AIS      {ais:9.3f} +- {half:.3f} nats" in out
        assert row["bits_per_dim"] == pytest.approx(-ais / 64 / math.log(2))
        active, latent = row["active"]
        assert f"| {ais:.2f} +- {half:.2f} |" in text and f"| {active} of {latent} |" in text
    assert main(["compare", *runs, "--page", str(page)]) == 0
    compared = json.loads((page / "compared.json").read_text())
    kinds = [f"vae hidden=8 latent=2 ({name})" for name in ("AIS", "ELBO", "IWAE-64")]
    assert [row["first"] for row in compared] == kinds
    items = few.splits["test"]
    nats = []
    for run in runs:
        model = checkpoint.load_model(run.rpartition("/")[2], Path(run) / "checkpoint.pt")
        nats.append(-bounds.estimate(model, items, "iwae").items)
    each = (nats[1] - nats[0]) / 64 / math.log(2)
    assert compared[2]["difference"] == pytest.approx(each.mean().item())
    assert compared[2]["half_width"] == pytest.approx(1.96 * each.std().item() / len(each) ** 0.5)


def test_a_bound_is_not_compared_with_a_likelihood(tmp_path, capsys, monkeypatch, few):
    monkeypatch.setattr(bounds, "ANNEALED", AIS(temperatures=2, leapfrogs=1))
    runs = [str(tmp_path / name) for name in ("nade", "vae")]
    for run in runs:
        small = [*SMALL[:2], *SMALL[3:]]
        assert main(["train", run.rpartition("/")[2], "--out", run, *small]) == 0
    for pair in (runs, runs[::-1]):
        capsys.readouterr()
        assert main(["compare", *pair]) == 2
        assert "(one of them has no exact likelihood)" in capsys.readouterr().err
