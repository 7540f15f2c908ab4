"""Schemas, fakes, loading of the compiled part, choice of backend."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

BACKENDS = ("reference", "cpu", "triton", "cuda")
LEVELS = ("baseline", "avx2", "avx512")

_LIBRARY = torch.library.Library("genkern", "DEF")
_are_transforms_active = torch._C._are_functorch_transforms_active
_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_is_exporting = torch.compiler.is_exporting
_last_backend: dict[str, str] = {}
_triton_state: dict[str, str | None] = {}


def _checked_backend(name: str | None, source: str) -> str | None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}; got {name!r}")
    return name


_forced = _checked_backend(os.environ.get("GENKERN_BACKEND"), "GENKERN_BACKEND")


def cpu_level() -> str:
    """The best instruction-set level of this CPU, capped by ``GENKERN_CPU_ISA``."""
    best = {"AVX2": 1, "AVX512": 2}.get(torch.backends.cpu.get_cpu_capability(), 0)
    cap = os.environ.get("GENKERN_CPU_ISA", LEVELS[best])
    if cap not in LEVELS:
        raise ValueError(f"GENKERN_CPU_ISA must be one of {', '.join(LEVELS)}; got {cap!r}")
    return LEVELS[min(best, LEVELS.index(cap))]


def _load_compiled() -> tuple[ModuleType | None, str]:
    level = cpu_level()
    reason = ""
    for name in reversed(LEVELS[: LEVELS.index(level) + 1]):
        try:
            return importlib.import_module(f"genkern._C_{name}"), ""
        except ImportError as error:
            reason = reason or str(error)
    return None, reason


compiled, compiled_error = _load_compiled()

# While one of these is true, an op may be watched: every call goes through the dispatcher.
_WATCHERS = (
    torch._C._len_torch_dispatch_stack,
    torch._C._len_torch_function_stack,
    _are_transforms_active,
    torch._C._get_tracing_state,
    torch.autograd._profiler_enabled,
)
_exchange_table = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
has_direct_calls: bool = (
    compiled is not None
    and _exchange_table is not None
    and compiled.enable_direct_calls(_exchange_table, torch.Tensor, torch.nn.Parameter, _WATCHERS)
)


def define(schema: str, fake: Callable) -> Callable:
    """Declares ``genkern::<schema>``, with the shape function ``fake`` for meta and tracing.

    Returns what calls it: on plain CPU tensors the compiled function itself, else the dispatcher.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    torch.library.register_fake(f"genkern::{name}", fake, lib=_LIBRARY)
    overload = getattr(torch.ops.genkern, name).default
    direct = getattr(compiled, name, None)
    if direct is None or not has_direct_calls:
        return overload

    def call(*arguments: Any) -> Any:
        if not _is_dynamo_compiling():  # Dynamo cannot look into a C function
            result = direct(*arguments)
            if result is not NotImplemented:
                return result
        return overload(*arguments)

    call.overload = overload  # type: ignore[attr-defined]
    return call


class Function(torch.autograd.Function):
    """An autograd function whose calls skip what torch does for transforms.

    `choose` has ruled transforms out before; what torch does for them takes a third of the call.
    """

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        if _is_dynamo_compiling():
            return super().apply(*arguments)
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]


def _transforming() -> bool:
    # Custom ops have no batching rules: vmap, jacrev and export see the plain formula instead.
    return _are_transforms_active() or _is_exporting()


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
            f"genkern: {op} runs on its PyTorch reference: {reason}", RuntimeWarning, stacklevel=4
        )
    return "reference"


def choose(op: str, tensor: torch.Tensor) -> str:
    """The backend that runs ``op`` on ``tensor``; what it returns is what runs."""
    # `is_cpu` takes a quarter of the time of `device.type`.
    device = "cpu" if tensor.is_cpu else tensor.device.type
    if _forced is not None:
        expected = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}.get(_forced, device)
        if device not in (expected, "meta"):
            raise RuntimeError(f"{op}: backend {_forced!r} needs {expected} tensors; got {device}")
        reason = unavailable(op, _forced)
        if reason is not None:
            raise RuntimeError(f"{op}: backend {_forced!r} is not available: {reason}")
        chosen = _forced
    elif _transforming():
        chosen = "reference"
    elif device == "cpu":
        chosen = "cpu" if compiled is not None else _fallback(op, "cpu", f"{compiled_error}")
    elif device == "cuda":
        reason = triton_reason(op)
        chosen = "triton" if reason is None else _fallback(op, "triton", reason)
    elif device == "meta":
        chosen = "meta"
    else:
        chosen = "reference"
    _last_backend[op] = chosen
    return chosen


def last_backend(op: str) -> str | None:
    """The backend that the last call of the op family ``op`` used, or None before the first.

    Args:
        op: a family: "masked_conv2d", "gaussian", "gan_loss" or "row_lstm".
    """
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
    before, _forced = _forced, _checked_backend(name, "use_backend: name")
    try:
        yield
    finally:
        _forced = before
