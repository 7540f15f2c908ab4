"""`readme`: the tables between the markers of README.md (the headline cases) and of
docs/benchmarks.md (all), made from the stored results."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.case import all_cases
from benchmarks.core.run import milliseconds
from benchmarks.core.store import Record, by_case, machine_name, read

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
BASELINES = ("eager", "compile", "library")
HEADLINE = (
    "| op | shape | genkern | eager / genkern | compile / genkern "
    "| eager / genkern on a busy machine | % of ceiling | extra memory, genkern / eager |\n"
    "|---|---|---|---|---|---|---|---|"
)
HEADER = (
    "| op | shape | pass | genkern | eager / genkern | compile / genkern | library / genkern "
    "| target | % of ceiling | extra memory, genkern / eager |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
Group = dict[str, Record]


class NoMarkers(Exception):
    """A page has no place for its tables."""


def _ratio(record: Record | None) -> str:
    """Theirs over ours; a loss in bold."""
    if record is None:
        return "-"
    ratio = record["over_genkern"]
    return f"**{ratio['median']:.2f}**" if ratio["p80"] < 1 else f"{ratio['median']:.2f}"


def _target(record: Record) -> str:
    target = record["target"]
    if target is None:
        return "-"
    note = "" if target["baseline"] == "eager" else f" {target['baseline']}"
    verdict = "met" if target["met"] else f"**missed** ({target['attained']['median']:.2f})"
    return f"{target['ratio']:g}{note}: {verdict}"


def _memory(group: Group) -> str:
    ours = group["genkern"]["allocator_peak_bytes"]
    theirs = group["eager"]["allocator_peak_bytes"] if "eager" in group else 0
    return f"{ours / theirs:.2f}" if theirs else "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(key: tuple[str, ...], group: Group) -> str:
    ours = group["genkern"]
    return _line(
        [
            f"`{key[0]}`",
            key[1],
            key[2].replace("_", " + "),
            milliseconds(ours["seconds"]["median"]),
            *(_ratio(group.get(name)) for name in BASELINES),
            _target(ours),
            f"{ours['percent_of_ceiling']:.0f}",
            _memory(group),
        ]
    )


def origin(records: Sequence[Record]) -> str:
    """The machine, the versions and the command behind a file."""
    first, rates = records[0], records[0]["ceilings"]
    changed = " with local changes" if first["dirty"] else ""
    return (
        f"**{machine_name(first)}, {first['dtype']}** · torch {first['versions']['torch']} · "
        f"{first['date'][:10]} · commit {first['commit'][:10]}{changed}\n\n"
        "Ceilings of that run: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()) + ". "
        f"Made by `{first['command']}`."
    )


def table(records: Sequence[Record]) -> str:
    """One file's cases under the machine and the command that made them; losses stay in."""
    timings = [record for record in records if record["kind"] == "timing"]
    rows = [_row(key, group) for key, group in by_case(records).items() if "genkern" in group]
    failures = [
        f"\nNo figure: `{r['op']}` {r['shape']} {r['phase']} {r['implementation']}: {r['error']}"
        for r in records
        if r["kind"] == "failure"
    ]
    return "\n".join([origin(timings), "", HEADER, *rows, *failures])


def headline(files: Sequence[Sequence[Record]]) -> str:
    """Forward + backward of the headline cases in the newest run, and beside busy processes."""
    wanted = {(case.op, case.shape) for case in all_cases() if case.headline}
    files = [f for f in files if any((r["op"], r["shape"]) in wanted for r in f)]
    quiet = max((f for f in files if not f[0]["machine"]["busy"]), key=lambda f: f[0]["date"])
    where = [quiet[0]["machine"][key] for key in ("cpu", "gpu", "isa", "threads")]
    busy = [
        record
        for file in files
        for record in file
        if record["machine"]["busy"]
        and [record["machine"][key] for key in ("cpu", "gpu", "isa", "threads")] == where
    ]
    groups, beside = by_case(quiet), by_case(busy)
    rows = [
        _line(
            [
                f"`{key[0]}`",
                key[1],
                milliseconds(group["genkern"]["seconds"]["median"]),
                *(_ratio(group.get(name)) for name in ("eager", "compile")),
                _ratio(beside.get(key, {}).get("eager")),
                f"{group['genkern']['percent_of_ceiling']:.0f}",
                _memory(group),
            ]
        )
        for key, group in groups.items()
        if key[:2] in wanted and key[2] == "forward_backward" and "genkern" in group
    ]
    timings = [record for record in quiet if record["kind"] == "timing"]
    return "\n".join([origin(timings), "", HEADLINE, *rows])


def regenerate(page: Path, tables: Sequence[str]) -> None:
    """Replaces what stands between the markers.

    Raises:
        NoMarkers: the page lacks them.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise NoMarkers(f"{page.name} must hold one {BEGIN} and one {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(before + BEGIN + "\n" + "\n\n".join(tables) + "\n" + END + after)


def write_pages(root: Path, results: Sequence[Path]) -> None:
    """README.md and docs/benchmarks.md of a tree, from files of results."""
    files = [records for records in map(read, results) if by_case(records)]
    if not files:
        raise NoMarkers("no stored results: python -m benchmarks run --store")
    regenerate(root / "README.md", [headline(files)])
    regenerate(root / "docs" / "benchmarks.md", [table(records) for records in files])
