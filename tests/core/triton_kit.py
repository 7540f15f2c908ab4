"""What the tests of the Triton kernels share: Triton's interpreter in place of a GPU.

The interpreter takes its time for each operation of each program, hardly any for their extent:
tests count programs. Shapes are small, and where tiles matter, so are the tiles.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, TensorHandle, interpreter_builder

from genkern.family import Family
from genkern.triton_kernels.core import launch
from tests.core.strategies import examples


def search_once() -> None:
    """Triton searches its modules for what to replace at each call of a device function, which
    takes longer than the call; here once for each file of kernels, and nothing is put back."""
    search, done = interpreter._patch_lang, set()

    def search_new(function: Callable) -> interpreter._LangPatchScope:
        file = id(function.__globals__)
        if file not in done:
            done.add(file)
            search(function)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = search_new


def spare_checks() -> None:
    """Leaves out what takes two fifths of the time and changes nothing.

    Sums and products of integers are formed again in int64, for an assertion that is off; blocks of
    one shape are broadcast to that shape; the table of dtypes is built at each look into it.
    """
    options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
    assert not options.debug  # else the assertion is on
    interpreter_builder.options = options
    broadcast = TritonSemantic.broadcast_impl_value

    def broadcast_others(self: TritonSemantic, lhs: tl.tensor, rhs: tl.tensor) -> tuple:
        if lhs.type.is_block() and rhs.type.is_block() and lhs.type.shape == rhs.type.shape:
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    TritonSemantic.broadcast_impl_value = broadcast_others
    look, known = interpreter._get_np_dtype, {}

    def look_once(dtype: tl.dtype) -> np.dtype:
        if dtype.name not in known:  # two of one name are equal
            known[dtype.name] = look(dtype)
        return known[dtype.name]

    interpreter._get_np_dtype = look_once


if hasattr(interpreter, "_patch_lang"):  # of Triton 3.6 and 3.7
    search_once()
    if os.environ.get("TRITON_INTERPRET") == "1":  # what compiles stays as it is
        spare_checks()

# Of what all families together draw, the share of an interpreted kernel.
few_examples = examples(0.25)


@contextlib.contextmanager
def launches() -> Iterator[list[str]]:
    """Names of the kernels that the interpreter launches in the block."""
    names = []
    original = GridExecutor.__call__

    def counted(self, *args, **kwargs):
        names.append(self.fn.__name__)
        return original(self, *args, **kwargs)

    with mock.patch.object(GridExecutor, "__call__", counted):
        yield names


@contextlib.contextmanager
def small_tiles(*extents: int) -> Iterator[None]:
    """Products of the block have tiles of three ``extents``, so small that only the interpreter
    takes them: a few units, rows and channels are several tiles."""
    with mock.patch.object(launch, "tile", lambda *_: (*extents, 4, 1)):
        yield


def family_of(op: str) -> Family:
    """The one object behind the front door ``genkern.ops.<op>``."""
    front_door = importlib.import_module(f"genkern.ops.{op}")
    (found,) = [v for v in vars(front_door).values() if isinstance(v, Family)]
    return found


@contextlib.contextmanager
def interpreted(op: str) -> Iterator[None]:
    """Runs the family ``op`` on CPU tensors through its Triton launchers, interpreted.

    The front door, the autograd function and the checks stay those of the CPU; only the calls of
    the compiled ops go to the launchers. So do those of ops that have no front door.
    """
    launchers = importlib.import_module(f"genkern.triton_kernels.{op}").LAUNCHERS
    if importlib.util.find_spec(f"genkern.ops.{op}") is None:
        with mock.patch.multiple(torch.ops.genkern, **launchers):
            yield
        return
    family = family_of(op)
    names = {"forward": f"{op}_forward", "backward": f"{op}_backward"}
    assert set(launchers) >= set(names.values()), f"{op}: {sorted(launchers)}"
    patches = [mock.patch.object(family, a, resolved(launchers[n])) for a, n in names.items()]
    if family.second is not None:
        twice = resolved(launchers[f"{op}_backward_backward"])
        patches.append(mock.patch.object(family.second, "forward", patches[1].new))
        patches.append(mock.patch.object(family.second, "backward", twice))
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def resolved(launcher: Callable) -> Callable:
    """The launcher behind what torch's dispatcher does for it: lazy signs are carried out."""

    def run(*arguments):
        plain = (a.resolve_conj().resolve_neg() if isinstance(a, torch.Tensor) else a
                 for a in arguments)  # fmt: skip
        return launcher(*plain)

    return run


@contextlib.contextmanager
def only_program(i: int | Callable[[], int], programs: int) -> Iterator[None]:
    """Launches of the block run the one program ``i`` of a grid of ``programs``."""

    def number(value):
        now = value if callable(value) else lambda: value
        return lambda axis: TensorHandle(np.array([now() if axis == 0 else 0], np.int32), tl.int32)

    with (
        mock.patch.object(interpreter_builder, "create_get_program_id", number(i), create=True),
        mock.patch.object(interpreter_builder, "create_get_num_programs", number(programs)),
        # The interpreter would copy whole storages back; those of the CPU are written in place.
        mock.patch.object(GridExecutor, "_restore_args_dev", lambda *_: None),
    ):
        yield


@contextlib.contextmanager
def last_programs() -> Iterator[None]:
    """Launches of the block run their last program alone, on memory that nothing has filled."""
    counts: list[int] = []
    torch.use_deterministic_algorithms(False)
    try:
        with (
            mock.patch.object(launch, "programs", lambda op, n: counts.append(n) or (1,)),
            only_program(lambda: counts[-1] - 1, 1),
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def sparse(count: int, dtype: type) -> torch.Tensor:
    """A tensor of ``count`` zeros whose memory the system provides when it is touched."""
    return torch.from_numpy(np.zeros(count, dtype))
