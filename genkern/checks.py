"""Argument checks: one style of message, `op: argument must ...; got ...`."""

import difflib
from collections.abc import Sequence

import torch

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_tensor(op: str, name: str, tensor: torch.Tensor) -> None:
    """A floating-point tensor of a supported dtype."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor; got {type(tensor).__name__}")
    if tensor.dtype not in FLOATING:
        dtypes = ", ".join(dtype_name(d) for d in FLOATING)
        raise TypeError(f"{op}: {name} must be one of {dtypes}; got {dtype_name(tensor.dtype)}")


def check_like(
    op: str, name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor
) -> None:
    """A floating-point tensor with the device and the dtype of another argument."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor; got {type(tensor).__name__}")
    if tensor.device != other.device:
        raise RuntimeError(
            f"{op}: {name} must be on {other.device} like {other_name}; got {tensor.device}"
        )
    if tensor.dtype != other.dtype:
        check_tensor(op, name, tensor)
        raise RuntimeError(
            f"{op}: {name} must be {dtype_name(other.dtype)} like {other_name}; "
            f"got {dtype_name(tensor.dtype)}"
        )


def are_plain(*tensors: object) -> bool:
    """All are float32 tensors on the CPU: their types need no check, and a loss no autocast.

    A few attribute reads pass the usual call; the checks, one by one, cost as much as a small op.
    """
    for tensor in tensors:
        if type(tensor) is not torch.Tensor or tensor.dtype is not torch.float32:
            return False
        if not tensor.is_cpu:
            return False
    return True


def check_shape(
    op: str,
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int],
    text: str,
    error: type[Exception] = RuntimeError,
) -> None:
    """``tensor.shape == shape``; ``text`` says what the shape is, in words of the arguments."""
    if tuple(tensor.shape) != tuple(shape):
        raise error(
            f"{op}: {name} must have shape {text} = {tuple(shape)}; got {tuple(tensor.shape)}"
        )


def check_option(op: str, name: str, value: object, options: Sequence[str]) -> None:
    """One of a list of names; a misspelt one gets the list and the nearest name."""
    if value not in options:
        near = difflib.get_close_matches(str(value), options, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"{op}: {name} must be one of {', '.join(map(repr, options))}; got {value!r}{hint}"
        )


def check_number(
    op: str,
    name: str,
    value: object,
    *,
    minimum: float,
    maximum: float = float("inf"),
    integer: bool = False,
) -> None:
    """A real number in [minimum, maximum]."""
    kinds = (int,) if integer else (int, float)
    kind = "an integer" if integer else "a number"
    if isinstance(value, bool) or not isinstance(value, (*kinds, torch.SymInt)):
        raise TypeError(f"{op}: {name} must be {kind}; got {type(value).__name__}")
    if not minimum <= value <= maximum:  # type: ignore[operator]
        bound = f"at least {minimum}" if maximum == float("inf") else f"in [{minimum}, {maximum}]"
        raise ValueError(f"{op}: {name} must be {bound}; got {value!r}")


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """The autocast dtype of the tensor's device, or None outside autocast."""
    device = "cpu" if tensor.is_cpu else tensor.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


REDUCTIONS = ("none", "mean", "sum")


def reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    if torch.is_grad_enabled():
        for tensor in tensors:  # `any` of a generator takes four times as long
            if tensor is not None and tensor.requires_grad:
                return True
    return False
