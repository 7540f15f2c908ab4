"""The harness of `benchmarks` on tiny cases: gates, guards, schema, texts."""

import json
import time
from dataclasses import replace

import pytest
import torch

from benchmarks import __main__ as cli
from benchmarks import iwae, penalties, training, vae
from benchmarks.core import case, cpu, measure, store, train
from benchmarks.core.busy import beside
from benchmarks.core.case import Case
from benchmarks.core.gate import RedGate, Trial
from tests.core.samples import stems
from tests.house.harness import (
    FAMILY,
    TINY,
    broken,
    cli_case,
    harness,
    measured,
    softplus_means,
    stand_in,
)

FIRST = case.all_cases()[0]
pytestmark = pytest.mark.usefixtures("harness")
__all__ = ["cli_case", "harness"]


def tiny_cases() -> list[Case]:
    """Of each family the smallest one, on a few elements."""
    found = [c for c in case.all_cases() if c.overhead]
    return [next(c for c in found if c.family == family) for family in case.families()]


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.deep)]
)
def test_every_family_passes_its_gate_and_fills_the_schema(tmp_path, dtype):
    cases = tiny_cases()
    records = measured(cases, dtype=dtype)
    assert [r for r in records if r["kind"] == "failure"] == []
    names = {(r["op"], r["phase"], r["implementation"]) for r in records}
    for c in cases:
        assert {(c.op, phase, "genkern") for phase in c.phases} <= names
        assert {(c.op, phase, "eager") for phase in c.phases} <= names
    store.write(tmp_path / "a.jsonl", records)
    assert store.read(tmp_path / "a.jsonl") == records
    for record in records:
        seconds = record["seconds"]
        assert 0 < seconds["p20"] <= seconds["median"] <= seconds["p80"]
        assert record["machine"]["threads"] == 1 and record["versions"]["torch"]
        assert str(store.ROOT) not in json.dumps(record)


def test_compilation_is_not_in_the_time(monkeypatch):
    def slow_compiler(function, dynamic):
        compiled = []

        def call(*tensors):
            if not compiled:
                compiled.append(time.sleep(1.0))
            return function(*tensors)

        return call

    monkeypatch.setattr(torch, "compile", slow_compiler)
    stated = replace(stand_in(9), phases=("forward",), headline=True)
    records = measured([stated, stand_in(7, "of no page")], against=("compile",))
    times = {r["implementation"]: r["seconds"]["p80"] for r in records}
    assert set(times) == {"genkern", "compile"} and times["compile"] < 0.5


@pytest.mark.parametrize(
    "wrong", [lambda x: x + 0.1, lambda x: x * torch.nan, lambda x: x.detach() + 0 * x]
)
def test_a_red_gate_gives_no_figure(wrong):
    records = measured([broken(wrong)])
    red = [r for r in records if r["kind"] == "failure"]
    assert {r["implementation"] for r in red} == {"genkern"}
    assert all(r["kind"] == "failure" for r in records if r["phase"] == "forward_backward")
    assert all("seconds" not in r for r in red)


def test_a_red_gate_ends_with_a_failure_code(cli_case, tmp_path, capsys):
    cli_case(broken())
    out = tmp_path / "red.jsonl"
    assert cli.main(["run", "--quick", "--out", str(out)]) == 1
    assert "RED: stand_in n=9 forward genkern: loss: error" in capsys.readouterr().err
    assert {r["kind"] for r in store.read(out)} == {"failure"}


def test_a_wrong_rival_is_named_and_no_failure_of_the_run(cli_case, tmp_path, capsys):
    cli_case(replace(stand_in(9), eager=lambda a, b: softplus_means(a, b) + 0.1))
    out = tmp_path / "rival.jsonl"
    assert cli.main(["run", "--quick", "--out", str(out)]) == 0
    assert "RED: stand_in n=9 forward eager: loss: error" in capsys.readouterr().err
    timed = {r["implementation"] for r in store.read(out) if r["kind"] == "timing"}
    assert timed == {"genkern", "library"}


def test_an_unwritten_element_is_seen():
    def forgets(a, b):
        out = torch.empty(1)
        return out[0] + 0 * (a.sum() + b.sum())

    red = measured([replace(stand_in(9), genkern=forgets)])
    assert {r["kind"] for r in red} == {"failure"}


def test_a_result_that_changes_after_the_gate_is_seen():
    fake, calls = stand_in(9), []

    def decays(a, b):
        calls.append(1)
        return fake.eager(a, b) + (0.1 if len(calls) > 5 else 0.0)

    red = measured([replace(fake, genkern=decays, phases=("forward",))])
    assert [r["kind"] for r in red] == ["failure"]
    assert red[0]["error"].startswith("after the timed rounds")


def test_noise_that_is_not_normal_is_seen():
    c = next(c for c in case.all_cases() if c.noise and not c.overhead)
    noise = {**c.noise, "genkern": lambda *tensors: 1.5 * c.noise["genkern"](*tensors)}
    with pytest.raises(RedGate, match="noise"):
        trial = Trial(replace(c, noise=noise), "forward", torch.float32, torch.device("cpu"), 0)
        trial.check("genkern", trial.bind("genkern", c.genkern))


