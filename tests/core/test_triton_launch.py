"""Launch discipline of every Triton module: interface, devices, variants, counters."""

import importlib
import inspect
from types import SimpleNamespace

import pytest
import torch

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
