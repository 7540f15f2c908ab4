"""Launch discipline of every Triton module: interface, devices, variants, counters."""

import importlib
import inspect
import json
from types import SimpleNamespace

import pytest
import torch

from tests.core.helpers import probe

pytest.importorskip("triton")
from genkern.triton_kernels.core import launch
from tests.core.test_triton_aot import modules


@pytest.mark.parametrize("op", modules())
def test_modules_have_the_same_interface(op):
    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    for name in ("unsupported", "configurations", "variants"):
        assert callable(getattr(module, name)), name
    for name, launcher in module.LAUNCHERS.items():
        schema = getattr(torch.ops.genkern, name).default._schema
        wanted = [argument.name for argument in schema.arguments]
        assert list(inspect.signature(launcher).parameters) == wanted, name


def test_a_missing_triton_is_one_sentence_and_only_for_cuda_tensors():
    op = modules()[0]
    code = f"""
import sys, warnings
sys.path.insert(0, ".")
from tests.core.samples import load
sys.modules["triton"] = None  # as if it were not installed
warnings.simplefilter("error")
sample = load({op!r}).samples[0]
sample.outputs(*sample.make()[0])
print(genkern.library.triton_reason({op!r}))
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    on_gpu = type("OnGpu", (), {{"device": torch.device("cuda"), "is_cpu": False}})()
    for _ in range(2):
        print(genkern.library.choose({op!r}, on_gpu))
print(*(w.message for w in caught))
"""
    assert probe(code).splitlines() == [
        "the package 'triton' is not installed",
        "reference",
        "reference",
        f"genkern: {op} runs on its PyTorch reference: the package 'triton' is not installed",
    ]


VARIANTS = """
import importlib, json, sys
sys.path.insert(0, ".")
from tests.core import aot
from triton.runtime import driver
from triton.runtime.jit import JITFunction
driver.set_active(aot.NamedChip(90))
found = set()
def specialise_only(self, key, *_):
    found.add((self.__name__, str(key)))
JITFunction._do_compile = specialise_only
counts, allowed = {}, {}
for op in sys.argv[1].split():
    module = importlib.import_module(f"genkern.triton_kernels.{op}")
    found.clear()
    for n in range(1, 51):
        for name, arguments in module.variants(n):
            module.LAUNCHERS[name](*arguments)
    names = [name for name, _ in found]
    counts |= {name: names.count(name) for name in names}
    allowed |= {name: getattr(module, "VARIANTS", {}).get(name, 1) for name in names}
    assert names, op
print(json.dumps([counts, allowed]))
"""


def test_sizes_and_options_do_not_compile_new_variants():
    """Fifty calls of each op: every size, batch and annealed number differs."""
    environment = {"TRITON_INTERPRET": "0"}
    code = f"import sys\nsys.argv = ['', '{' '.join(modules())}']\n" + VARIANTS
    counts, allowed = json.loads(probe(code, environment=environment))
    assert counts == allowed


def test_more_programs_than_a_grid_has_is_an_error():
    assert launch.programs("op", 2**31 - 1) == (2**31 - 1,)
    with pytest.raises(RuntimeError, match="op: needs 2147483648 programs; a launch has at most"):
        launch.programs("op", 2**31)


def test_counters_belong_to_one_stream_and_to_one_graph(monkeypatch):
    stream, capturing = SimpleNamespace(cuda_stream=7), False
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(launch, "_counters", {})
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, device, **k: zeros(*a, **k))
    tensor = SimpleNamespace(is_cuda=True, device="cuda:0", get_device=lambda: 0)
    first = launch.counters(tensor, 3)
    assert launch.counters(tensor, 900) is first and first.dtype == torch.int32
    assert launch.counters(tensor, 5000).numel() == 5000
    stream.cuda_stream = 8
    other = launch.counters(tensor, 3)
    assert other is not first
    capturing = True
    assert launch.counters(tensor, 3) is not other
