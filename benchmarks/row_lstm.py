"""Cases of the Row LSTM, with the masked input convolution that makes its gates.

The layer of the Pixel RNN paper: 2h features in, a 1x3 convolution of type B to 4h gates (two
live taps), a recurrence of width 3 along the rows. Work: 2 N H W (4h) (2 * 2h + 3 h) FLOP
forward and twice that backward.
"""

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from benchmarks.masked_conv2d import mask_of, uniform
from genkern.reference import masked_conv2d as reference_conv
from genkern.reference import row_lstm as reference

WIDTH = 3


def fused(x, weight_ih, bias, weight_hh, mask):
    gates = genkern.masked_conv2d(x, weight_ih, bias, mask_type="B")
    return genkern.row_lstm(gates, weight_hh)[0]


def eager(x, weight_ih, bias, weight_hh, mask):
    gates = F.conv2d(x, weight_ih * mask, bias, padding=(0, WIDTH // 2))
    return reference.forward(gates, weight_hh)[0]


def truth(x, weight_ih, bias, weight_hh, mask):
    return reference.forward(reference_conv.forward(x, weight_ih, bias, "B"), weight_hh)[0]


def recurrence(gates, weight_hh):
    return genkern.row_lstm(gates, weight_hh)[0]


def reference_recurrence(gates, weight_hh):
    return reference.forward(gates, weight_hh)[0]


def layer_case(N: int, h: int, side: int, **options) -> Case:
    mask = mask_of(4 * h, 2 * h, 1, WIDTH, "B")
    pixels = N * side * side
    weights = float(mask.sum()) + 4 * h * h * WIDTH
    forward = 2.0 * pixels * weights
    x, y = pixels * 2 * h, pixels * h

    def inputs():
        return {
            "x": torch.randn(N, 2 * h, side, side),
            "weight_ih": uniform(4 * h, 2 * h, 1, WIDTH),
            "bias": torch.zeros(4 * h),
            "weight_hh": uniform(4 * h, h, WIDTH),
            "mask": mask,
        }

    # A value passes through every row below it.
    chain = side * h * (2 * 2 + WIDTH)
    return Case(
        family="row_lstm",
        op="row_lstm",
        shape=f"N{N} h{h} {side}x{side}",
        inputs=inputs,
        genkern=fused,
        eager=eager,
        reference=truth,
        outputs=("h",),
        flops=(forward, 2 * forward),
        elements=(x + weights + y, 2 * y + 2 * x + 2 * weights),
        terms={
            "h": chain,
            "d_x": 4 * chain,
            **{f"d_{name}": pixels * side for name in ("weight_ih", "bias", "weight_hh")},
        },
        roundings=side,
        constants=frozenset({"mask"}),
        # torch.compile unrolls the rows: a minute a graph, so only the graph with a target.
        compiled_phases=("forward_backward",) if options.get("targets") else (),
        **options,
    )


def overhead_case() -> Case:
    return Case(
        family="row_lstm",
        op="row_lstm",
        shape="N1 h1 2x2",
        inputs=lambda: {"gates": torch.randn(1, 4, 2, 2), "weight_hh": uniform(4, 1, WIDTH)},
        genkern=recurrence,
        eager=reference_recurrence,
        reference=reference_recurrence,
        outputs=("h",),
        flops=(2.0 * 4 * 4 * WIDTH, 4.0 * 4 * 4 * WIDTH),
        elements=(16 + 12 + 4, 2 * (16 + 12 + 4)),
        terms={"h": 2 * WIDTH},
        roundings=2,
        compiled_phases=(),
        overhead=True,
        quick=True,
    )


def cases() -> list[Case]:
    def at_least(ratio: float) -> dict[str, Target]:
        return {"forward_backward": Target(ratio)}

    return [
        layer_case(16, 16, 28, targets=at_least(5), quick=True),
        layer_case(16, 64, 28, targets=at_least(2.2), headline=True),
        layer_case(16, 128, 32, targets=at_least(2.2)),
        layer_case(1, 64, 28),
        layer_case(3, 17, 13),
        overhead_case(),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, layer_case(n, 32, 28)) for n in (1, 2, 4, 8, 16, 32)],
        "channels": [(h, layer_case(8, h, 28)) for h in (16, 32, 64, 128)],
        "side": [(s, layer_case(8, 32, s)) for s in (8, 16, 32, 64)],
        "threads": [(0, layer_case(16, 32, 28))],
    }
