"""`readme`: the tables between the markers of README.md, made from the committed results."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.run import milliseconds
from benchmarks.core.store import Record, by_case, read

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
HEADER = (
    "| op | shape | pass | genkern | eager / genkern | compile / genkern | library / genkern "
    "| target | % of ceiling | extra memory, genkern / eager |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


class NoMarkers(Exception):
    """The README has no place for the tables."""


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


def _memory(group: dict[str, Record]) -> str:
    ours = group["genkern"]["allocator_peak_bytes"]
    theirs = group["eager"]["allocator_peak_bytes"] if "eager" in group else 0
    return f"{ours / theirs:.2f}" if theirs else "-"


def _row(key: tuple[str, ...], group: dict[str, Record]) -> str:
    ours = group["genkern"]
    cells = [
        f"`{key[0]}`",
        key[1],
        key[2].replace("_", " + "),
        milliseconds(ours["seconds"]["median"]),
        *(_ratio(group.get(name)) for name in ("eager", "compile", "library")),
        _target(ours),
        f"{ours['percent_of_ceiling']:.0f}",
        _memory(group),
    ]
    return f"| {' | '.join(cells)} |"


def table(records: Sequence[Record]) -> str:
    """One file's cases under the machine and the command that made them; losses stay in."""
    first = records[0]
    machine, versions = first["machine"], first["versions"]
    device = machine["gpu"] or f"{machine['cpu']}, {machine['isa']}"
    changed = " with local changes" if first["dirty"] else ""
    groups = by_case(records)
    rates = next(iter(groups.values()))["genkern"]["ceilings"] if groups else {}
    lines = [
        f"**{device}, {machine['threads']} threads, {first['dtype']}** · torch "
        f"{versions['torch']} · {first['date'][:10]} · commit {first['commit'][:10]}{changed}",
        "",
        "Ceilings of that run: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()) + ".",
        f"Made by `{first['command']}`.",
        "",
        HEADER,
        *(_row(key, group) for key, group in groups.items() if "genkern" in group),
    ]
    failures = [r for r in records if r["kind"] == "failure"]
    lines += [
        f"\nNo figure: `{r['op']}` {r['shape']} {r['phase']} {r['implementation']}: {r['error']}"
        for r in failures
    ]
    return "\n".join(lines)


def regenerate(readme: Path, results: Sequence[Path]) -> None:
    """Replaces what stands between the markers.

    Raises:
        NoMarkers: the README lacks them.
    """
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise NoMarkers(f"{readme.name} must hold one {BEGIN} and one {END}")
    tables = [table(records) for records in map(read, results) if by_case(records)]
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(before + BEGIN + "\n" + "\n\n".join(tables) + "\n" + END + after)
