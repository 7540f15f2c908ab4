"""Anything in any argument of any public function: it works, or the error says where."""

import decimal
import inspect

import numpy as np
import pytest
import torch

import genkern
from tests.core.contract import each_sample

X = torch.ones(2, 3)
JUNK = {
    "None": None,
    "str": "x",
    "bytes": b"x",
    "list": [1.0],
    "empty tuple": (),
    "dict": {},
    "complex": 1j,
    "nan": float("nan"),
    "minus inf": float("-inf"),
    "huge int": 10**30,
    "negative": -1,
    "bool": True,
    "decimal": decimal.Decimal(1),
    "array": np.ones(3),
    "numpy scalar": np.float32(0.5),
    "object": object(),
    "type": torch.Tensor,
    "dtype": torch.float32,
    "int tensor": torch.ones(2, 3, dtype=torch.int64),
    "bool tensor": torch.ones(3, dtype=torch.bool),
    "complex tensor": torch.ones(3, dtype=torch.complex64),
    "float64 tensor": X.double(),
    "0-dim tensor": torch.tensor(0.5),
    "5-dim tensor": torch.ones(1, 1, 1, 1, 1),
    "empty tensor": torch.empty(0),
    "meta tensor": X.to("meta"),
    "sparse tensor": X.to_sparse(),
    "nested tensor": torch.nested.nested_tensor([X[0], X[1, :2]], layout=torch.jagged),
    "list of tensors": [X, X],
    "pair of None": (None, None),
}


def public_call(sample, monkeypatch):
    """The public function that a sample calls, and its arguments by name."""
    (inputs, _), calls = sample.make(), []

    def watched(function):
        def call(*arguments, **options):
            found = inspect.signature(function).bind(*arguments, **options)
            found.apply_defaults()
            calls.append((function, dict(found.arguments)))
            return function(*arguments, **options)

        return call

    for name in genkern.__all__:
        function = getattr(genkern, name)
        if function is sample.call:
            watched(function)(*inputs)
        elif inspect.isfunction(function) and name not in ("last_backend", "use_backend"):
            monkeypatch.setattr(genkern, name, watched(function))
    if not calls:
        sample.outputs(*inputs)
    monkeypatch.undo()
    assert len(calls) == 1, "a sample calls one public function, as genkern.<name>"
    return calls[0]


def called(function, arguments):
    names = inspect.signature(function).parameters
    positional = [n for n, p in names.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = {n: a for n, a in arguments.items() if n not in positional}
    return function(*(arguments[n] for n in positional), **options)


@each_sample
@pytest.mark.parametrize("autocast", [False, True])
def test_junk_in_any_argument_works_or_is_named(stem, sample, autocast, monkeypatch):
    function, arguments = public_call(sample, monkeypatch)
    wrong = []
    for name in arguments:
        for kind, junk in JUNK.items():
            try:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    called(function, {**arguments, name: junk})
            except (TypeError, ValueError, RuntimeError) as error:
                if not str(error).startswith(f"{function.__name__}: "):
                    wrong.append(f"{name} = {kind}: {type(error).__name__}: {error}"[:200])
            except Exception as error:
                wrong.append(f"{name} = {kind}: {type(error).__name__}: {error}"[:200])
    assert wrong == []
