"""What is built: symbols and links of the libraries, sources and packages that setup.py finds."""

import importlib.machinery
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest
from setuptools import Distribution

import genkern
from genkern import library

ROOT = Path(__file__).parents[2]
PACKAGE = Path(genkern.__file__).parent
OPS = sorted(PACKAGE.glob("_ops_*.so"))
TORCH_SYMBOL = re.compile(r"\b(c10|at|torch)::")
PYTHON_SYMBOL = re.compile(r"^_?Py[A-Z_]")
each_library = pytest.mark.parametrize("ops", OPS, ids=lambda p: p.name)


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]}, of binutils, is not there to read the compiled part")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined(nm_output: str, pattern: re.Pattern) -> list[str]:
    """Of the undefined symbols ("U name" or weak "w name"), those that ``pattern`` finds."""
    names = re.findall(r"^\s*[Uwv] (.*)$", nm_output, re.MULTILINE)
    return [name for name in names if pattern.search(name)]


def needed(path: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", tool("readelf", "-d", str(path)))


@each_library
def test_the_ops_use_only_the_stable_abi_of_torch_and_no_python(ops):
    output = tool("nm", "-D", "-u", "-C", str(ops))
    assert "aoti_torch_get_dtype" in output  # the C functions of the stable ABI are there
    assert undefined(output, TORCH_SYMBOL) == []
    assert undefined(output, PYTHON_SYMBOL) == []


@each_library
def test_the_ops_link_neither_openmp_nor_python(ops):
    names = needed(ops)
    assert any(name.startswith("libtorch_cpu") for name in names)
    assert not [name for name in names if re.search(r"gomp|iomp|libomp|python", name)]


def test_the_engine_links_no_torch():
    engines = sorted(PACKAGE.glob("_engine*"))
    assert bool(engines) == bool(OPS)
    for engine in engines:
        assert engine.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
        assert not [name for name in needed(engine) if re.search(r"torch|c10|gomp", name)]


def test_the_symbol_test_catches_the_unstable_abi_and_python():
    nm = "                 U at::_ops::mul_Tensor::call(at::Tensor const&)\n"
    assert undefined(nm, TORCH_SYMBOL)
    assert undefined("                 w c10::impl::cow()\n", TORCH_SYMBOL)
    assert not undefined("0000000000001234 T at::defined_here()\n", TORCH_SYMBOL)
    assert not undefined("                 U torch_call_dispatcher\n", TORCH_SYMBOL)
    assert not undefined("                 U aoti_torch_aten_new_empty\n", TORCH_SYMBOL)
    assert undefined("                 U PyObject_Call\n", PYTHON_SYMBOL)
    assert undefined("                 U _Py_Dealloc\n", PYTHON_SYMBOL)
    assert not undefined("                 U aoti_torch_Python\n", PYTHON_SYMBOL)


def test_every_level_of_the_build_is_there():
    if not OPS:
        pytest.skip("GENKERN_BUILD=none: there is no compiled part, by request")
    assert library.compiled is not None, library.compiled_error
    assert library.compiled.isa in [p.stem.removeprefix("_ops_") for p in OPS]


# ---- setup.py --------------------------------------------------------------------------------


def handed_to_setup(folder: Path, monkeypatch) -> dict:
    """What setup.py hands to setup(), run in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GENKERN_BUILD", raising=False)
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return setup.call_args.kwargs


def test_sources_of_a_new_room_are_found_and_equal_stems_do_not_collide(tmp_path, monkeypatch):
    for name in ("module", "sampler/cpu", "one/cpu", "two/cpu", "two/deep/cpu"):
        path = tmp_path / "csrc" / f"{name}.cpp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    arguments = handed_to_setup(tmp_path, monkeypatch)
    extensions = {e.name: sorted(e.sources) for e in arguments["ext_modules"]}
    rooms = [f"csrc/{room}/cpu.cpp" for room in ("one", "sampler", "two", "two/deep")]
    assert extensions.pop("genkern._engine") == ["csrc/module.cpp"]
    assert set(extensions) >= {"genkern._ops_baseline"} and all(
        sources == rooms for sources in extensions.values()
    )
    build = arguments["cmdclass"]["build_ext"](Distribution())
    build.build_lib, outputs = str(tmp_path), []
    for extension in arguments["ext_modules"]:
        folder = tmp_path / "objects" / extension.name.rpartition("_")[2]
        folder.mkdir(parents=True)
        lines = build.edges(extension, folder)
        outputs += [line.split()[1].rstrip(":") for line in lines if line.startswith("build ")]
    assert len(set(outputs)) == len(outputs)
    for room in ("one", "two", "two/deep"):
        assert str(tmp_path / f"objects/baseline/{room}/cpu.o") in outputs


def test_the_ops_have_one_file_name_for_every_python(tmp_path, monkeypatch):
    arguments = handed_to_setup(tmp_path, monkeypatch)
    build = arguments["cmdclass"]["build_ext"](Distribution())
    assert build.get_ext_filename("genkern._ops_avx2") == os.path.join("genkern", "_ops_avx2.so")
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    assert build.get_ext_filename("genkern._engine").endswith(suffix)


def test_every_package_is_installed(monkeypatch):
    arguments = handed_to_setup(ROOT, monkeypatch)
    folders = [p.parent for p in ROOT.glob("genkern/**/__init__.py")]
    inside = [p.parent for p in ROOT.glob("triton_kernels/**/__init__.py")]
    names = [f.relative_to(ROOT).as_posix().replace("/", ".") for f in folders]
    names += ["genkern." + f.relative_to(ROOT).as_posix().replace("/", ".") for f in inside]
    assert sorted(arguments["packages"]) == sorted(names)
    assert arguments["package_dir"] == {"genkern.triton_kernels": "triton_kernels"}
