"""Results of `benchmarks`: files, comparisons, pages, plots."""

import importlib
import json
from dataclasses import replace

import pytest
import torch

import genkern
from benchmarks import __main__ as cli
from benchmarks.core import case, profile, readme, store
from benchmarks.core.plot import plot
from benchmarks.core.scaling import scaling, slope
from tests.house.harness import FAMILY, TINY, broken, cli_case, harness, measured, stand_in

pytestmark = pytest.mark.usefixtures("harness")
__all__ = ["cli_case", "harness"]


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


def test_pages_are_idempotent_and_keep_losses(tmp_path, monkeypatch):
    case_9 = replace(stand_in(9), headline=True)
    monkeypatch.setattr(readme, "all_cases", lambda: [case_9])
    records = measured([case_9, stand_in(7, "no_headline"), broken()])
    busy = measured([case_9], busy=1)
    for record in (*records, *busy):
        if record.get("implementation") == "eager":
            loss = 0.25 if record["machine"]["busy"] else 0.5
            record["over_genkern"] = {"median": loss, "p20": loss, "p80": loss}
    results = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, found in zip(results, (records, busy), strict=True):
        store.write(path, found)
    (tmp_path / "docs").mkdir()
    pages = [tmp_path / "README.md", tmp_path / "docs" / "benchmarks.md"]
    for page in pages:
        page.write_text(f"# before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n")
    readme.write_pages(tmp_path, results)
    once = [page.read_text() for page in pages]
    readme.write_pages(tmp_path, results)
    assert [page.read_text() for page in pages] == once
    for text in once:
        assert text.startswith("# before\n") and text.endswith("after\n") and "old" not in text
        assert "**0.50**" in text and "**0.25**" in text
    assert "no_headline" not in once[0] and "no_headline" in once[1]
    assert "1 busy processes beside" in once[1]
    assert "No figure: `stand_in` n=9 forward genkern" in once[1]
    pages[0].write_text("# no markers")
    with pytest.raises(readme.NoMarkers):
        readme.write_pages(tmp_path, results)


def test_the_pages_have_markers_and_the_readme_eight_rows():
    for page in ("README.md", "docs/benchmarks.md"):
        text = (store.ROOT / page).read_text()
        assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert 1 <= sum(c.headline for c in case.all_cases()) <= 8


def test_a_whole_run_is_stored_by_device_and_level(cli_case, tmp_path, monkeypatch, capsys):
    cli_case(stand_in(9))
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    monkeypatch.setattr(cli, "FULL", TINY)
    assert cli.main(["run", "--store", "--against", "eager", "--busy", "1"]) == 0
    level = genkern.library.compiled.isa if genkern.library.compiled else "None"
    (path,) = tmp_path.rglob("*.jsonl")
    assert path.relative_to(tmp_path).parts == ("cpu", level, "float32-busy.jsonl")
    record = store.read(path)[0]
    assert record["command"].endswith("--busy 1") and record["machine"]["busy"] == 1
    with pytest.raises(SystemExit):
        cli.main(["run", FAMILY, "--store"])
    assert "--store keeps whole runs" in capsys.readouterr().err


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
    stored = store.read(store.RESULTS / "cpu/sampling.jsonl")
    made += plot(stored, tmp_path, "u")
    assert [p.name for p in made] == ["s.png", "t-speedup.png", "t-roofline.png", "u.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in made)


def test_a_part_is_the_innermost_function_that_is_no_wrapper():
    chain = [
        ("_mm256_mul_ps(__m256, __m256)", "/usr/lib/gcc/12/include/avxintrin.h:317"),
        ("genkern::core::operator*(Vec<float>, Vec<float>)", "/x/csrc/core/simd.h:90"),
        ("auto genkern::exp<float>(float)::{lambda(auto:1)#2}::operator()(float) const",
         "/x/csrc/some_op/../core/vecmath.h:12 (discriminator 2)"),
        ("genkern::map()", "/x/csrc/threads.h:70"),
    ]  # fmt: skip
    assert profile._part(chain) == "core/vecmath.h: exp"
    assert profile._part(chain[:2]) == "ops, no symbols"


def test_a_profile_needs_perf(monkeypatch, capsys):
    monkeypatch.setattr(profile.shutil, "which", lambda name: None)
    assert cli.main(["profile", FAMILY, "--phase", "forward"]) == 2
    assert "needs Linux's perf" in capsys.readouterr().err


def test_slope_is_the_exponent():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2.0)
