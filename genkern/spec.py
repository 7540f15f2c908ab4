"""Facts that every backend shares: dtypes, memory formats, shapes of results."""

from collections.abc import Sequence

import torch

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALF = (torch.bfloat16, torch.float16)
CACHE_LINE = 64  # bytes
MOST_DRAWN_LEVELS = 4096  # of a softmax that the sampler's kernels for GPUs draw from


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """What sums of ``dtype`` are formed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def padded(count: int, dtype: torch.dtype) -> int:
    """``count`` elements of ``dtype``, filled up to whole cache lines."""
    line = CACHE_LINE // dtype.itemsize
    return (count + line - 1) // line * line


def is_channels_last(image: torch.Tensor) -> bool:
    """The channels run fastest, and not merely because the other dimensions have one element."""
    return not image.is_contiguous() and image.stride(1) == 1 and image.shape[1] > 1


def in_format_of(like: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """A result of the shape of ``like``, or several of them, in its memory format."""
    if like.ndim not in (4, 5) or not is_channels_last(like):
        return found
    memory_format = torch.channels_last if like.ndim == 4 else torch.channels_last_3d
    shape = found.shape
    return (
        found.reshape(-1, *shape[-like.ndim + 1 :])
        .contiguous(memory_format=memory_format)
        .view(shape)
    )


def empty_image(like: torch.Tensor, channels: int, channels_last: bool) -> torch.Tensor:
    """(N, channels, H, W) for ``like`` (N, C, H, W)."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)


def empty_gradients(
    tensors: Sequence[torch.Tensor | None], needs: Sequence[bool]
) -> tuple[torch.Tensor, ...]:
    """A result for each tensor, contiguous; without elements where it is not needed."""
    like = next(t for t in tensors if t is not None)
    return tuple(
        like.new_empty(t.shape if need and t is not None else 0)
        for t, need in zip(tensors, needs, strict=True)
    )
