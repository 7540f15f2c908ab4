"""Launchers of the Triton kernels of the discretized logistic mixture."""

import itertools
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.discretized_logistic_mixture.kernels import (
    mixture_nll_kernel,
    mixture_sample_kernel,
    mixture_scale_kernel,
)

_PIXELS, _ELEMENTS, _WARPS = 128, 1024, 4
_STEM = "discretized_logistic_mixture"


def unsupported(
    op: str,
    params: torch.Tensor,
    *,
    target: torch.Tensor | None = None,
    seed: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    **others: torch.Tensor | None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    for name, tensor in (("target", target), ("seed", seed), ("noise", noise)):
        if tensor is not None and tensor.device != params.device:
            return f"{op}: {name} must be on {params.device} like params; got {tensor.device}"
    return launch.mismatch(op, "params", params, others)


def _in_format(image: torch.Tensor, channels_last: bool) -> torch.Tensor:
    format = torch.channels_last if channels_last else torch.contiguous_format
    return image.contiguous(memory_format=format)


def _sizes(params: torch.Tensor, colours: int, channels_last: bool) -> tuple[int, ...]:
    """K, pixels, programs of an image, strides over (n, plane, pixel)."""
    C, pixels = params.shape[1], params.shape[2] * params.shape[3]
    K, blocks = C // (10 if colours == 3 else 3), triton.cdiv(pixels, _PIXELS)
    strides = (C * pixels, 1, C) if channels_last else (C * pixels, pixels, 1)
    return K, pixels, blocks, *strides


def forward(
    params: torch.Tensor,
    target: torch.Tensor | None,
    noise: torch.Tensor | None,
    seed: torch.Tensor | None,
    levels: int,
    data_channels: int,
    temperature: float,
    channels_last: bool,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    op = f"{_STEM}_forward"
    launch.require(unsupported(op, params, target=target, seed=seed, noise=noise))
    params = _in_format(params, channels_last)
    K, pixels, blocks, *strides = _sizes(params, data_channels, channels_last)
    N, nothing = params.shape[0], params.new_empty(0)
    options = {"COLOURS": data_channels, "DTYPE": accumulator(params.dtype), "B": _PIXELS}
    sizes = (K, pixels, blocks, levels, *strides)
    grid = launch.programs(op, N * blocks)
    if target is not None:
        shape = (N, params.shape[1] * pixels)
        saved = params.new_empty(shape, dtype=spec.accumulation(params.dtype)) if save else None
        partial = params.new_empty((N, blocks), dtype=torch.float64)
        if partial.numel():
            with launch.on(params):
                mixture_nll_kernel[grid](
                    params, target.contiguous(), partial, saved, *sizes,
                    **options, num_warps=_WARPS,
                )  # fmt: skip
        nats = partial.sum(1).to(params.dtype)
        integers = params.new_empty(0, dtype=torch.uint8)
        return nats, integers, nothing if saved is None else saved
    integers = torch.uint8 if levels <= 256 else torch.int32
    found = params.new_empty((N, data_channels, *params.shape[2:]), dtype=integers)
    if found.numel():
        with launch.on(params):
            mixture_sample_kernel[grid](
                params, launch.dense(noise)[0], seed, found, *sizes, temperature,
                **options, num_warps=_WARPS,
            )  # fmt: skip
    return nothing, found, nothing.clone()


def backward(
    upstream_0: torch.Tensor | None,
    upstream_1: torch.Tensor | None,
    params: torch.Tensor,
    target: torch.Tensor | None,
    noise: torch.Tensor | None,
    seed: torch.Tensor | None,
    gradients: torch.Tensor,
    levels: int,
    data_channels: int,
    temperature: float,
    channels_last: bool,
    needs_params: bool,
) -> torch.Tensor:
    op = f"{_STEM}_backward"
    if not needs_params:
        return params.new_empty(0)
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    launch.require(unsupported(op, params, upstream_0=upstream_0))
    d_params = spec.empty_image(params, params.shape[1], channels_last)
    N, size = params.shape[0], params[:1].numel()
    blocks = triton.cdiv(size, _ELEMENTS)
    if d_params.numel():
        with launch.on(params):
            mixture_scale_kernel[launch.programs(op, N * blocks)](
                gradients.contiguous(), upstream_0.contiguous(), d_params, size, blocks,
                DTYPE=accumulator(params.dtype), B=_ELEMENTS, num_warps=_WARPS,
            )  # fmt: skip
    return d_params


LAUNCHERS = {f"{_STEM}_forward": forward, f"{_STEM}_backward": backward}


def _calls(
    dtype: torch.dtype, colours: int, N: int, K: int, H: int, W: int, given: bool = False
) -> Iterator[tuple[str, tuple]]:
    shape = (N, (10 if colours == 3 else 3) * K, H, W)
    params = torch.empty(shape, dtype=dtype, device="meta")
    target = torch.empty((N, colours, H, W), dtype=torch.uint8, device="meta")
    seed = torch.empty(1, dtype=torch.int64, device="meta")
    noise = torch.empty((N, 1 + colours, H, W), dtype=spec.accumulation(dtype), device="meta")
    options = (256, colours, 1.0, False)
    call = (params, target, None, None)
    yield f"{_STEM}_forward", (*call, *options, True)
    if given:
        yield f"{_STEM}_forward", (*call, *options, False)
        yield f"{_STEM}_forward", (params, None, noise, None, *options, False)
    yield f"{_STEM}_forward", (params, None, None, seed, *options, False)
    upstream = torch.empty(N, dtype=dtype, device="meta")
    saved = torch.empty((N, shape[1] * H * W), dtype=spec.accumulation(dtype), device="meta")
    yield f"{_STEM}_backward", (upstream, None, *call, saved, *options, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with colours and grey, gradients or not, noise given or not; on meta tensors."""
    for dtype, colours in itertools.product(spec.FLOATING, (3, 1)):
        yield from _calls(dtype, colours, 4, 5, 6, 7, given=True)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, 3, n, n + 1, n + 2, 2 * n)


SPILL_BYTES = {"mixture_nll_kernel": 8}  # three colours in float32 on sm_100
