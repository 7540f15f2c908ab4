"""What the built package links to, and what importing it does."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genkern
from genkern import library
from tests.core.helpers import probe, python

PACKAGE = Path(genkern.__file__).parent
MODULES = sorted(PACKAGE.glob("_C_*.so"))
TORCH_SYMBOL = re.compile(r"\b(c10|at|torch)::")


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]}, of binutils, is not there to read the compiled part")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined_torch_symbols(nm_output: str) -> list[str]:
    """Of the undefined symbols ("U name" or weak "w name"), those of torch's C++ ABI."""
    undefined = re.findall(r"^\s*[Uwv] (.*)$", nm_output, re.MULTILINE)
    return [name for name in undefined if TORCH_SYMBOL.search(name)]


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_compiled_ops_use_only_the_stable_abi(module):
    output = tool("nm", "-D", "-u", "-C", str(module))
    assert "aoti_torch_get_dtype" in output  # the C functions of the stable ABI are there
    assert undefined_torch_symbols(output) == []


def test_the_symbol_test_catches_the_unstable_abi():
    nm = "                 U at::_ops::mul_Tensor::call(at::Tensor const&)\n"
    assert undefined_torch_symbols(nm)
    assert undefined_torch_symbols("                 w c10::impl::cow()\n")
    assert not undefined_torch_symbols("0000000000001234 T at::defined_here()\n")
    assert not undefined_torch_symbols("                 U torch_call_dispatcher\n")
    assert not undefined_torch_symbols("                 U aoti_torch_aten_new_empty\n")


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_compiled_ops_link_no_openmp(module):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", tool("readelf", "-d", str(module)))
    assert any(name.startswith("libtorch_cpu") for name in needed)
    assert not [name for name in needed if re.search(r"gomp|iomp|libomp", name)]


def test_every_level_of_the_build_is_there():
    if not MODULES:
        pytest.skip("GENKERN_BUILD=none: there is no compiled part, by request")
    assert library.compiled is not None, library.compiled_error
    assert library.compiled.isa in [m.name.partition(".")[0].removeprefix("_C_") for m in MODULES]


def test_import_touches_neither_triton_nor_cuda():
    code = """
import sys, torch
before = set(sys.modules)
import genkern
new = set(sys.modules) - before
print([m for m in new if m.partition(".")[0] == "triton" or "triton_kernels" in m])
print(torch.cuda.is_initialized())
"""
    assert python(code) == "[]\nFalse\n"


def test_import_draws_no_random_number_and_keeps_the_settings_of_torch():
    code = """
import torch
state = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
import genkern
now = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
print(torch.equal(state[0], now[0]), state[1:] == now[1:])
"""
    assert python(code) == "True True\n"


THREADS = """
import os
count = lambda: len(os.listdir("/proc/self/task"))
x = torch.randn(1 << 20)
before = count()
genkern.gan_g_loss(x)
print(count() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_the_number_of_threads_of_torch_is_respected():
    # randn itself runs on one thread, so the op is the first that could start others.
    assert probe(THREADS, threads=1) == "0\n"
    assert probe(THREADS, threads=3) == "2\n"


def test_without_the_compiled_part_the_reference_runs_with_one_warning_per_family():
    code = """
import sys, warnings
for level in ("baseline", "avx2", "avx512"):
    sys.modules[f"genkern._C_{level}"] = None
warnings.simplefilter("error")
import genkern, torch
x = torch.ones(3, requires_grad=True)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    losses = [genkern.gan_d_loss(x, x) for _ in range(3)]
print(len(caught), str(caught[0].message).partition(":")[0], genkern.last_backend("gan_loss"))
losses[0].backward()
print(round(losses[0].item(), 4), x.grad is not None)
"""
    assert python(code) == "1 genkern reference\n1.6265 True\n"
