"""Who may import whom, which files may name a family, and how long things may be."""

import ast
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ("genkern", "triton_kernels", "examples", "benchmarks", "tests")
SOURCES = (*PYTHON, "csrc", "setup.py")
MAX_FUNCTION, MAX_KERNEL, MAX_FILE, MAX_COLUMNS = 50, 120, 300, 100


def files(pattern: str) -> list[str]:
    found = [p for s in SOURCES if (ROOT / s).is_dir() for p in (ROOT / s).rglob(pattern)]
    found += [ROOT / s for s in SOURCES if PurePosixPath(s).match(pattern) and (ROOT / s).is_file()]
    return sorted(p.relative_to(ROOT).as_posix() for p in found)


PYTHON_FILES = files("*.py")
CPP_FILES = files("*.h") + files("*.cpp") + files("*.cu")


# ---- Python ----------------------------------------------------------------------------------


def imports(path: str, source: str) -> list[str]:
    """Modules that a file imports, wherever the statement stands; `from a import b` is a.b."""
    package = PurePosixPath(path).parent.as_posix().replace("/", ".")
    package = package.replace("triton_kernels", "genkern.triton_kernels")
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) + 1 - node.level], *filter(None, [base])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def allowed_prefixes(path: str) -> tuple[tuple[str, ...], bool]:
    """What a file may import of genkern, and whether only torch stands beside it."""
    parts, stem = PurePosixPath(path).parts, PurePosixPath(path).stem
    layer = parts[1].removesuffix(".py") if parts[0] == "genkern" else parts[0]
    public = ("nn", "sampling", "metrics", "testing", "convert", "reference")
    own = f"genkern.{layer}"
    formula = "genkern.reference.differentiable_backward"
    if parts[0] == "triton_kernels":
        return ("genkern.triton_kernels", "genkern.spec"), True
    if layer in ("spec", "library"):
        return (), True
    if layer in ("checks", "random"):
        return ("genkern.spec",), True
    if layer == "family":
        return ("genkern.library", "genkern.spec", formula), True
    if layer == "reference":
        return (own, "genkern.spec"), True
    if layer == "ops":
        shared = ("checks", "random", "library", "spec", "family")
        return (*(f"genkern.{name}" for name in shared), f"genkern.reference.{stem}"), True
    if layer == "sampling":
        shared = ("ops", "checks", "library", "random", "spec")
        return (own, *(f"genkern.{name}" for name in shared)), True
    if layer in ("nn", "metrics", "testing", "convert"):
        return (own, "genkern.ops", "genkern.checks"), True
    if layer in ("examples", "benchmarks"):
        import genkern

        names = [n for n in genkern.__all__ if n not in public]
        tuned = ["triton_kernels"] if path == "benchmarks/core/tune.py" else []
        return (*(f"genkern.{n}" for n in (*public, *names, *tuned, "__version__")),), False
    return ("genkern",), parts[0] == "genkern"  # __init__, __main__, tests, setup.py


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def import_violations(path: str, source: str) -> list[str]:
    allowed, only_torch = allowed_prefixes(path)
    outside = {"torch", "numpy", *sys.stdlib_module_names}
    if path.startswith("triton_kernels/"):
        outside.add("triton")
    found = []
    for name in imports(path, source):
        top = name.partition(".")[0]
        if top == "genkern":
            # `import genkern` alone is the public surface; only outer layers may use it.
            inner = allowed != ("genkern",) and path.startswith(("genkern/", "triton_kernels/"))
            bare = name == "genkern" and not inner
            if not bare and not any(within(name, prefix) for prefix in allowed):
                found.append(f"{path} imports {name}")
        elif top == "triton_kernels" or (only_torch and top not in outside):
            found.append(f"{path} imports {name}")
    return found


def in_each(paths: Iterable[str], violations: Callable[[str, str], list]) -> dict[str, list]:
    """What is wrong in which of the files: one test for all of them, as there are hundreds."""
    found = {path: violations(path, (ROOT / path).read_text()) for path in paths}
    return {path: wrong for path, wrong in found.items() if wrong}


def test_python_layers():
    assert in_each(PYTHON_FILES, import_violations) == {}


