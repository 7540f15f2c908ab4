"""Choice of backend: what runs is said, what cannot run raises; settings: test_process.py."""

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
