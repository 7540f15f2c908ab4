"""Cases whose work is nothing: the harness of `benchmarks` is under test, not the machine."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as cli
from benchmarks.core import case, cpu, measure, store
from benchmarks.core.case import Case
from benchmarks.core.run import run
from tests.core.samples import stems

TINY = measure.Budget(seconds=0.0, fewest=3, most=3, sample_seconds=0.0)
RATES = {"copy_gbs": 1e6, "cached_copy_gbs": 1e6, "product_gflops": 1e6}
FAMILY = stems()[0]


def softplus_means(a, b):
    return F.softplus(-a).mean() + F.softplus(b).mean()


def stand_in(n: int = 9, op: str = "stand_in") -> Case:
    """A case whose implementations are all the same: the harness is under test."""
    return Case(
        family=FAMILY,
        op=op,
        shape=f"n={n}",
        inputs=lambda: {"a": torch.randn(n), "b": torch.randn(n)},
        genkern=softplus_means,
        eager=lambda a, b: softplus_means(a, b),
        library=lambda a, b: softplus_means(a, b),
        library_call="F.softplus",
        reference=softplus_means,
        outputs=("loss",),
        flops=(10.0 * n, 20.0 * n),
        elements=(2.0 * n, 4.0 * n),
        terms={"loss": n},
    )


@pytest.fixture
def harness(monkeypatch):
    """One thread and given ceilings: the harness is under test, not the machine."""
    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(cpu, "ceilings", lambda dtype: dict(RATES))
    yield
    torch.set_num_threads(threads)


def measured(cases, against=("eager", "library"), dtype=torch.float32, busy=0):
    context = store.context("cpu", "test", busy)
    return run(cases, dtype, "cpu", TINY, against, context, log=lambda _: None)


def broken(wrong=lambda loss: loss + 0.1):
    fake = stand_in(9)
    return replace(fake, genkern=lambda a, b: wrong(fake.eager(a, b)))


@pytest.fixture
def cli_case(monkeypatch):
    def use(*cases):
        monkeypatch.setattr(case, "all_cases", lambda: [replace(c, quick=True) for c in cases])
        monkeypatch.setattr(cli, "QUICK", TINY)

    return use
