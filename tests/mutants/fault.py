"""Faults put into the sources one at a time, each with the tests that must fail because of it.

They stand in `tests/<family>/faults.py`, and in tests/core. Most, or their like, once survived the
whole suite: where only a second block, a counter beyond 2^32 or a value at a kink shows a fault.
"""

import importlib
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    path: str
    test: str  # a part of its name
    level: str = "small"  # of the ops that the tests run on; "" if they compile what they need


def all_faults() -> list[Fault]:
    folders = sorted(path.parent.name for path in Path(__file__).parents[1].glob("*/faults.py"))
    modules = [importlib.import_module(f"tests.{folder}.faults") for folder in folders]
    return [fault for module in modules for fault in module.FAULTS]
