"""Loading of the compiled part, declaration of ops, choice of backend."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import compiler
from torch.autograd import forward_ad

BACKENDS = ("reference", "cpu", "triton", "cuda")
LEVELS = ("baseline", "avx2", "avx512")
SMALL = "small"  # a build for tests, of blocks so small that few elements cross every boundary

_LIBRARY = torch.library.Library("genkern", "DEF")
_are_transforms_active = torch._C._are_functorch_transforms_active
_is_dynamo_compiling = compiler.is_dynamo_compiling
_tracing_state = torch._C._get_tracing_state
_last_backend: dict[str, str] = {}
_families: set[str] = set()
_triton_state: dict[str, str | None] = {}


class Compiled(NamedTuple):
    """What is known of the loaded ops."""

    isa: str
    compiler: str
    bf16_pairs: bool  # whether bfloat16 is multiplied as AVX512-BF16 does it


def _checked_backend(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}; got {name!r}")
    return name


_variable = os.environ.get("GENKERN_BACKEND")
_forced = None if _variable is None else _checked_backend(_variable, "GENKERN_BACKEND")
# What the variable and each open block force: blocks of several threads may end in any order.
_forcing: list[list[str | None]] = [[_forced]]


def cpu_level() -> str:
    """The best instruction-set level of this CPU, capped by ``GENKERN_CPU_ISA``."""
    best = {"AVX2": 1, "AVX512": 2}.get(torch.backends.cpu.get_cpu_capability(), 0)
    cap = os.environ.get("GENKERN_CPU_ISA", LEVELS[best])
    if cap == SMALL:
        return cap
    if cap not in LEVELS:
        raise ValueError(f"GENKERN_CPU_ISA must be one of {', '.join(LEVELS)}; got {cap!r}")
    return LEVELS[min(best, LEVELS.index(cap))]


def ops_file(level: str) -> Path:
    """The library of the ops at one level, built or not."""
    return Path(__file__).with_name(f"_ops_{level}.so")


def load_compiled() -> tuple[Compiled | None, str]:
    """Loads the best ops that are there: what they are, or why there are none."""
    best = cpu_level()
    if not any(ops_file(level).exists() for level in (best, *LEVELS)):
        return None, "none are there, as after GENKERN_BUILD=none"
    reason = ""
    for level in [SMALL] if best == SMALL else reversed(LEVELS[: LEVELS.index(best) + 1]):
        try:
            torch.ops.load_library(str(ops_file(level)))
            engine = importlib.import_module("genkern._engine")
        except (OSError, ImportError) as error:
            reason = reason or str(error)
        else:
            return Compiled(level, engine.compiler, engine.bf16_pairs(level)), ""
    return None, reason


compiled, compiled_error = load_compiled()


def define(family: str, schema: str, fake: Callable) -> torch._ops.OpOverload:
    """Declares ``genkern::<schema>``, with the shape function ``fake`` for meta and tracing."""
    name = schema.partition("(")[0]
    _families.add(family)
    _LIBRARY.define(schema)
    torch.library.register_fake(f"genkern::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.genkern, name).default


def is_exporting() -> bool:
    """Whether the call becomes part of a program that has to run without genkern."""
    return compiler.is_exporting() or _tracing_state() is not None


def is_transforming() -> bool:
    """Whether something looks into the call that a custom op has no rule for.

    That is vmap and the other transforms of torch.func, forward-mode AD, export and tracing.
    """
    # `_current_level` is 0 or more inside of `forward_ad.dual_level`.
    return _are_transforms_active() or forward_ad._current_level >= 0 or is_exporting()


def triton_reason(op: str) -> str | None:
    """Why the Triton backend of ``op`` is unavailable, or None. Registers its kernels once."""
    if op not in _triton_state:
        try:
            kernels = importlib.import_module(f"genkern.triton_kernels.{op}")
        except ModuleNotFoundError as error:
            missing = error.name or ""
            _triton_state[op] = (
                "no Triton kernel for this op yet"
                if missing.startswith("genkern.")
                else f"the package {missing!r} is not installed"
            )
        else:
            for name, launcher in kernels.LAUNCHERS.items():
                _LIBRARY.impl(name, launcher, "CUDA")
            _triton_state[op] = None
    return _triton_state[op]


def unavailable(op: str, backend: str) -> str | None:
    """Why ``backend`` cannot run ``op`` here, or None if it can."""
    if backend == "reference":
        return None
    if backend == "cpu":
        return None if compiled is not None else f"the compiled part is missing ({compiled_error})"
    if not torch.cuda.is_available():
        return "no CUDA device"
    return triton_reason(op) if backend == "triton" else "no CUDA C++ kernel for this op"


_warned: set[tuple[str, str]] = set()


def _fallback(op: str, backend: str, reason: str) -> str:
    if (op, backend) not in _warned:
        _warned.add((op, backend))
        warnings.warn(
            f"genkern: {op} runs on its PyTorch reference: {reason}", RuntimeWarning, stacklevel=5
        )
    return "reference"


def _forced_backend(op: str, name: str, device: str) -> str:
    expected = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}.get(name, device)
    if device not in (expected, "meta"):
        raise RuntimeError(f"{op}: backend {name!r} needs {expected} tensors; got {device}")
    reason = unavailable(op, name)
    if reason is None and name != "reference" and is_transforming():
        reason = "transforms, forward-mode AD, export and tracing run the reference"
    if reason is not None:
        raise RuntimeError(f"{op}: backend {name!r} is not available: {reason}")
    return name


def choose(op: str, tensor: torch.Tensor) -> str:
    """The backend that runs ``op`` on ``tensor``; what it returns is what runs."""
    if (  # the usual call, in one frame; `is_cpu` takes a quarter of the time of `device.type`
        tensor.is_cpu and _forced is None and compiled is not None and not _is_dynamo_compiling()
        and not _are_transforms_active() and forward_ad._current_level < 0
        and _tracing_state() is None and not compiler._is_exporting_flag
    ):  # fmt: skip
        _last_backend[op] = "cpu"
        return "cpu"
    device = tensor.device.type
    if _forced is not None:
        chosen = _forced_backend(op, _forced, device)
    elif is_transforming():
        chosen = "reference"
    elif device == "cpu":
        chosen = "cpu" if compiled is not None else _fallback(op, "cpu", compiled_error)
    elif device == "cuda":
        reason = triton_reason(op)
        chosen = "triton" if reason is None else _fallback(op, "triton", reason)
    elif device == "meta":
        chosen = "meta"
    else:
        chosen = "reference"
    if not _is_dynamo_compiling():  # a side effect that no graph can hold
        _last_backend[op] = chosen
    return chosen


def last_backend(op: str) -> str | None:
    """The backend that the last call of the op family ``op`` used, or None before the first.

    Calls inside of a graph of torch.compile are not recorded: the graph holds the op itself.

    Args:
        op: a family, as `python -m genkern` lists them.

    Raises:
        ValueError: ``op`` is no family; the message lists them.
    """
    if op not in _families:
        names = ", ".join(sorted(_families))
        raise ValueError(f"last_backend: op must be one of {names}; got {op!r}")
    return _last_backend.get(op)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs every op of the block on the backend ``name``, or raises where it cannot.

    Args:
        name: "reference", "cpu", "triton" or "cuda". The choice is process-wide.

    Raises:
        ValueError: ``name`` is none of these.
    """
    global _forced
    block: list[str | None] = [_checked_backend(name, "use_backend: name")]
    _forcing.append(block)
    _forced = name
    try:
        yield
    finally:
        _forcing[:] = [other for other in _forcing if other is not block]
        (_forced,) = _forcing[-1]
