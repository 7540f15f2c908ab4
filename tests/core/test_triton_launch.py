"""Launch discipline of every Triton module: interface, devices, variants, counters."""

import importlib
import inspect
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
    assert callable(module.unsupported) and callable(module.configurations)
    for name, launcher in module.LAUNCHERS.items():
        schema = getattr(torch.ops.genkern, name).default._schema
        wanted = [argument.name for argument in schema.arguments]
        assert list(inspect.signature(launcher).parameters) == wanted, name


def test_importing_genkern_imports_no_triton():
    assert probe("import sys; print('triton' in sys.modules)") == "False\n"


def test_a_missing_triton_is_one_sentence_and_only_for_cuda_tensors():
    code = """
import sys, warnings
sys.modules["triton"] = None  # as if it were not installed
warnings.simplefilter("error")
x = torch.ones(2, 3)
genkern.gaussian_kl(x, x)
print(genkern.library.triton_reason("gaussian"))
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    on_gpu = type("OnGpu", (), {"device": torch.device("cuda"), "is_cpu": False})()
    for _ in range(2):
        print(genkern.library.choose("gaussian", on_gpu))
print(*(w.message for w in caught))
"""
    assert probe(code).splitlines() == [
        "the package 'triton' is not installed",
        "reference",
        "reference",
        "genkern: gaussian runs on its PyTorch reference: the package 'triton' is not installed",
    ]


VARIANTS = """
import sys
sys.path.insert(0, ".")
from tests.core import aot
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from genkern.triton_kernels import gan_loss, gaussian, masked_conv2d, row_lstm
driver.set_active(aot.NamedChip(90))
found = set()
def specialise_only(self, key, *_):
    found.add((self.__name__, str(key)))
JITFunction._do_compile = specialise_only
def empty(*shape, dtype=None):
    return torch.empty(shape, dtype=dtype, device="meta")
seed = empty(1, dtype=torch.int64)
for n in range(1, 51):
    mu = empty(n, 20)
    gaussian.forward(mu, mu, None, None, None, seed, None, n / 100, True)
    gaussian.backward(mu, empty(n), mu, mu, None, None, None, seed, None, 0.0, False)
    gan_loss.forward(mu, mu, 0, 0, n / 100, 1)
    gan_loss.backward(empty(), mu, mu, 0, 0, 0.0, 1, True, True)
    x, w, H = empty(n, 16, n + 2, 2 * n), empty(32, 16, 3, 3), n + 2
    masked_conv2d.forward(x, w, None, False, 1, 1, False)
    masked_conv2d.backward(empty(n, 32, H, 2 * n), x, w, False, 1, 1, False, True, True, True)
    x, w, h = empty(n, 64, n, 28), empty(64, 16, 3), empty(n, 16, n, 28)
    row_lstm.forward(x, w, None, None, True)
    saved = empty(n, n, 64, 28), empty(n, n, 16, 28)
    row_lstm.backward(h, None, None, w, None, None, *saved, True, True, False, False)
print(*sorted(name for name, _ in found))
"""


def test_sizes_and_options_do_not_compile_new_variants():
    names = probe(VARIANTS, environment={"TRITON_INTERPRET": "0"}).split()
    kernels = ["gan_loss_backward", "gan_loss_sum", "gaussian_backward", "gaussian_forward"]
    kernels += [f"masked_conv2d_{k}" for k in ("backward", "forward", "weight")]
    # The weight gradient of a small batch is not divided.
    kernels += [f"row_lstm_{k}" for k in ("backward", "forward", "weight", "weight")]
    assert names == [f"{k}_kernel" for k in kernels]


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
