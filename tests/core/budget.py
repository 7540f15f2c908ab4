"""Seconds of the tests by part. The tests take at most 8 minutes on two cores at any number of
families: what is shared has its share of that, and twenty families divide the rest.

GENKERN_TEST_BUDGET=480 makes a session fail that takes more seconds than that, or a part more than
its budget; without it slow machines do not fail.
"""

import collections
import re
from collections.abc import Iterable

from tests.core.samples import stems

WORKERS, MINUTES, FAMILIES = 2, 8, 20
SHARED = {"house": 120, "core": 90, "examples": 150, "triton": 120}
FAMILY = (60 * MINUTES * WORKERS - sum(SHARED.values())) / FAMILIES


def part(nodeid: str, families: Iterable[str]) -> str:
    """The family that a test belongs to, by its folder or its parameter, or what is shared."""
    path, _, name = nodeid.partition("::")
    folder = path.split("/")[1]
    if "triton" in path.rpartition("/")[2]:
        return "triton"
    if folder in families:
        return folder
    if folder == "core":
        found = re.search(rf"[\[-]({'|'.join(families)})[\]:-]", name)
        return found[1] if found else "core"
    return folder


def seconds(reports: Iterable) -> dict[str, float]:
    families, found = stems(), collections.defaultdict(float)
    for report in reports:
        where = part(report.nodeid, families)
        found[where] += report.duration
        if report.when == "call":  # what a process for all families took for each
            for name, value in report.user_properties:
                if name == "seconds":
                    family, spent = value
                    found[family] += spent
                    found[where] -= spent
    return found


def lines(found: dict[str, float]) -> list[str]:
    """One for each part: its seconds and its budget."""
    table = []
    for name in sorted(found, key=lambda name: (name not in SHARED, name)):
        budget = SHARED.get(name, FAMILY)
        over = ": over" if found[name] > budget else ""
        table.append(f"{name:<16}{found[name]:7.1f} s of {budget:.0f}{over}")
    return table


def exceeded(found: dict[str, float], wall: float, limit: float) -> list[str]:
    over = [line for line in lines(found) if line.endswith("over")]
    return [*over, *([f"all: {wall:.0f} s of {limit:.0f}"] if wall > limit else [])]
