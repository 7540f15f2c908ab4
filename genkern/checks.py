"""Argument checks: one style of message, `op: argument must ...; got ...`.

The wrong type or dtype is a TypeError, a wrong value, option or shape a ValueError, and tensors
that do not fit each other (device, dtype) are a RuntimeError.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from genkern.spec import FLOATING, HALF, accumulation, dtype_name

# What a public function does inside of autocast: a loss takes half precision to float32, a
# product takes all but float64 to the autocast dtype.
LOSS, PRODUCT = "loss", "product"
REDUCTIONS = ("none", "mean", "sum")

_TENSOR, _PARAMETER = torch.Tensor, torch.nn.Parameter
_FLOAT32, _STRIDED = torch.float32, torch.strided
_is_any_autocast_enabled = torch._C._is_any_autocast_enabled
_LARGEST = 2**63 - 1  # integer that an op takes
_LARGEST_FACTOR, _LARGEST_SIDE, _LARGEST_AREA = 2**16 - 1, 2**31 - 1, 2**40


def are_plain(*tensors: torch.Tensor) -> bool:
    """All are dense float32 tensors on the CPU outside of autocast: nothing is left to `admit`.

    A few attribute reads pass the usual call; the checks, one by one, cost as much as a small op.
    """
    for tensor in tensors:
        kind = type(tensor)
        if (
            (kind is not _TENSOR and kind is not _PARAMETER) or tensor.dtype is not _FLOAT32
            or not tensor.is_cpu or tensor.layout is not _STRIDED or tensor.is_nested
        ):  # fmt: skip
            return False
    return not _is_any_autocast_enabled()


def check_tensor(op: str, name: str, tensor: torch.Tensor) -> None:
    """A dense floating-point tensor of a supported dtype."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor; got {type(tensor).__name__}")
    if isinstance(tensor, torch.masked.MaskedTensor):
        raise TypeError(f"{op}: {name} must be a dense Tensor; got MaskedTensor")
    if tensor.layout is not _STRIDED or tensor.is_nested:
        got = "a nested tensor" if tensor.is_nested else tensor.layout
        raise TypeError(f"{op}: {name} must be a dense Tensor; got {got}")
    if tensor.dtype not in FLOATING:
        dtypes = ", ".join(dtype_name(d) for d in FLOATING)
        raise TypeError(f"{op}: {name} must be one of {dtypes}; got {dtype_name(tensor.dtype)}")


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """The autocast dtype of the tensor's device, or None outside autocast."""
    device = "cpu" if tensor.is_cpu else tensor.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _cast(tensor: torch.Tensor, policy: str, autocast: torch.dtype) -> torch.Tensor:
    if policy == LOSS:
        return tensor.float() if tensor.dtype in HALF else tensor
    return tensor if tensor.dtype == torch.float64 else tensor.to(autocast)


