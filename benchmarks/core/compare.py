"""`compare A B`: genkern's times in two result files, case by case."""

from collections.abc import Sequence

from benchmarks.core.run import milliseconds
from benchmarks.core.store import Record, by_case


def _verdict(a: Record, b: Record) -> str:
    """Different only where the p20-p80 ranges are apart."""
    if b["seconds"]["p80"] < a["seconds"]["p20"]:
        return "faster"
    if b["seconds"]["p20"] > a["seconds"]["p80"]:
        return "slower"
    return "same"


def _against_eager(group: dict[str, Record]) -> str:
    return f"{group['eager']['over_genkern']['median']:.3g}" if "eager" in group else "-"


def compare(first: Sequence[Record], second: Sequence[Record]) -> str:
    """A table of A, B and A / B; in each eager / genkern, which cancels a machine's drift, and the
    per cent of the nearer ceiling."""
    a, b = by_case(first), by_case(second)
    rows = [("case", "A", "B", "A / B", "eager / A", "eager / B", "% A", "% B", "B is")]
    for key in a.keys() & b.keys():
        one, two = a[key].get("genkern"), b[key].get("genkern")
        if one is None or two is None:
            continue
        times = one["seconds"]["median"], two["seconds"]["median"]
        rows.append(
            (
                " ".join(key[:4]),
                *(milliseconds(t) for t in times),
                f"{times[0] / times[1]:.3g}",
                _against_eager(a[key]),
                _against_eager(b[key]),
                *(f"{record['percent_of_ceiling']:.0f}" for record in (one, two)),
                _verdict(one, two),
            )
        )
    rows[1:] = sorted(rows[1:])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    for name, keys in (("A", a.keys() - b.keys()), ("B", b.keys() - a.keys())):
        lines += [f"only in {name}: {' '.join(key[:4])}" for key in sorted(keys)]
    return "\n".join(line.rstrip() for line in lines)
