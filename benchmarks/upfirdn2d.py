"""Up, filter and down against the fastest chain that torch has for it.

The baseline filters each channel alone (``groups=C``), a separable filter as two convolutions:
transposed ones for the zeros between pixels, strided ones for fewer pixels. "penalty" is a whole
step of a gradient penalty: forward, the gradient of the input, and backward through that gradient.
torch.compile has no double backward.

Equivalent library call: none.
"""

import functools

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import upfirdn2d as reference

BLUR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
SQUARE = torch.outer(BLUR, BLUR)


def eager(input, *, filter, up, down, padding, gain):
    C, f = input.shape[1], filter.to(input)
    taps, (left, right, top, bottom) = f.shape[0], padding
    if f.ndim == 2:
        weights = [((f * gain).expand(C, 1, -1, -1), (up, up), (down, down))]
    else:
        weights = [((f * gain).view(-1, 1).expand(C, 1, -1, 1), (up, 1), (down, 1)),
                   (f.expand(C, 1, 1, -1), (1, up), (1, down))]  # fmt: skip
    x = input
    if up == 1:
        x = F.pad(x, padding)
        for weight, _, stride in weights:
            x = F.conv2d(x, weight.flip(2, 3), stride=stride, groups=C)
        return x
    for weight, stride, _ in weights:
        x = F.conv_transpose2d(x, weight, stride=stride, groups=C)
    # Of the full convolution taps - 1 rows stand before the image.
    x = F.pad(x, (left - taps + 1, right - taps + up, top - taps + 1, bottom - taps + up))
    return x if down == 1 else x[:, :, ::down, ::down]


def defined(input, *, filter, up, down, padding, gain):
    return reference.forward(input, filter.double(), up, down, padding, gain)


def fused(input, *, filter, **options):
    return genkern.upfirdn2d(input, filter.to(input.device), **options)


def penalised(function):
    """From the arguments to the gradient of the input: what a penalty differentiates again."""

    def gradient(upstream, input):
        x = input.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(x), x, upstream, create_graph=True)
        return found

    return gradient


WORK = {"up": (2, 1, (2, 1, 2, 1), 4.0), "down": (1, 2, (1, 1, 1, 1), 1.0),
        "blur": (1, 1, (2, 1, 2, 1), 1.0), "up 3 down 2": (3, 2, (2, 2, 2, 2), 9.0)}  # fmt: skip


def filter_case(N, C, side, kind, *, filter=BLUR, penalty=False, **rest) -> Case:
    up, down, padding, gain = WORK[kind]
    options = {"filter": filter, "up": up, "down": down, "padding": padding, "gain": gain}
    out = (side * up + sum(padding[:2]) - 4) // down + 1
    ours, theirs, exact = (functools.partial(f, **options)
                           for f in (fused, eager, defined))  # fmt: skip
    if penalty:
        ours, theirs, exact = map(penalised, (ours, theirs, exact))
        rest |= {"phases": ("forward_backward",), "compiled_phases": ()}
        rest["constants"] = frozenset({"input"})
    inputs = {"upstream": (N, C, out, out)} if penalty else {}
    inputs |= {"input": (N, C, side, side)}
    elements, taps = float(N * C * (side * side + out * out)), 16.0 / up**2
    words = [kind, *(["not separable"] if filter.ndim == 2 else [])]
    return Case(
        family="upfirdn2d",
        op="upfirdn2d",
        shape=f"N{N} {C} {side}x{side} {' '.join(words + ['penalty'] * penalty)}",
        inputs=lambda: {name: torch.randn(shape) for name, shape in inputs.items()},
        genkern=ours,
        eager=theirs,
        reference=exact,
        outputs=("gradient",) if penalty else ("output",),
        flops=(taps * N * C * out * out, taps * N * C * out * out),
        elements=(elements, elements),
        terms={"output": 16, "d_input": 16, "gradient": 16, "d_upstream": 16},
        roundings=3,
        **rest,
    )


def cases() -> list[Case]:
    target, shape = {"forward_backward": Target(3)}, (16, 64, 32)
    return [
        filter_case(*shape, "up", targets=target),
        filter_case(*shape, "down", targets=target, quick=True),
        filter_case(*shape, "blur"),
        filter_case(*shape, "up 3 down 2"),
        filter_case(*shape, "blur", filter=SQUARE),
        filter_case(*shape, "up", penalty=True),
        filter_case(*shape, "down", penalty=True),
        filter_case(1, 2, 2, "up", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, filter_case(n, 64, 32, "up")) for n in (1, 2, 4, 8, 16)],
        "side": [(s, filter_case(4, 64, s, "up")) for s in (8, 16, 32, 64)],
    }
