import os

os.environ.setdefault("TRITON_INTERPRET", "1")

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
