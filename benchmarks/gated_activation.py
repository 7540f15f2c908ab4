"""The gated activation with and without its condition, against chunk, tanh, sigmoid, product.

Equivalent library call: none; F.glu has no tanh.
"""

import torch

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import gated_activation as reference


def eager(input, condition=None):
    if condition is not None:
        input = input + condition[:, :, None, None]
    a, b = input.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def gate_case(N: int, C: int, side: int, conditional: bool = False, **rest) -> Case:
    def inputs():
        tensors = {"input": torch.randn(N, 2 * C, side, side)}
        if conditional:
            tensors["condition"] = torch.randn(N, 2 * C)
        return tensors

    outputs = N * C * side * side
    return Case(
        family="gated_activation",
        op="gated_activation",
        shape=f"N{N} 2x{C} {side}x{side}" + (" conditional" if conditional else ""),
        inputs=inputs,
        genkern=genkern.gated_activation,
        eager=eager,
        reference=reference.forward,
        outputs=("output",),
        flops=(10.0 * outputs, 20.0 * outputs),
        elements=(3.0 * outputs, 5.0 * outputs),
        terms={"d_condition": side * side},
        **rest,
    )


def cases() -> list[Case]:
    target = {"forward_backward": Target(3)}
    return [
        gate_case(16, 128, 28, targets=target, quick=True, headline=True),
        gate_case(16, 128, 28, conditional=True, targets=target),
        gate_case(16, 32, 13),
        gate_case(1, 2, 2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, gate_case(n, 64, 28)) for n in (1, 2, 4, 8, 16, 32)],
        "channels": [(c, gate_case(16, c, 28)) for c in (16, 32, 64, 128)],
    }
