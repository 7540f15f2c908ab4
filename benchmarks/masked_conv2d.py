"""Cases of the masked convolution.

Work: 2 N H W sum_o live(o) FLOP forward, the same again for each gradient (input, weight), where
live(o) counts the unmasked taps of output channel o over all input channels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import masked_conv2d as reference


def mask_of(
    C_out: int, C_in: int, kh: int, kw: int, mask_type: str, data_channels: int = 1
) -> torch.Tensor:
    """(C_out, C_in, kh, kw) of zeros and ones, as a masked layer keeps it in a buffer."""
    mask = torch.ones(C_out, C_in, kh, kw)
    mask[:, :, kh // 2, kw // 2 :] = 0
    mask[:, :, kh // 2 + 1 :] = 0
    group_in = torch.arange(C_in) * data_channels // C_in
    group_out = (torch.arange(C_out) * data_channels // C_out)[:, None]
    sees = group_in < group_out if mask_type == "A" else group_in <= group_out
    mask[:, :, kh // 2, kw // 2] = sees.float()
    return mask


def uniform(*shape: int) -> torch.Tensor:
    """Weights of a layer at initialisation: bounded by one over the root of the fan-in."""
    fan_in = torch.Size(shape[1:]).numel()
    return (2 * torch.rand(shape) - 1) * fan_in**-0.5


def eager(x, weight, bias, mask):
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return F.conv2d(x, weight * mask, bias, padding=padding)


def cropped(x, weight, bias, mask):
    """The best a library convolution can do: the dead rows of the kernel are cut off."""
    a, b = weight.shape[2] // 2, weight.shape[3] // 2
    live = weight[:, :, : a + 1] * mask[:, :, : a + 1]
    return F.conv2d(F.pad(x, (b, b, a, 0)), live, bias)


def fused(mask_type: str, data_channels: int) -> Callable:
    def run(x, weight, bias, mask):
        return genkern.masked_conv2d(
            x, weight, bias, mask_type=mask_type, data_channels=data_channels
        )

    return run


def truth(mask_type: str, data_channels: int) -> Callable:
    def run(x, weight, bias, mask):
        return reference.forward(x, weight, bias, mask_type, data_channels)

    return run


def products_of(mask: torch.Tensor, side: int) -> float:
    """Products of one image that no algorithm can do without: live taps inside of the image."""
    kh, kw = mask.shape[2:]
    rows = side - (torch.arange(kh) - kh // 2).abs()
    columns = side - (torch.arange(kw) - kw // 2).abs()
    pixels = rows.clamp(min=0)[:, None] * columns.clamp(min=0)
    return float((mask.sum((0, 1)) * pixels).sum())


def conv_case(
    N: int,
    C: int,
    O: int,  # noqa: E741
    side: int,
    k: int,
    mask_type: str,
    data_channels: int = 1,
    first_layer: bool = False,
    **options,
) -> Case:
    mask = mask_of(O, C, k, k, mask_type, data_channels)
    pixels = N * side * side
    forward = 2.0 * N * products_of(mask, side)
    x, y, w = pixels * C, pixels * O, float(mask.sum())
    taps = C * (k * k + 1) // 2
    colours = f" {data_channels} colours" if data_channels > 1 else ""

    def inputs():
        x = torch.randn(N, C, side, side)
        return {"x": x, "weight": uniform(O, C, k, k), "bias": torch.randn(O), "mask": mask}

    return Case(
        family="masked_conv2d",
        op="masked_conv2d",
        shape=f"N{N} C{C} O{O} {side}x{side} k{k} {mask_type}{colours}",
        inputs=inputs,
        genkern=fused(mask_type, data_channels),
        eager=eager,
        reference=truth(mask_type, data_channels),
        outputs=("y",),
        flops=(forward, forward * (1 if first_layer else 2)),
        elements=(x + w + y, y + x + w + (0 if first_layer else x + w)),
        library=cropped,
        library_call="F.conv2d on the kernel cropped to its live rows",
        terms={"y": taps, "d_x": O * taps // C, "d_weight": pixels, "d_bias": pixels},
        # The input of a first layer is data: nobody asks for its gradient.
        constants=frozenset({"mask", "x"} if first_layer else {"mask"}),
        **options,
    )


PADDINGS = {  # left, right, top, bottom of the forms without dead taps
    "rows": lambda kh, kw: (kw // 2, kw - 1 - kw // 2, kh - 1, 0),
    "left": lambda kh, kw: (kw - 1, 0, kh - 1, 0),
}


def form_case(
    N: int,
    C: int,
    O: int,  # noqa: E741
    side: int,
    kh: int,
    kw: int,
    mask_type: str,
    **options,
) -> Case:
    """A layer without dead taps against what public code writes in its place."""
    left, right, top, bottom = PADDINGS[mask_type](kh, kw)
    rows = sum(side - min(y, side) for y in range(kh))
    columns = sum(side - min(abs(x - left), side) for x in range(kw))
    forward = 2.0 * N * C * O * rows * columns
    pixels, w = N * side * side, float(O * C * kh * kw)
    x, y = pixels * C, pixels * O

    def padded_and_cropped(x, weight, bias):
        padding = (top, max(left, right))
        return F.conv2d(x, weight, bias, padding=padding)[:, :, :side, :side]

    def padded(x, weight, bias):
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias)

    def inputs():
        x = torch.randn(N, C, side, side)
        return {"x": x, "weight": uniform(O, C, kh, kw), "bias": torch.randn(O)}

    return Case(
        family="masked_conv2d",
        op="masked_conv2d",
        shape=f"N{N} C{C} O{O} {side}x{side} k{kh}x{kw} {mask_type}",
        inputs=inputs,
        genkern=lambda *tensors: genkern.masked_conv2d(*tensors, mask_type=mask_type),
        eager=padded_and_cropped,
        reference=lambda *tensors: reference.forward(*tensors, mask_type),
        outputs=("y",),
        flops=(forward, 2 * forward),
        elements=(x + w + y, y + 2 * x + 2 * w),
        library=padded,
        library_call="F.conv2d on an input that F.pad has shifted",
        terms={"y": C * kh * kw, "d_x": O * kh * kw, "d_weight": pixels, "d_bias": pixels},
        **options,
    )


def cases() -> list[Case]:
    def at_least(ratio: float) -> dict[str, Target]:
        return {"forward_backward": Target(ratio)}

    return [
        conv_case(16, 64, 64, 28, 7, "B", targets=at_least(1.9), headline=True),
        conv_case(16, 64, 64, 28, 7, "A", targets=at_least(1.9)),
        conv_case(16, 128, 128, 28, 3, "B", targets=at_least(1.7)),
        conv_case(16, 32, 32, 28, 5, "B", targets=at_least(1.7), quick=True),
        conv_case(16, 1, 64, 28, 7, "A", first_layer=True),
        conv_case(16, 3, 96, 32, 7, "A", data_channels=3, first_layer=True, targets=at_least(1.5)),
        conv_case(16, 96, 96, 32, 3, "B", data_channels=3, targets=at_least(1.5)),
        form_case(16, 64, 128, 28, 3, 5, "rows"),
        form_case(16, 64, 128, 28, 1, 3, "left"),
        conv_case(16, 3, 17, 13, 3, "B"),
        conv_case(1, 64, 64, 28, 3, "B"),
        conv_case(1, 1, 1, 4, 3, "B", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, conv_case(n, 32, 32, 28, 5, "B")) for n in (1, 2, 4, 8, 16, 32)],
        "channels": [(c, conv_case(8, c, c, 28, 5, "B")) for c in (16, 32, 64, 128)],
        "side": [(s, conv_case(8, 32, 32, s, 5, "B")) for s in (8, 16, 32, 64)],
        "threads": [(0, conv_case(16, 64, 64, 28, 3, "B"))],
    }
