"""Choice of backend: what runs is said, what cannot run raises; settings: test_process.py."""

import threading

import pytest
import torch

import genkern
from genkern import library
from tests.core.samples import load, stems

FAMILY = stems()[0]
SAMPLE = load(FAMILY).samples[0]


def call(device="cpu"):
    inputs, _ = SAMPLE.make()
    return SAMPLE.outputs(*(t if t is None else t.to(device) for t in inputs))


def test_use_backend_lists_the_valid_names():
    with (
        pytest.raises(ValueError, match="one of reference, cpu, triton, cuda; got 'gpu'"),
        genkern.use_backend("gpu"),
    ):
        pass


def test_use_backend_is_undone_after_an_error():
    with pytest.raises(KeyError), genkern.use_backend("reference"):
        raise KeyError
    call()
    assert (genkern.last_backend(FAMILY) == "cpu") == (library.compiled is not None)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_a_backend_that_cannot_run_raises_and_says_why(backend):
    text = f"{FAMILY}: backend '{backend}' needs cuda tensors; got cpu"
    tensors = [t if t is None else t.cpu() for t in SAMPLE.make()[0]]
    with genkern.use_backend(backend), pytest.raises(RuntimeError, match=text):
        SAMPLE.outputs(*tensors)


def test_the_level_is_the_best_of_the_cpu_and_capped_by_the_environment(monkeypatch):
    monkeypatch.delenv("GENKERN_CPU_ISA", raising=False)
    if library.compiled is not None:
        assert library.compiled.isa == library.cpu_level()
    monkeypatch.setenv("GENKERN_CPU_ISA", "baseline")
    assert library.cpu_level() == "baseline"
    monkeypatch.setenv("GENKERN_CPU_ISA", "avx512")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert library.cpu_level() == "avx2"


def test_blocks_of_two_threads_may_end_in_any_order():
    inside, opened, closed = (threading.Event() for _ in range(3))

    def first():
        with genkern.use_backend("reference"):
            inside.set()
            opened.wait()
        closed.set()

    def second():
        inside.wait()
        with genkern.use_backend("reference"):
            opened.set()
            closed.wait()

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    call()
    assert (genkern.last_backend(FAMILY) == "cpu") == (library.compiled is not None)


def test_last_backend_lists_the_families():
    for wrong in ("conv", None, 3):
        with pytest.raises(ValueError, match=f"last_backend: op must be one of .*{FAMILY}.*; got"):
            genkern.last_backend(wrong)


def test_use_backend_takes_no_none():
    with (
        pytest.raises(ValueError, match="one of reference, cpu, triton, cuda; got None"),
        genkern.use_backend(None),
    ):
        pass