FORBIDDEN = [
    ("genkern/ops/gaussian.py", "from genkern.ops import gan_loss"),
    ("genkern/ops/gaussian.py", "from genkern.ops.gan_loss import gan_d_loss"),
    ("genkern/ops/gaussian.py", "from genkern.reference import gan_loss"),
    ("genkern/ops/gaussian.py", "def f():\n    import genkern.nn"),
    ("genkern/ops/gaussian.py", "from . import gan_loss"),
    ("genkern/ops/gaussian.py", "from genkern import triton_kernels"),
    ("genkern/ops/gaussian.py", "import genkern"),
    ("genkern/reference/gaussian.py", "from genkern import random"),
    ("genkern/spec.py", "from genkern import checks"),
    ("genkern/family.py", "from genkern import checks"),
    ("genkern/family.py", "from genkern.reference import gaussian"),
    ("genkern/checks.py", "from genkern import library"),
    ("genkern/library.py", "from genkern.ops import gaussian"),
    ("genkern/nn/gaussian.py", "from genkern import library"),
    ("genkern/nn/gaussian.py", "import triton"),
    ("genkern/nn/gaussian.py", "import scipy"),
    ("genkern/convert.py", "from genkern.reference import gaussian"),
    ("genkern/testing/probe.py", "from genkern.nn import MaskedConv2d"),
    ("genkern/testing/probe.py", "from genkern import spec"),
    ("genkern/__init__.py", "import triton"),
    ("triton_kernels/gaussian/plan.py", "from genkern import checks"),
    ("triton_kernels/gaussian/plan.py", "import triton_kernels.core"),
    ("examples/latent/vae.py", "from genkern.ops.gaussian import gaussian_kl"),
    ("benchmarks/gaussian.py", "from genkern import library"),
    ("benchmarks/gaussian.py", "from genkern.triton_kernels import gaussian"),
]
PERMITTED = [
    ("genkern/ops/gaussian.py", "from genkern import checks, library, random"),
    ("genkern/ops/gaussian.py", "from genkern.reference import gaussian as reference"),
    ("genkern/ops/gaussian.py", "from genkern.family import Family"),
    ("triton_kernels/gaussian/__init__.py", "from genkern import spec"),
    ("genkern/nn/row_lstm.py", "from genkern.nn.masked_conv2d import MaskedConv2d"),
    ("genkern/testing/causality.py", "from genkern.testing.probe import Grid"),
    ("triton_kernels/gaussian/kernels.py", "import triton.language as tl\nimport torch"),
    (
        "triton_kernels/gaussian/plan.py",
        "from genkern.triton_kernels.core import launch\nfrom . import a",
    ),
    ("examples/latent/vae.py", "import genkern, accelerate\nfrom genkern.nn import GANLoss"),
    ("benchmarks/gaussian.py", "from genkern.reference import gaussian as reference"),
    ("benchmarks/core/tune.py", "from genkern.triton_kernels.core.tiles import TILES"),
]


@pytest.mark.parametrize("path, source", FORBIDDEN)
def test_the_layer_test_catches_a_forbidden_import(path, source):
    assert import_violations(path, source)


@pytest.mark.parametrize("path, source", PERMITTED)
def test_the_layer_test_lets_a_permitted_import_pass(path, source):
    assert import_violations(path, source) == []


def dynamic_imports(source: str) -> list[str]:
    """Where the library, which imports by name, does so: "function: argument"."""
    found = []
    tree = ast.parse(source)
    for scope in tree.body:
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "importlib.import_module",
                "__import__",
            ):
                found.append(f"{getattr(scope, 'name', 'module')}: {ast.unparse(node.args[0])}")
    return found


def test_the_library_imports_compiled_parts_and_triton_only_lazily():
    assert dynamic_imports((ROOT / "genkern/library.py").read_text()) == [
        "load_compiled: 'genkern._engine'",
        "triton_reason: f'genkern.triton_kernels.{op}'",
    ]


def test_nothing_else_imports_by_name():
    paths = [p for p in PYTHON_FILES if p.startswith("genkern/") and p != "genkern/library.py"]
    assert in_each(paths, lambda _, source: dynamic_imports(source)) == {}


