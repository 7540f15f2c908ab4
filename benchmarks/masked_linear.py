"""Layers of a MADE against the product with a masked weight.

Work: 2 N FLOP for each live weight forward, the same again for each gradient (input, weight). What
eager does beside twice of that is the product with the mask: three passes over the weight forward,
three backward. The degrees are in natural order for pixels and drawn uniformly for hidden units.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import masked_linear as reference


def eager(input, weight, bias, mask):
    return F.linear(input, weight * mask, bias)


def fused(in_degrees: torch.Tensor, out_degrees: torch.Tensor, strict: bool) -> Callable:
    def run(input, weight, bias, mask):
        seen, seeing = in_degrees.to(input.device), out_degrees.to(input.device)
        return genkern.masked_linear(
            input, weight, bias, in_degrees=seen, out_degrees=seeing, strict=strict
        )

    return run


def truth(in_degrees: torch.Tensor, out_degrees: torch.Tensor, strict: bool) -> Callable:
    def run(input, weight, bias, mask):
        seen, seeing = in_degrees.to(input.device), out_degrees.to(input.device)
        return reference.forward(input, weight, bias, seen, seeing, strict)

    return run


def linear_case(N: int, pixels: int, hidden: int, output: bool = False, **rest) -> Case:
    """The layer from the pixels to hidden units, or (output) from these to the pixels."""
    generator = torch.Generator().manual_seed(hidden)
    drawn = torch.randint(0, max(1, pixels - 1), (hidden,), generator=generator)
    degrees = (drawn, torch.arange(pixels)) if output else (torch.arange(pixels), drawn)
    C_in, C_out = (len(d) for d in degrees)
    mask = reference.live_weights(*degrees, output).float()
    live = float(mask.sum())

    def inputs():
        weight = (2 * torch.rand(C_out, C_in) - 1) * C_in**-0.5
        return {"input": torch.rand(N, C_in), "weight": weight, "bias": torch.randn(C_out),
                "mask": mask}  # fmt: skip

    products = 2.0 * N * live
    x, y = N * C_in, N * C_out
    return Case(
        family="masked_linear",
        op="masked_linear",
        shape=f"N{N} {C_in} to {C_out}",
        inputs=inputs,
        genkern=fused(*degrees, output),
        eager=eager,
        reference=truth(*degrees, output),
        outputs=("output",),
        flops=(products, products * (2 if output else 1)),
        elements=(x + live + y, y + x + live + (x + live if output else 0)),
        terms={"output": C_in, "d_input": C_out, "d_weight": N, "d_bias": N},
        # The input of a first layer is data: nobody asks for its gradient.
        constants=frozenset({"mask"} if output else {"mask", "input"}),
        **rest,
    )


def cases() -> list[Case]:
    target = {"forward_backward": Target(1.3)}
    return [
        linear_case(100, 784, 500, targets=target, quick=True),
        linear_case(100, 784, 500, output=True, targets=target),
        linear_case(100, 784, 8000, targets=target),
        linear_case(100, 784, 8000, output=True, targets=target),
        linear_case(64, 784, 500, output=True, targets=target),
        linear_case(4, 2, 2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, linear_case(n, 784, 500)) for n in (1, 8, 64, 256)],
        "hidden": [(h, linear_case(100, 784, h)) for h in (250, 500, 1000, 2000)],
    }
