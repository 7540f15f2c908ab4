"""Launchers of the gradients of pixel_cross_entropy. Fixed order of every sum, no atomics."""

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.pixel_cross_entropy import plan
from genkern.triton_kernels.pixel_cross_entropy.head import (
    pixel_cross_entropy_features_kernel,
    pixel_cross_entropy_parts_kernel,
    pixel_cross_entropy_slopes_kernel,
    pixel_cross_entropy_weight_kernel,
)
from genkern.triton_kernels.pixel_cross_entropy.kernels import (
    pixel_cross_entropy_logits_backward_kernel,
)

_SUMS = 256


def _of_logits(upstream, x, target, maximum, scale, d_x):
    colours, pixels = target.shape[1], target[0, 0].numel()
    blocks = plan.blocks_of(pixels)
    levels = x.shape[2] if x.ndim == 5 else x.shape[1] // colours
    pixel_cross_entropy_logits_backward_kernel[
        launch.programs(plan.OP, x.shape[0] * colours * blocks)
    ](
        upstream, x, target, maximum, scale, d_x,
        colours, levels, pixels, blocks, upstream.stride(0),
        *plan.logit_strides(x, colours), *plan.logit_strides(d_x, colours),
        DTYPE=accumulator(x.dtype), BP=plan.PIXELS, BL=plan.levels_of(x), num_warps=4,
    )  # fmt: skip


class _Head:
    """The arguments that all launches of a backward pass through the head share."""

    def __init__(self, x, weight, bias, target, masked):
        self.x, self.weight, self.bias, self.target = x, weight, bias, target
        self.rows, self.K = weight.shape[:2]
        self.colours, self.pixels = target.shape[1], target[0, 0].numel()
        self.total = target.shape[0] * self.pixels
        self.levels = self.rows // self.colours
        self.facts = plan.facts(x, self.colours, masked)
        self.chunk = plan.chunk_pixels(self.rows, maximum_size(x))
        self.splits = min(plan.SPLITS, triton.cdiv(min(self.chunk, self.total), 64))

    def options(self, wide):
        tile = plan.tile_of(self.x, wide)
        return tile, {
            "F": self.facts, "T": tile, "num_warps": tile.warps, "num_stages": tile.stages,
        }  # fmt: skip

    def slopes(self, upstream, maximum, scale, g, begin, end):
        tile, options = self.options(self.levels)
        tiles = triton.cdiv(self.levels, tile.levels)
        programs = triton.cdiv(end - begin, tile.pixels) * self.colours * tiles
        pixel_cross_entropy_slopes_kernel[launch.programs(plan.OP, programs)](
            upstream, self.x, self.weight, self.bias, self.target, maximum, scale, g,
            self.pixels, begin, end, self.levels, self.K, tiles, upstream.stride(0),
            *plan.strides(self.x), **options,
        )  # fmt: skip

    def features(self, g, d_x, begin, end):
        tile, options = self.options(self.K)
        if self.facts.SPLIT:
            options["num_warps"] = 8  # two operands of slopes, which by 4 are spilled
        tiles = triton.cdiv(self.K, tile.levels)
        programs = triton.cdiv(end - begin, tile.pixels) * tiles
        pixel_cross_entropy_features_kernel[launch.programs(plan.OP, programs)](
            g, self.weight, d_x, self.pixels, begin, end, self.levels, self.K, tiles,
            *plan.strides(d_x), **options,
        )  # fmt: skip

    def parts(self, g, part, bias_part, begin, end):
        tile, options = self.options(self.K)
        tiles = triton.cdiv(self.K, tile.levels) if part is not None else 1
        programs = triton.cdiv(self.rows, tile.pixels) * tiles * self.splits
        pixel_cross_entropy_weight_kernel[launch.programs(plan.OP, programs)](
            g, self.x, part, bias_part, self.pixels, begin, end, self.rows, self.K, tiles,
            self.splits, *plan.strides(self.x), **options,
        )  # fmt: skip

    def sums(self, part, bias_part, d_weight, d_bias):
        programs = triton.cdiv(self.rows * self.K, _SUMS) if part is not None else 0
        biases = triton.cdiv(self.rows, _SUMS) if bias_part is not None else 0
        pixel_cross_entropy_parts_kernel[launch.programs(plan.OP, programs + biases)](
            part, bias_part, d_weight, d_bias, self.splits, self.rows, self.levels, self.K,
            *d_weight.stride()[:2] if part is not None else (0, 0), programs,
            F=self.facts, B=_SUMS, num_warps=4,
        )  # fmt: skip


def maximum_size(x: torch.Tensor) -> int:
    """Bytes of an element of the sums."""
    return spec.accumulation(x.dtype).itemsize


def _of_head(head, upstream, maximum, scale, d_x, d_weight, d_bias):
    x, dtype = head.x, spec.accumulation(head.x.dtype)
    g = x.new_empty(min(head.chunk, head.total) * head.rows, dtype=dtype)
    part = bias_part = None
    if d_weight is not None:
        part = x.new_zeros(head.splits * head.rows * head.K, dtype=dtype)
    if d_bias is not None:
        bias_part = x.new_zeros(head.splits * head.rows, dtype=dtype)
    for begin in range(0, head.total, head.chunk):
        end = min(head.total, begin + head.chunk)
        head.slopes(upstream, maximum, scale, g, begin, end)
        if d_x is not None:
            head.features(g, d_x, begin, end)
        if part is not None or bias_part is not None:
            head.parts(g, part, bias_part, begin, end)
    if part is not None or bias_part is not None:
        head.sums(part, bias_part, d_weight, d_bias)


def _new_gradient(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    if x.ndim == 5:
        return x.new_empty(x.shape)
    return spec.empty_image(x, x.shape[1], channels_last)


def backward(
    upstream_0: torch.Tensor | None,
    features: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    maximum: torch.Tensor,
    scale: torch.Tensor,
    masked: bool,
    channels_last: bool,
    needs_features: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One launch for logits; three for each chunk of pixels and one more behind a head."""
    assert upstream_0 is not None  # of one result: without it there is no backward pass
    launch.require(plan.unsupported(features, weight, bias, target, upstream_0))
    d_x = _new_gradient(features, channels_last) if needs_features else None
    d_weight = torch.empty_like(weight) if needs_weight and weight is not None else None
    d_bias = bias.new_empty(bias.shape) if needs_bias and bias is not None else None
    x = plan.one_run(features, channels_last)
    target, maximum, scale = launch.dense(target, maximum, scale)
    if target.numel() == 0:
        for d in (d_weight, d_bias, d_x):
            if d is not None:
                d.zero_()
    elif weight is None:
        if d_x is not None:
            with launch.on(x):
                _of_logits(upstream_0, x, target, maximum, scale, d_x)
    else:
        dense_weight, dense_bias = launch.dense(weight, bias)
        head = _Head(x, dense_weight, dense_bias, target, masked)
        with launch.on(x):
            _of_head(head, upstream_0, maximum, scale, d_x, d_weight, d_bias)
    found = (features.new_empty(0) if d is None else d for d in (d_x, d_weight, d_bias))
    return tuple(found)  # type: ignore[return-value]
