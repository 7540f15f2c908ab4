"""The concatenated ELU against elu of the concatenation.

Equivalent library call: none.
"""

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import concat_elu as reference


def eager(input):
    return F.elu(torch.cat([input, -input], 1))


def elu_case(N: int, C: int, side: int, last: bool = False, **rest) -> Case:
    def inputs():
        x = torch.randn(N, C, side, side)
        return {"input": x.to(memory_format=torch.channels_last) if last else x}

    elements = N * C * side * side
    return Case(
        family="concat_elu",
        op="concat_elu",
        shape=f"N{N} {C} {side}x{side}" + (" channels last" if last else ""),
        inputs=inputs,
        genkern=genkern.concat_elu,
        eager=eager,
        reference=reference.forward,
        outputs=("output",),
        flops=(8.0 * elements, 11.0 * elements),
        elements=(3.0 * elements, 4.0 * elements),
        **rest,
    )


def cases() -> list[Case]:
    target = {"forward_backward": Target(3)}
    return [
        elu_case(16, 160, 32, targets=target),
        elu_case(16, 160, 16, targets=target, quick=True),
        elu_case(16, 160, 16, last=True, targets=target),
        elu_case(1, 2, 2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, elu_case(n, 160, 16)) for n in (1, 2, 4, 8, 16)],
        "channels": [(c, elu_case(16, c, 16)) for c in (16, 64, 160)],
    }
