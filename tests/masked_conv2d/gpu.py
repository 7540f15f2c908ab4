"""What `make gpu` asks of masked_conv2d."""

from functools import partial

import torch

import genkern
from benchmarks import masked_conv2d as cases
from genkern.reference import masked_conv2d as reference
from tests.core.strategies import lay_out
from tests.gpu.kit import F64, Large, both, raises
from tests.masked_conv2d.values import check, fused, plain

# N, C_in, C_out, side, kernel, options: a first layer, colours that share a tile, whole tiles.
_PROBLEMS = [
    (3, 1, 33, 9, 7, {"mask_type": "A"}),
    (2, 20, 35, 7, 3, {"mask_type": "B", "data_channels": 3}),
    (2, 64, 130, 12, 3, {"mask_type": "B", "dilation": 2}),
]


def _call(dtype):
    for N, C, O, side, k, options in _PROBLEMS:  # noqa: E741
        for layout in ("contiguous", "channels_last"):
            shapes = (N, C, side, side + 1), (O, C, k, k), (N, O, side, side + 1)
            x, w, d_y = (lay_out(torch.randn(s).to(dtype), layout) for s in shapes)
            inputs = [x, w / C**0.5, torch.randn(O).to(dtype)]
            check(fused(options), plain(options), inputs, d_y, options)


CALLS = {"masked_conv2d": _call}


def headlines():
    """The timed cases that fill a GPU."""
    return [cases.conv_case(64, 128, 128, 32, 3, "B"), cases.conv_case(64, 3, 96, 32, 7, "A", 3)]


def batches_around_the_limit_of_the_other_grid_axes():
    for N in (65_535, 65_536, 65_537):
        image, weight = torch.randn(N, 1, 3, 3, dtype=F64), torch.randn(2, 1, 3, 3, dtype=F64)
        both(
            lambda i, w: genkern.masked_conv2d(i, w, mask_type="A"),
            lambda i, w: reference.forward(i, w, None, "A"),
            [image, weight], [torch.randn(N, 2, 3, 3, dtype=F64)], terms=9 * N, scale=8.0,
        )  # fmt: skip


def tensors_on_different_devices_are_named():
    image, weight = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3, 3).cpu()
    text = "weight must be on cuda:0 like input; got cpu"
    raises(RuntimeError, text, lambda: genkern.masked_conv2d(image, weight))


def windows_have_the_bits_of_the_whole_output():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for mask_type, groups in (("A", 3), ("rows", 1), ("left", 2)):
            image, weight = (
                torch.randn(3, 24, 20, 31).to(dtype),
                torch.randn(40, 24, 2, 3).to(dtype),
            )
            call = partial(
                genkern.masked_conv2d, image, weight, mask_type=mask_type, data_channels=groups
            )
            whole = call()
            for rows, columns in (((7, 8), (13, 14)), ((19, 20), (0, 31)), ((3, 9), (5, 30))):
                window = whole[:, :, slice(*rows), slice(*columns)]
                assert torch.equal(call(window=(rows, columns)), window), (dtype, mask_type)


CHECKS = [
    batches_around_the_limit_of_the_other_grid_axes, tensors_on_different_devices_are_named,
    windows_have_the_bits_of_the_whole_output,
]  # fmt: skip

STEPS = {
    "colours": (
        partial(genkern.masked_conv2d, data_channels=3),
        [(8, 20, 28, 28), (33, 20, 5, 5), (33,)],
    ),
}


def _large(N: int, C: int, side: int) -> Large:
    return Large(
        lambda x, w: (genkern.masked_conv2d(x, w),),
        lambda x, w: (reference.forward(x, w),),
        [(N, C, side, side)], [(C, C, 3, 3)],
        [(5 * C, 8.0), (5 * C, 8.0), (side * side, 8.0)], 32,
    )  # fmt: skip


LARGE = {
    "elements": _large(2**15 + 1, 16, 64).check,
    "pixels": _large(2**19 + 1, 1, 64).check,
}
