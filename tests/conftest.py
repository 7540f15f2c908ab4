import os

os.environ.setdefault("TRITON_INTERPRET", "1")
# Threads that wait for their team by spinning take the processor from the team of the other worker.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "genkern", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("genkern")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Uninitialised memory holds NaN, so that an element which nothing wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def pytest_collection_modifyitems(items):
    """The longest tests start first, so that no worker is left alone with one of them."""
    items.sort(key=lambda item: item.path.name != "test_triton_aot.py")


def pytest_terminal_summary(terminalreporter):
    """How many Triton kernels and configurations were compiled for how many chips."""
    properties = [p for r in terminalreporter.stats.get("passed", []) for p in r.user_properties]
    found = [value for name, value in properties if name == "triton_aot"]
    if not found:
        return
    terminalreporter.section("Triton kernels compiled ahead of time (nothing ran on a GPU)")
    for op in sorted({op for op, _, _ in found}):
        rows = {capability: s for o, capability, s in found if o == op}
        chips = " ".join(f"sm_{c}" for c in sorted(rows))
        worst = {k: max(s[k] for s in rows.values()) for k in next(iter(rows.values()))}
        terminalreporter.line(
            f"{op}: {worst['kernels']} kernels, {worst['configurations']} configurations, {chips}: "
            f"at most {worst['shared']} bytes shared, {worst['registers']} registers, "
            f"{worst['spills']} bytes spilled"
        )
    ops, total = (
        {op: s["kernels"] for op, _, s in found},
        sum(s["configurations"] for *_, s in found),
    )
    chips = len({c for _, c, _ in found})
    terminalreporter.line(f"{sum(ops.values())} kernels x configurations x {chips} chips = {total}")
