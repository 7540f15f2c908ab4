"""The stages of `make gpu`, in order of worth, and how the time is divided between them."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

TOTAL_SECONDS = 300  # of the whole command, cold
STAGE_SECONDS = 285  # of its stages; the rest is for what stands around them


class Stage(NamedTuple):
    number: int
    name: str  # of the module in tests/gpu/, too
    seconds: float  # the stage is stopped after these
    item_seconds: float  # an item that takes longer hangs: it is stopped, and the next goes on
    says: str


STAGES = (
    Stage(1, "compiling", 55, 55, "every kernel, in parallel over the cores"),
    Stage(2, "correctness", 55, 20, "each op and dtype against the float64 reference"),
    Stage(3, "timing", 80, 30, "headline benchmarks of every op"),
    Stage(4, "properties", 45, 15, "noise, graphs, streams, drawn shapes, more than 2^31 elements"),
    Stage(5, "sanitizer", 30, 30, "compute-sanitizer"),
    Stage(6, "tiles", 20, 20, "the search for tiles"),
)


class BadSelection(Exception):
    """A stage or family that is not there; the text lists those that are."""


def families() -> list[str]:
    """Those with Triton launchers. Nothing is imported for that: a refusal takes no time."""
    found = (ROOT / "triton_kernels").glob("*/__init__.py")
    return sorted(p.parent.name for p in found if "\nLAUNCHERS" in p.read_text())


def chosen_stages(words: str) -> list[Stage]:
    """The stages that ``words`` names, by number or name, "" for all; they share all of the time.

    Raises:
        BadSelection: one of them is not there.
    """
    names = {str(s.number): s for s in STAGES} | {s.name: s for s in STAGES}
    asked = [w.strip() for w in words.split(",") if w.strip()]
    for word in asked:
        if word not in names:
            valid = ", ".join(f"{s.number} ({s.name})" for s in STAGES)
            raise BadSelection(f"STAGES: must be of {valid}; got {word!r}")
    numbers = {names[w].number for w in asked}
    found = [s for s in STAGES if not asked or s.number in numbers]
    more = STAGE_SECONDS / sum(s.seconds for s in found)
    return [s._replace(seconds=s.seconds * more, item_seconds=s.item_seconds * more) for s in found]


def chosen_families(words: str) -> list[str]:
    """The families that ``words`` names, "" for all.

    Raises:
        BadSelection: one of them is not there.
    """
    valid, asked = families(), [w.strip() for w in words.split(",") if w.strip()]
    for word in asked:
        if word not in valid:
            raise BadSelection(f"FAMILIES: must be of {', '.join(valid)}; got {word!r}")
    return [f for f in valid if not asked or f in asked]
