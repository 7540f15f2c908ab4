"""Launchers of the pixel cross-entropy's Triton kernels; logits behind a head are never stored."""

import itertools
from collections.abc import Iterator

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.pixel_cross_entropy import plan
from genkern.triton_kernels.pixel_cross_entropy.backward import (
    backward,
    pixel_cross_entropy_features_kernel,
    pixel_cross_entropy_logits_backward_kernel,
    pixel_cross_entropy_parts_kernel,
    pixel_cross_entropy_slopes_kernel,
    pixel_cross_entropy_weight_kernel,
)
from genkern.triton_kernels.pixel_cross_entropy.head import pixel_cross_entropy_head_kernel
from genkern.triton_kernels.pixel_cross_entropy.kernels import (
    pixel_cross_entropy_logits_kernel,
    pixel_cross_entropy_sum_kernel,
)
from genkern.triton_kernels.pixel_cross_entropy.plan import unsupported

__all__ = [
    "LAUNCHERS",
    "MAX_LAUNCHES",
    "TENSOR_CORES",
    "configurations",
    "pixel_cross_entropy_features_kernel",
    "pixel_cross_entropy_logits_backward_kernel",
    "pixel_cross_entropy_parts_kernel",
    "pixel_cross_entropy_slopes_kernel",
    "pixel_cross_entropy_weight_kernel",
    "unsupported",
    "variants",
]

_SUMS = 1024


def _of_logits(x, target, nats, maximum, scale):
    colours, pixels = target.shape[1], target[0, 0].numel()
    blocks = plan.blocks_of(pixels)
    levels = x.shape[2] if x.ndim == 5 else x.shape[1] // colours
    pixel_cross_entropy_logits_kernel[launch.programs(plan.OP, x.shape[0] * colours * blocks)](
        x, target, nats, maximum, scale,
        colours, levels, pixels, blocks, *plan.logit_strides(x, colours),
        DTYPE=accumulator(x.dtype), BP=plan.PIXELS, BL=plan.levels_of(x), num_warps=4,
    )  # fmt: skip


def _of_features(x, weight, bias, target, masked, nats, maximum, scale):
    colours, pixels = target.shape[1], target[0, 0].numel()
    (rows, K), total = weight.shape[:2], target.shape[0] * pixels
    tile = plan.tile_of(x, rows // colours)
    programs = triton.cdiv(total, tile.pixels) * colours
    pixel_cross_entropy_head_kernel[launch.programs(plan.OP, programs)](
        x, weight, bias, target, nats, maximum, scale,
        total, pixels, rows // colours, K, *plan.strides(x),
        F=plan.facts(x, colours, masked), T=tile, num_warps=tile.warps, num_stages=tile.stages,
        maxnreg=255,  # else the compiler spills so that more programs fit
    )  # fmt: skip


def forward(
    features: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    masked: bool,
    channels_last: bool,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two launches: the nats of every pixel and colour, then their sums."""
    launch.require(unsupported(features, weight, bias, target))
    dtype, N = spec.accumulation(features.dtype), target.shape[0]
    nats = features.new_empty(N)
    saved = [features.new_empty(target.shape if save else 0, dtype=dtype) for _ in range(2)]
    if target.numel() == 0:
        return nats.zero_(), saved[0], saved[1]
    x = plan.one_run(features, channels_last)
    target, weight, bias = launch.dense(target, weight, bias)
    each = features.new_empty(target.shape, dtype=dtype)
    kept = saved if save else (None, None)
    with launch.on(x):
        if weight is None:
            _of_logits(x, target, each, *kept)
        else:
            _of_features(x, weight, bias, target, masked, each, *kept)
        pixel_cross_entropy_sum_kernel[launch.programs(plan.OP, N)](
            each, nats, each[0].numel(), DTYPE=accumulator(x.dtype), B=_SUMS, num_warps=4
        )
    return nats, saved[0], saved[1]


LAUNCHERS = {"pixel_cross_entropy_forward": forward, "pixel_cross_entropy_backward": backward}
MAX_LAUNCHES = {"pixel_cross_entropy_forward": 2, "pixel_cross_entropy_backward": 4}
TENSOR_CORES = {
    "pixel_cross_entropy_head_kernel",
    "pixel_cross_entropy_slopes_kernel",
    "pixel_cross_entropy_features_kernel",
    "pixel_cross_entropy_weight_kernel",
}


def _calls(dtype, N, colours, levels, K, side, masked) -> Iterator[tuple[str, tuple]]:
    rows = colours * levels
    x = torch.empty(N, rows if K is None else K, side, side + 1, dtype=dtype, device="meta")
    head = (None, None) if K is None else (x.new_empty(rows, K), x.new_empty(rows))
    target = torch.empty(N, colours, side, side + 1, dtype=torch.uint8, device="meta")
    saved = [x.new_empty(target.shape, dtype=spec.accumulation(dtype)) for _ in range(2)]
    call, needs = (x, *head, target), (True, K is not None, K is not None)
    yield "pixel_cross_entropy_forward", (*call, masked, False, True)
    yield "pixel_cross_entropy_backward", (x.new_empty(N), *call, *saved, masked, False, *needs)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype: logits, a head, a masked head of colours; TF32."""
    for dtype, masked in itertools.product(spec.FLOATING, (False, True)):
        if not masked:
            yield from _calls(dtype, 2, 3, 256, None, 8, False)
        yield from _calls(dtype, 2, 3 if masked else 1, 256, 64, 8, masked)
    with launch.allowing_tf32():
        yield from _calls(torch.float32, 2, 3, 256, 64, 8, True)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, n, 3, n + 64, None, n + 1, False)
    yield from _calls(torch.float32, n, 3, n + 64, n + 64, n + 1, True)