@pytest.mark.parametrize(
    "work", [{"flops": (1e15, 1e15)}, {"elements": (1e15, 1e15)}], ids=["flops", "bytes"]
)
def test_a_figure_above_the_roofline_stops_the_run(work, cli_case, tmp_path, capsys):
    cli_case(replace(stand_in(9), **work))
    out = tmp_path / "never.jsonl"
    assert cli.main(["run", "--quick", "--out", str(out)]) == 1
    assert "above the roofline: stand_in n=9 forward genkern: " in capsys.readouterr().err
    assert not out.exists()


def test_rounds_rotate_the_order():
    order = []
    samplers = {n: (lambda n=n: order.append(n) or 1.0) for n in "abc"}
    measure.interleave(samplers, TINY)
    assert "".join(order) == "abcbcacab"


def test_peak_memory_counts_what_lives_at_once():
    x = torch.randn(1 << 20)
    assert 0 <= cpu.allocator_peak(lambda: x * 2 + 1) - 2 * x.nbytes < 64  # and the scalars
    assert 0 <= cpu.allocator_peak(lambda: x.clone().mul_(2)) - x.nbytes < 64
    assert cpu.resident_peak(lambda: torch.ones(1 << 24)) >= 0.9 * (1 << 26)


def test_busy_processes_run_and_end():
    with beside(2) as others:
        assert [other.poll() for other in others] == [None, None]
    assert all(other.returncode for other in others)


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        (["run", FIRST.op[:-1]], FIRST.op),
        (["run", "--devise", "cpu"], "--device"),
        (["run", "--dtype", "float23"], "bfloat16"),
        (["run", "--against", "egaer"], "eager, compile, library"),
        (["scaling", FAMILY[:-1]], FAMILY),
        (["rnu"], "scaling"),
    ],
)
def test_misspelt_names_list_the_valid_ones(words, listed, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2 and listed in capsys.readouterr().err


def test_cases_are_named_once_and_every_family_has_some():
    labels = [c.label for c in case.all_cases()]
    assert len(set(labels)) == len(labels)
    assert case.families() == stems()


def test_the_networks_of_a_training_step_are_the_same_and_a_wrong_one_is_seen():
    networks = [
        training.gated("gated", 5, hidden=4, layers=2, batch=1),
        training.coloured("coloured", hidden=6, blocks=1, batch=1),
    ]
    for network in networks:
        assert train.disagreements(network) == {}
    wrong = replace(networks[1], plain={"eager": lambda s: training.plain_pixel_cnn(3, 256, 6, 1)})
    broken = wrong.plain["eager"](wrong.spec)
    broken[-1].mask.fill_(1)  # the last layer sees all colours
    wrong = replace(wrong, plain={"eager": lambda s: broken})
    assert list(train.disagreements(wrong)) == ["eager"]


def test_steps_with_a_penalty_have_the_gradients_of_plain_pytorch():
    """All parameters', to 1e-9 in float64: R1, WGAN-GP, path length."""
    for network in penalties.steps(width=3, batch=3):
        torch.manual_seed(0)
        images, found = network.images().double(), {}
        for name, (module, loss) in network.built().items():
            value = loss(images) if module.double() else None
            weights = dict(module.named_parameters())
            found[name] = (
                value,
                *torch.autograd.grad(
                    value, list(weights.values()), allow_unused=True, materialize_grads=True
                ),
            )
        assert any((g != 0).any() for g in found["eager"][1:])
        torch.testing.assert_close(found["genkern"], found["eager"], rtol=1e-9, atol=1e-11)
        assert train.disagreements(network) == {}


def test_the_steps_of_torch_distributions_are_the_same_and_a_wrong_one_is_seen():
    steps = [
        iwae.binary("binary", hidden=5, latent=3, side=3, batch=2),
        iwae.digits("digits", hidden=5, latent=3, side=3, batch=2),
    ]
    for step in steps:
        assert train.disagreements(step) == {}
    wrong = replace(steps[0], likelihood=lambda *given: 1.001 * iwae.bernoulli(*given))
    assert list(train.disagreements(wrong)) == ["eager"]


def test_the_steps_of_the_two_vaes_are_the_same_and_a_wrong_one_is_seen():
    steps = [
        vae.photographs("photographs", hidden=3, latent=2, components=2, batch=2, side=8),
        vae.binary("binary", hidden=5, latent=3, side=3, batch=2),
    ]
    for step in steps:
        assert train.disagreements(step) == {}
        assert step.case().flops[0] > 0
    wrong = replace(steps[1], plain=lambda *given: 1.001 * vae.plain_bernoulli(*given))
    assert list(train.disagreements(wrong)) == ["eager"]


def test_a_training_step_is_timed_and_its_memory_counted():
    network = training.coloured("coloured", hidden=6, blocks=1, batch=1)
    (ours, theirs) = train.train(
        [network], measure.QUICK, store.context("cpu", "c"), lambda _: None
    )
    assert (ours["implementation"], theirs["implementation"]) == ("genkern", "eager")
    assert ours["op"] == "training" and ours["target"]["ratio"] == 1.7
    peak = ours["allocator_peak_bytes"] / theirs["allocator_peak_bytes"]
    assert ours["memory_target"] == {"ratio": 0.7, "attained": peak, "met": peak <= 0.7}
    assert store.place([ours, theirs]).name == "training-float32.jsonl"
