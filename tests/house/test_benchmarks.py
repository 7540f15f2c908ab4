"""The harness of `benchmarks` on tiny cases: gates, guards, schema, texts."""

import importlib
import json
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as cli
from benchmarks.core import case, cpu, measure, readme, store
from benchmarks.core.case import Case
from benchmarks.core.gate import RedGate, Trial
from benchmarks.core.plot import plot
from benchmarks.core.run import run
from benchmarks.core.scaling import scaling, slope
from tests.core.samples import stems

TINY = measure.Budget(seconds=0.0, fewest=3, most=3, sample_seconds=0.0)
RATES = {"copy_gbs": 1e6, "cached_copy_gbs": 1e6, "product_gflops": 1e6}
FAMILY = stems()[0]
FIRST = case.all_cases()[0]


def tiny_cases() -> list[Case]:
    """Of each family the smallest one, on a few elements."""
    found = [c for c in case.all_cases() if c.overhead]
    return [next(c for c in found if c.family == family) for family in case.families()]


def softplus_means(a, b):
    return F.softplus(-a).mean() + F.softplus(b).mean()


def stand_in(n: int = 9, op: str = "stand_in") -> Case:
    """A case whose implementations are all the same: the harness is under test."""
    return Case(
        family=FAMILY,
        op=op,
        shape=f"n={n}",
        inputs=lambda: {"a": torch.randn(n), "b": torch.randn(n)},
        genkern=softplus_means,
        eager=lambda a, b: softplus_means(a, b),
        library=lambda a, b: softplus_means(a, b),
        library_call="F.softplus",
        reference=softplus_means,
        outputs=("loss",),
        flops=(10.0 * n, 20.0 * n),
        elements=(2.0 * n, 4.0 * n),
        terms={"loss": n},
    )


@pytest.fixture(autouse=True)
def harness(monkeypatch):
    """One thread and given ceilings: the harness is under test, not the machine."""
    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(cpu, "ceilings", lambda dtype: dict(RATES))
    yield
    torch.set_num_threads(threads)


def measured(cases, against=("eager", "library"), dtype=torch.float32):
    return run(cases, dtype, "cpu", TINY, against, store.context("cpu", "test"), log=lambda _: None)


def broken(wrong=lambda loss: loss + 0.1):
    fake = stand_in(9)
    return replace(fake, genkern=lambda a, b: wrong(fake.eager(a, b)))


@pytest.fixture
def cli_case(monkeypatch):
    def use(*cases):
        monkeypatch.setattr(case, "all_cases", lambda: [replace(c, quick=True) for c in cases])
        monkeypatch.setattr(cli, "QUICK", TINY)

    return use


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
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
    records = measured([replace(stand_in(9), phases=("forward",))], against=("compile",))
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


def test_compare_says_what_changed_and_what_is_missing(tmp_path, capsys):
    first = measured([stand_in(9), stand_in(7, "other")])
    second = json.loads(json.dumps([r for r in first if r["op"] == "stand_in"]))
    for record in second:
        if record["implementation"] == "genkern" and record["phase"] == "forward":
            record["seconds"] = {key: 4 * value for key, value in record["seconds"].items()}
    for name, records in (("a", first), ("b", second)):
        store.write(tmp_path / f"{name}.jsonl", records)
    assert cli.main(["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    lines = capsys.readouterr().out.splitlines()
    forward = next(line for line in lines if line.startswith("stand_in n=9 forward float32"))
    both = next(line for line in lines if "n=9 forward_backward" in line)
    assert "  0.25  " in forward and both.endswith("same")
    assert "only in A: other n=7 forward float32" in lines


def test_a_file_that_is_no_result_is_refused(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"kind": "timing", "schema": 1}\n')
    assert cli.main(["plot", str(tmp_path / "a.jsonl")]) == 2
    assert "a.jsonl, line 1" in capsys.readouterr().err
    assert cli.main(["plot", str(tmp_path / "none.jsonl")]) == 2


def test_readme_tables_are_idempotent_and_keep_losses(tmp_path):
    records = measured([stand_in(9), broken()])
    for record in records:
        if record.get("implementation") == "eager":
            record["over_genkern"] = {"median": 0.5, "p20": 0.4, "p80": 0.6}
    results = [tmp_path / "a.jsonl"]
    store.write(results[0], records)
    target = tmp_path / "README.md"
    target.write_text(f"# before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n")
    readme.regenerate(target, results)
    once = target.read_text()
    readme.regenerate(target, results)
    assert target.read_text() == once
    assert once.startswith("# before\n") and once.endswith("after\n") and "old" not in once
    assert "**0.50**" in once and "No figure: `stand_in` n=9 forward genkern" in once
    target.write_text("# no markers")
    with pytest.raises(readme.NoMarkers):
        readme.regenerate(target, results)


def test_the_readme_has_the_markers():
    text = (store.ROOT / "README.md").read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1


def test_plots_and_scaling(tmp_path, monkeypatch):
    module = importlib.import_module(f"benchmarks.{FAMILY}")
    axes = {"batch": [(n, stand_in(n)) for n in (8, 16)], "threads": [(0, stand_in(8))]}
    torch.set_num_threads(2)
    monkeypatch.setattr(module, "scaling", lambda: axes)
    arguments = ([FAMILY], torch.float32, "cpu", TINY, store.context("cpu", "test"))
    records = scaling(*arguments, log=lambda _: None)
    batch = next(r for r in records if r["axis"] == "batch" and r["implementation"] == "genkern")
    threads = next(r for r in records if r["axis"] == "threads")
    assert [p["value"] for p in threads["points"]] == [1, 2] and torch.get_num_threads() == 2
    assert batch["work_slope"] == pytest.approx(1.0) and len(batch["points"]) == 2
    store.write(tmp_path / "s.jsonl", records)
    made = plot(store.read(tmp_path / "s.jsonl"), tmp_path, "s")
    made += plot(measured([stand_in(9)]), tmp_path, "t")
    assert [p.name for p in made] == ["s.png", "t-speedup.png", "t-roofline.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in made)


def test_slope_is_the_exponent():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2.0)


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