# ---- C++ -------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def include_violations(path: str, source: str) -> list[str]:
    parts, name = PurePosixPath(path).parts, PurePosixPath(path).name
    room = parts[1] if len(parts) > 2 else ""
    system, quoted = r"[\w.]+", r"\.\./core/[\w.]+|\.\./(bind|threads)\.h|[\w.]+"
    if room == "core":
        quoted = r"[\w.]+"
    elif name == "bind.h":
        system, quoted = r"(sys/)?[\w.]+|torch/.+", r"core/[\w.]+"
    elif name == "module.cpp" or room == "sampler":
        system, quoted = r"[\w.]+|pybind11/.+", r"(\.\./)?((core|sampler)/)?[\w.]+"
    elif name == f"{room}.h":
        quoted = r"\.\./core/[\w.]+|[\w.]+"
    elif name.endswith(".cu"):
        system = r"[\w.]+|cuda/.+"
    return [
        f"{path} includes {name}"
        for bracket, name in INCLUDE.findall(source)
        if not re.fullmatch(system if bracket == "<" else quoted, name)
    ]


def names_of_torch(path: str, source: str) -> list[str]:
    code = re.sub(r"//.*", "", source)
    return re.findall(r"\b(?:(?:torch|at|c10)::|(?:STD_TORCH_|aoti_torch_|torch/))", code)


def test_cpp_layers():
    paths = [p for p in CPP_FILES if p.startswith("csrc/")]
    assert in_each(paths, include_violations) == {}
    assert list(in_each(paths, names_of_torch)) == ["csrc/bind.h"]


@pytest.mark.parametrize(
    "path, line",
    [
        ("csrc/gaussian/gaussian.h", '#include "../bind.h"'),
        ("csrc/gaussian/gaussian.h", '#include "../gan_loss/gan_loss.h"'),
        ("csrc/core/simd.h", "#include <torch/csrc/stable/tensor.h>"),
        ("csrc/core/simd.h", '#include "../bind.h"'),
        ("csrc/gaussian/cpu.cpp", "#include <torch/csrc/stable/tensor.h>"),
        ("csrc/gaussian/cpu.cpp", "#include <pybind11/pybind11.h>"),
        ("csrc/gaussian/cpu.cpp", '#include "../row_lstm/row_lstm.h"'),
        ("csrc/module.cpp", "#include <torch/extension.h>"),
        ("csrc/bind.h", "#include <ATen/ATen.h>"),
        ("csrc/bind.h", '#include "gaussian/gaussian.h"'),
    ],
)
def test_the_layer_test_catches_a_forbidden_include(path, line):
    assert include_violations(path, f"#pragma once\n{line}\n")


# ---- sizes -----------------------------------------------------------------------------------


def long_functions(source: str) -> list[str]:
    """Functions of more than MAX_FUNCTION lines, docstrings not counted; kernels may be longer."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= first.end_lineno - first.lineno + 1
            is_kernel = any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
            if lines > (MAX_KERNEL if is_kernel else MAX_FUNCTION):
                found.append(f"{node.name}: {lines} lines")
    return found


def test_python_functions_are_short():
    assert in_each(PYTHON_FILES, lambda _, source: long_functions(source)) == {}


def test_python_files_are_short():
    paths = [p for p in PYTHON_FILES if not p.startswith("tests/")]
    assert in_each(paths, lambda _, source: source.splitlines()[MAX_FILE:]) == {}


def long_lines(path: str, source: str) -> list[int]:
    return [i for i, line in enumerate(source.splitlines(), 1) if len(line) > MAX_COLUMNS]


def test_lines_are_short():
    assert in_each(PYTHON_FILES + CPP_FILES, long_lines) == {}


def test_the_size_test_counts_code_and_not_docstrings():
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION))
    docstring = '    """' + "\n" * 60 + '    """'
    assert long_functions(f"def f():\n{body}\n")
    assert not long_functions(f"@triton.jit\ndef f_kernel():\n{body}\n")
    assert long_functions(f"@triton.jit\ndef f_kernel():\n{body}\n{body}\n{body}\n")
    assert not long_functions("def f():\n" + docstring + "\n" + "    x = 1\n" * (MAX_FUNCTION - 1))
