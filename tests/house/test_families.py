"""A family has its rooms, and no shared file names one (DESIGN: layout)."""

import ast
import re
import subprocess
from pathlib import PurePosixPath

import pytest

from tests.house.test_layers import ROOT

# What every family has. Beside its own files, these name one: the public names, what is measured
# of them, and examples of use.
ROOM = ("samples", "values")
SHARED = {"__init__", "core", "__pycache__"}
NAMES_FAMILIES = (
    "genkern/__init__.py", "genkern/nn/__init__.py", "genkern/sampling/", "tests/sampling/",
    "benchmarks/sampling.py", "benchmarks/iwae.py", "benchmarks/vae.py",
    "benchmarks/results/",
    "examples/", "tests/examples/", "tests/house/test_families.py", "tests/house/test_layers.py",
)  # fmt: skip
# To be emptied: these still take a family as their example.
STILL = (
    "tests/gpu/test_command.py",
)  # fmt: skip
CODE = (".py", ".h", ".cpp", ".cu", ".toml", ".in", "")


def families() -> list[str]:
    return sorted(p.stem for p in (ROOT / "genkern/ops").glob("*.py") if p.stem not in SHARED)


def shared_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    own = re.compile(rf"(^|/)({'|'.join(families())})(/|\.)")
    return [
        path
        for path in listed.splitlines()
        if not own.search(path)
        and not path.startswith((*NAMES_FAMILIES, *STILL))
        and PurePosixPath(path).suffix in CODE
        and (ROOT / path).is_file()
    ]


def without_docstrings(source: str) -> str:
    """Python code without comments and docstrings, which may give an example."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = ""
    return ast.unparse(tree)


def named_families(path: str, text: str) -> list[str]:
    if path.endswith(".py"):
        text = without_docstrings(text)
    return [stem for stem in families() if re.search(rf"(?<![a-z_]){stem}(?![a-z])", text)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the list of files that git has")
def test_no_shared_file_names_a_family():
    found = {path: named_families(path, (ROOT / path).read_text()) for path in shared_files()}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_sees_a_name_and_not_a_longer_word():
    stem = families()[0]
    for code in (f"import {stem}", f"x = '{stem}_forward('", f"def {stem}(): pass"):
        assert named_families("a.py", code) == named_families("a.cpp", code) == [stem]
    for code in (f"x{stem} = 1", f"{stem}s = 1", f'"""As {stem}."""', f"x = 1  # as {stem}"):
        assert named_families("a.py", code) == []


@pytest.mark.parametrize("stem", families())
def test_a_family_has_its_rooms(stem):
    for part in ROOM:
        assert (ROOT / f"tests/{stem}/{part}.py").is_file()
    assert (ROOT / f"genkern/reference/{stem}.py").is_file()
    assert (ROOT / f"csrc/{stem}/{stem}.h").is_file()
    assert (ROOT / f"benchmarks/{stem}.py").is_file()


@pytest.mark.parametrize("tree", ["csrc", "triton_kernels", "tests", "benchmarks"])
def test_rooms_have_the_names_of_families(tree):
    others = {
        "csrc": {"sampler"},
        "tests": {"examples", "gpu", "house", "metrics", "mutants", "sampling"},
        "benchmarks": {"results"},
    }
    rooms = {p.name for p in (ROOT / tree).iterdir() if p.is_dir()}
    assert rooms - SHARED - others.get(tree, set()) <= set(families())
