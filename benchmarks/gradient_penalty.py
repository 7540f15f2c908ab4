"""Gradient penalties against the formulas that people write.

"penalty" takes the gradient as it is; the discriminator around it is not in these cases. Of second
order is forward, the gradient, and backward through that gradient: torch.compile has none. Eager's
norm has a NaN there for a gradient of 0.

Equivalent library call: none.
"""

import functools

import torch

import genkern
from benchmarks.core.case import Case
from genkern.reference import gradient_penalty as reference


def eager(gradient, *, kind):
    flat = gradient.flatten(1)
    if kind == "r1":
        return 5.0 * flat.square().sum(1).mean()
    return 10.0 * (flat.norm(dim=1) - 1).square().mean()


def twice(function):
    """From the gradient to the gradient of its penalty, which is differentiated again."""

    def found(gradient):
        g = gradient if gradient.requires_grad else gradient.detach().requires_grad_()
        (d,) = torch.autograd.grad(function(g), g, create_graph=True)
        return d

    return found


def penalty_case(shape, kind, *, second=False, **rest) -> Case:
    functions = (genkern.gradient_penalty, eager, reference.forward)
    ours, theirs, exact = (functools.partial(f, kind=kind) for f in functions)
    if second:
        ours, theirs, exact = map(twice, (ours, theirs, exact))
        rest |= {"phases": ("forward_backward",), "compiled_phases": ()}
    size = float(torch.Size(shape).numel())
    words = "x".join(map(str, shape[1:]))
    return Case(
        family="gradient_penalty",
        op="gradient_penalty",
        shape=f"N{shape[0]} {words} {kind}{' second order' if second else ''}",
        inputs=lambda: {"gradient": torch.randn(shape)},
        genkern=ours,
        eager=theirs,
        reference=exact,
        outputs=("d_penalty",) if second else ("penalty",),
        flops=(2.0 * size, 2.0 * size),
        elements=(size, 2.0 * size),
        terms={"penalty": int(size), "d_gradient": int(size), "d_penalty": int(size)},
        roundings=3,
        **rest,
    )


def cases() -> list[Case]:
    image = (64, 3, 32, 32)
    return [
        penalty_case(image, "wgan_gp", quick=True),
        penalty_case(image, "r1"),
        penalty_case(image, "wgan_gp", second=True),
        penalty_case((16, 3, 128, 128), "r1", second=True),
        penalty_case((2, 4), "wgan_gp", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {"batch": [(n, penalty_case((n, 3, 32, 32), "wgan_gp")) for n in (1, 4, 16, 64, 256)]}
