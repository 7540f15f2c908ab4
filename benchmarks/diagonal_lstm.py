"""Cases of one direction of the Diagonal BiLSTM: the recurrence on gates that are there.

The baseline is the loop as people write it: rows skewed by padding and reshaping, a convolution of
two taps and a cell for each of the W + H - 1 columns, rows moved back. It works on twice the
pixels, half of them padding; with zeros for gates these stay at state 0, so that both agree.
Work: 2 N H W (4h) (2 h) FLOP forward and twice that backward.
"""

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import diagonal_lstm as reference


def skew(x):
    N, C, H, W = x.shape
    return F.pad(x, (0, H)).reshape(N, C, -1)[:, :, :-H].reshape(N, C, H, W + H - 1)


def unskew(x, W):
    N, C, H, columns = x.shape
    return F.pad(x.reshape(N, C, -1), (0, H)).reshape(N, C, H, columns + 1)[..., :W]


def eager(gates, weight_hh):
    N, _, H, W = gates.shape
    skewed, columns = skew(gates), []
    h = c = gates.new_zeros(N, weight_hh.shape[1], H)
    for t in range(W + H - 1):
        sums = skewed[..., t] + F.conv1d(F.pad(h, (1, 0)), weight_hh)
        o, f, i, g = sums.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        columns.append(h)
    return unskew(torch.stack(columns, 3), W)


def fused(gates, weight_hh):
    return genkern.diagonal_lstm(gates, weight_hh)


def recurrence_case(N: int, h: int, side: int, **options) -> Case:
    pixels, weights = N * side * side, 8 * h * h
    bound = 1 / (2 * h) ** 0.5

    def inputs():
        return {
            "gates": torch.randn(N, 4 * h, side, side),
            "weight_hh": torch.empty(4 * h, h, 2).uniform_(-bound, bound),
        }

    elements = pixels * 5 * h + weights
    return Case(
        family="diagonal_lstm",
        op="diagonal_lstm",
        shape=f"N{N} h{h} {side}x{side}",
        inputs=inputs,
        genkern=fused,
        eager=eager,
        reference=reference.forward,
        outputs=("h",),
        flops=(2.0 * pixels * weights, 4.0 * pixels * weights),
        elements=(elements, pixels * h + elements + weights),
        terms={
            "h": 4 * side * h,
            "d_gates": 16 * side * h,
            "d_weight_hh": pixels * side,
        },
        roundings=2 * side,
        # torch.compile unrolls the diagonals, minutes a graph: only that of the first target.
        compiled_phases=("forward_backward",) if options.pop("compiled", False) else (),
        **options,
    )


def cases() -> list[Case]:
    target = {"forward_backward": Target(5)}
    return [
        recurrence_case(16, 16, 28, targets=target, compiled=True, quick=True),
        recurrence_case(16, 64, 28, targets=target, headline=True),
        recurrence_case(16, 128, 32, targets=target),
        recurrence_case(1, 64, 28),
        recurrence_case(3, 17, 13),
        recurrence_case(1, 1, 2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, recurrence_case(n, 32, 28)) for n in (1, 2, 4, 8, 16, 32)],
        "channels": [(h, recurrence_case(8, h, 28)) for h in (16, 32, 64, 128)],
        "side": [(s, recurrence_case(8, 32, s)) for s in (8, 16, 32, 64)],
        "threads": [(0, recurrence_case(16, 32, 28))],
    }
