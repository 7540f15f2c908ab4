"""What the source of a class or a function says: read, not run, so that torch is not imported."""

import ast
import functools
import importlib.util
from pathlib import Path

from examples.options import Value


@functools.cache
def definition(path: str) -> ast.ClassDef | ast.FunctionDef:
    """The statement of a "module:name"."""
    module, _, name = path.partition(":")
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, path
    body = ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
    kinds = (ast.ClassDef, ast.FunctionDef)
    return next(node for node in body if isinstance(node, kinds) and node.name == name)


def summary(path: str) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(definition(path)) or "").partition("\n")[0]


def keyword_options(path: str) -> dict[str, Value]:
    """The keyword arguments of a class and their defaults."""
    body = definition(path).body
    make = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    pairs = zip(make.args.kwonlyargs, make.args.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs}
