import gc
import os
import time

os.environ.setdefault("TRITON_INTERPRET", "1")
# Threads that wait for their team by spinning take the processor from the team of the other worker.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.core import budget
from tests.core.samples import stems

# Examples are a budget of all families together: more families draw fewer each. `make test-deep`
# takes the other profile.
for profile, examples in (("quick", max(10, 160 // len(stems()))), ("deep", 2000 // len(stems()))):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Uninitialised memory holds NaN, so that an element which nothing wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


LONGEST = ("test_triton_aot.py", "test_levels.py", "test_harness.py", "test_vecmath.py")


def pytest_collection_modifyitems(items):
    """The longest tests start first, so that no worker is left alone with one of them."""
    order = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


def pytest_collection_finish(session):
    """What is there now stays: no collection of garbage, which compilers and benchmarks ask for,
    looks through it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionstart(session):
    session.config.started = time.monotonic()


def reports(terminalreporter):
    found = [r for kind in terminalreporter.stats.values() for r in kind]
    return [r for r in found if hasattr(r, "duration") and hasattr(r, "when")]


def pytest_sessionfinish(session):
    limit = os.environ.get("GENKERN_TEST_BUDGET")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if limit is None or hasattr(session.config, "workerinput") or reporter is None:
        return
    wall = time.monotonic() - session.config.started
    over = budget.exceeded(budget.seconds(reports(reporter)), wall, float(limit))
    if over and session.exitstatus == pytest.ExitCode.OK:
        session.config.over_budget = over
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    triton_summary(terminalreporter)
    terminalreporter.section("seconds of the tests by part, both workers")
    for line in budget.lines(budget.seconds(reports(terminalreporter))):
        terminalreporter.line(line)
    for line in getattr(config, "over_budget", []):
        terminalreporter.line(f"GENKERN_TEST_BUDGET exceeded: {line}", red=True)


def triton_summary(terminalreporter):
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
