"""`python -m examples table`: rows, intervals, the page."""

import json
import math

import pytest
import torch

from examples import data
from examples.cli import main
from examples.harness import checkpoint, scores
from examples.model import Batch, DataSpec, GenerativeModel

POINTS = DataSpec((2,), None)


class Exact(GenerativeModel):
    """A normal distribution of which all is known; a sample is shifted by ``shift``."""

    shift = 0.0

    def loss(self, batch: Batch, generator, player="model"):
        normal = torch.distributions.Normal(0.0, 1.0)
        return {"loss": -normal.log_prob(batch.items).sum(1).mean()}

    def sample(self, num_samples, generator, temperature=1.0):
        return torch.randn(num_samples, 2, generator=generator) + self.shift


def normal_data(seed: int) -> data.dataset.Dataset:
    points = torch.randn(2400, 2, generator=torch.Generator().manual_seed(seed))
    return data.dataset.Dataset("normal", POINTS, {"test": points}, {})


def test_interval_of_bits_covers_the_entropy():
    """log2(2 pi e) / 2 bits per dimension; most of 40 intervals hold it."""
    entropy = 0.5 * math.log2(2 * math.pi * math.e)
    found = [scores.bits(Exact(POINTS), normal_data(seed)) for seed in range(40)]
    covered = [abs(value - entropy) <= half for value, half in found]
    assert sum(covered) >= 34
    assert not all(abs(value - entropy) <= 0.2 * half for value, half in found)


def test_distance_is_zero_for_equal_distributions_and_grows_with_the_shift():
    model = Exact(POINTS)
    found = [scores.distance("gan", model, normal_data(seed)) for seed in range(40)]
    assert sum(abs(value) <= half for value, half in found) >= 34
    last = 0.0
    for shift in (0.5, 1.0, 2.0):
        model.shift = shift
        value, half = scores.distance("gan", model, normal_data(0))
        assert value - half > last
        last = value + half


def test_table_writes_a_row_a_model_and_keeps_earlier_rows(tmp_path, capsys, few):
    given = ["--steps", "2", "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "page")]
    assert main(["table", "gan", *given]) == 0
    assert main(["table", "vae", *given]) == 0
    first = json.loads((tmp_path / "page" / "table.json").read_text())
    assert [(row["model"], row["measure"]) for row in first] == [
        ("gan", "distance"),
        ("vae", "bits/dim"),
    ]
    assert main(["table", "gan", "--data", "ring8", *given]) == 0
    assert main(["table", "vae", *given]) == 0
    rows = json.loads((tmp_path / "page" / "table.json").read_text())
    assert [(row["model"], row["data"]) for row in rows] == [
        ("gan", "digits"),
        ("vae", "digits"),
        ("gan", "ring8"),
    ]
    assert rows[0] == first[0]
    page = (tmp_path / "page" / "README.md").read_text()
    for row in rows:
        assert f"| `{row['model']}` | {row['data']} | {row['value']:.4f} +- " in page
        assert (tmp_path / "page" / "pictures" / f"{row['model']}-{row['data']}.png").is_file()
    assert page.count("\n| ") == 1 + len(rows)


def test_a_finished_run_is_measured_again_and_one_of_other_options_trained(tmp_path, capsys, few):
    runs, page = tmp_path / "runs", tmp_path / "page"
    given = ["--out", str(runs), "--page", str(page), "--resume"]

    def measured(steps: str) -> tuple:
        assert main(["table", "fvsbn", "--steps", steps, *given]) == 0
        path = runs / "fvsbn-digits" / "checkpoint.pt"
        (row,) = json.loads((page / "table.json").read_text())
        return row, checkpoint.load(path)["model"]["weight"], (path.parent / "log.jsonl").stat()

    first, weight, log = measured("2")
    again, same, later = measured("2")
    assert torch.equal(weight, same) and log.st_size == later.st_size
    assert (again["value"], again["steps"]) == (first["value"], 2)
    other, trained, _ = measured("3")
    assert other["steps"] == 3 and not torch.equal(weight, trained)


@pytest.mark.parametrize("content", ["", "{}", "[3]", '[{"model": "vae"}]', "\udcff"])
def test_damaged_rows_are_refused_and_kept(tmp_path, capsys, content):
    path = tmp_path / "table.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    before = path.read_bytes()
    runs = str(tmp_path / "runs")
    assert main(["table", "vae", "--steps", "1", "--page", str(tmp_path), "--out", runs]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and message.count("\n") == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