def admit(op: str, policy: str, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """``tensors`` in the dtype to compute in: checked, cast inside of autocast, and alike.

    Args:
        tensors: by the names of the arguments; the first one sets the device and the dtype.
    """
    for name, tensor in tensors.items():
        check_tensor(op, name, tensor)
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.device != first.device:
            raise RuntimeError(
                f"{op}: {name} must be on {first.device} like {first_name}; got {tensor.device}"
            )
    autocast = autocast_dtype(first)
    cast = list(tensors.values())
    if autocast is not None:
        cast = [_cast(tensor, policy, autocast) for tensor in cast]
    for name, tensor in zip(tensors, cast, strict=True):
        if tensor.dtype != cast[0].dtype:
            raise RuntimeError(
                f"{op}: {name} must be {dtype_name(cast[0].dtype)} like {first_name}; "
                f"got {dtype_name(tensor.dtype)}"
            )
    return cast


def check_shape(op: str, name: str, tensor: torch.Tensor, shape: Sequence[int], text: str) -> None:
    """``tensor.shape == shape``; ``text`` says what the shape is, in words of the arguments."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{op}: {name} must have shape {text} = {tuple(shape)}; got {tuple(tensor.shape)}"
        )


def check_broadcast(
    op: str, name: str, tensor: torch.Tensor, shape: Sequence[int], text: str
) -> None:
    """``tensor`` has the shape, or broadcasts to it."""
    missing = len(shape) - tensor.ndim
    pairs = zip(tensor.shape, shape[max(0, missing) :], strict=False)
    if missing < 0 or any(n not in (1, m) for n, m in pairs):
        raise ValueError(
            f"{op}: {name} must have shape {text} = {tuple(shape)} or broadcast to it; "
            f"got {tuple(tensor.shape)}"
        )


def check_option(op: str, name: str, value: object, options: Sequence[str]) -> int:
    """The place of ``value`` in a list of names; a misspelt one gets the list and the nearest."""
    if isinstance(value, str) and value in options:
        return options.index(value)
    compiling = torch.compiler.is_dynamo_compiling()  # Dynamo does not follow difflib
    near = [] if compiling else difflib.get_close_matches(str(value), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    names = ", ".join(map(repr, options))
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{op}: {name} must be one of {names}; got {_got(value)}{hint}")


def check_number(
    op: str,
    name: str,
    value: Any,
    *,
    minimum: float,
    maximum: float = math.inf,
    integer: bool = False,
) -> Any:
    """A real number in [minimum, maximum], as a number of Python; numpy's are taken too."""
    if isinstance(value, np.integer):
        value = int(value)
    elif isinstance(value, np.floating) and not integer:
        value = float(value)
    kinds = (int, torch.SymInt) if integer else (int, float, torch.SymInt, torch.SymFloat)
    kind = "an integer" if integer else "a number"
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{op}: {name} must be {kind}; got {_got(value)}")
    if integer and maximum == math.inf and value > _LARGEST:  # type: ignore[operator]
        maximum = _LARGEST
    if not minimum <= value <= maximum:  # type: ignore[operator]
        bound = f"at least {minimum}" if maximum == math.inf else f"in [{minimum}, {maximum}]"
        raise ValueError(f"{op}: {name} must be {bound}; got {value!r}")
    return value


def check_bool(op: str, name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be a bool; got {_got(value)}")


def check_filter(op: str, name: str, filter: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """A constant filter (taps,) or (height, width) for ``input``, in the dtype to compute in."""
    if are_plain(input, filter):
        if filter.ndim == 1 and len(filter) and not filter.requires_grad:
            return filter
    else:
        check_tensor(op, name, filter)
    if filter.ndim not in (1, 2) or filter.numel() == 0:
        text = f"{op}: {name} must have shape (taps,) or (height, width), and elements"
        raise ValueError(f"{text}; got {tuple(filter.shape)}")
    if filter.requires_grad:
        raise ValueError(f"{op}: {name} must be a constant; got one that requires grad")
    if filter.device != input.device:
        raise RuntimeError(
            f"{op}: {name} must be on {input.device} like input; got {filter.device}"
        )
    return filter.to(accumulation(input.dtype))


def check_factor(op: str, name: str, value: Any) -> int:
    """Of upsampling or downsampling; more is a mistake that would cost the machine's memory."""
    if type(value) is int and 1 <= value <= _LARGEST_FACTOR:
        return value
    return check_number(op, name, value, minimum=1, maximum=_LARGEST_FACTOR, integer=True)


def four_sides(op: str, padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """left, right, top, bottom of one number, of a pair (x, y), or of these four."""
    if type(padding) is int and -_LARGEST_SIDE <= padding <= _LARGEST_SIDE:
        return padding, padding, padding, padding
    sides = padding if isinstance(padding, (list, tuple)) else (padding,)
    if len(sides) not in (1, 2, 4):
        raise ValueError(
            f"{op}: padding must be an integer, a pair (x, y) or (left, right, top, bottom); "
            f"got {len(sides)} numbers"
        )
    for side in sides:
        if type(side) is not int or not -_LARGEST_SIDE <= side <= _LARGEST_SIDE:
            limits = {"minimum": -_LARGEST_SIDE, "maximum": _LARGEST_SIDE}
            sides = [check_number(op, "padding", s, **limits, integer=True) for s in sides]
            break
    if len(sides) == 4:
        return tuple(sides)  # type: ignore[return-value]
    x, y = sides[0], sides[-1]
    return x, x, y, y


def check_area(op: str, rows: int, columns: int) -> None:
    """A result whose size padding and factors make: not one beyond all memory."""
    if rows * columns > _LARGEST_AREA:
        raise ValueError(
            f"{op}: up and padding must make a result of at most 2^40 pixels; got "
            f"{rows} x {columns}"
        )


def check_target(
    op: str,
    target: torch.Tensor,
    dtypes: Sequence[torch.dtype],
    name: str,
    like: torch.Tensor,
    argument: str = "target",
) -> None:
    """A dense tensor of integers, on the device of the argument ``name``."""
    if not isinstance(target, torch.Tensor):
        raise TypeError(f"{op}: {argument} must be a Tensor; got {type(target).__name__}")
    if target.layout is not torch.strided or target.is_nested:
        got = "a nested tensor" if target.is_nested else target.layout
        raise TypeError(f"{op}: {argument} must be a dense Tensor; got {got}")
    if target.dtype not in dtypes:
        valid = ", ".join(map(dtype_name, dtypes))
        raise TypeError(f"{op}: {argument} must be one of {valid}; got {dtype_name(target.dtype)}")
    if target.device != like.device:
        raise RuntimeError(
            f"{op}: {argument} must be on {like.device} like {name}; got {target.device}"
        )


def check_levels(op: str, target: torch.Tensor, levels: int, argument: str = "target") -> None:
    """Integers in 0 .. levels - 1, on the CPU; elsewhere they are not read on the host."""
    if target.is_cpu and target.numel():
        for value in (int(v) for v in target.aminmax()):
            if not 0 <= value < levels:
                raise ValueError(f"{op}: {argument} must be in [0, {levels - 1}]; got {value}")


def _got(value: object) -> str:
    """A value of another type in the words of an error: short, whatever it holds."""
    return repr(value) if isinstance(value, (str, bytes, int, float)) else type(value).__name__


def annealed(
    op: str,
    name: str,
    value: object,
    like: torch.Tensor,
    *,
    minimum: float,
    maximum: float = math.inf,
) -> tuple[float, torch.Tensor | None]:
    """An option that may change at every step, as an op takes it: a number, or a float64 tensor.

    Args:
        value: a number in [minimum, maximum], or a tensor of one, on the device of ``like``, whose
            value is not read on the host and not checked. Numbers in a compiled graph become
            tensors, so that another value is no other graph.
    """
    if isinstance(value, torch.Tensor):
        check_tensor(op, name, value)
        if value.ndim or value.requires_grad:
            got = "one that requires grad" if value.requires_grad else f"shape {tuple(value.shape)}"
            raise ValueError(f"{op}: {name} must be a number or a 0-dim constant Tensor; got {got}")
        if value.device != like.device:
            raise RuntimeError(f"{op}: {name} must be on {like.device}; got {value.device}")
        return 0.0, value.double()
    value = check_number(op, name, value, minimum=minimum, maximum=maximum)
    if torch.compiler.is_dynamo_compiling():
        return 0.0, torch.full((), value, dtype=torch.float64, device=like.device)  # type: ignore
    return float(value), None  # type: ignore[arg-type]


def reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values
