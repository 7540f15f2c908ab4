"""Bias, activation, gain and clamp against the chain of torch's functions.

"penalty" is a whole step of a gradient penalty: forward, the gradient of the input, and backward
through that gradient. torch.compile has no double backward. Where there is nothing but a bias, or
torch has one kernel for all of it, fusion cannot win much; those cases stand here too.

Equivalent library call: none.
"""

import functools
import math

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import bias_act as reference

FUNCTIONS = {
    "linear": lambda z: z,
    "lrelu": lambda z: F.leaky_relu(z, 0.2),
    "relu": torch.relu,
    "swish": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "softplus": F.softplus,
}


def eager(input, bias=None, *, act, gain=1.0, clamp=None):
    z = input if bias is None else input + bias[:, None, None]
    y = FUNCTIONS[act](z)
    y = y if gain == 1.0 else y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def penalised(function):
    """From the arguments to the gradient of the input: what a penalty differentiates again."""

    def gradient(upstream, input, *bias):
        x = input if input.requires_grad else input.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(x, *bias), x, upstream, create_graph=True)
        return found

    return gradient


def act_case(N, C, side, act, *, biased=True, last=False, penalty=False, gain=1.0, clamp=None,
             **rest) -> Case:  # fmt: skip
    def inputs():
        x = torch.randn(N, C, side, side)
        tensors = {"upstream": torch.randn(N, C, side, side)} if penalty else {}
        tensors["input"] = x.to(memory_format=torch.channels_last) if last else x
        return tensors | ({"bias": torch.randn(C)} if biased else {})

    options = {"act": act, "gain": gain, "clamp": clamp}
    words = [act, *(["gain"] if gain != 1 else []), *(["clamp"] if clamp else [])]
    words += [*([] if biased else ["no bias"]), *(["channels last"] if last else [])]
    words += ["penalty"] if penalty else []
    ours, theirs, exact = (functools.partial(f, **options)
                           for f in (genkern.bias_act, eager, reference.forward))  # fmt: skip
    if penalty:
        ours, theirs, exact = map(penalised, (ours, theirs, exact))
        rest |= {"phases": ("forward_backward",), "compiled_phases": ()}
        if act in ("linear", "relu", "lrelu"):
            rest["constants"] = frozenset({"input", "bias"})
    elements = N * C * side * side
    return Case(
        family="bias_act",
        op="bias_act",
        shape=f"N{N} {C} {side}x{side} {' '.join(words)}",
        inputs=inputs,
        genkern=ours,
        eager=theirs,
        reference=exact,
        outputs=("gradient",) if penalty else ("output",),
        flops=(4.0 * elements, 6.0 * elements),
        elements=(2.0 * elements, 3.0 * elements),
        terms={"d_bias": N * side * side},
        roundings=3,
        **rest,
    )


def cases() -> list[Case]:
    target, root = {"forward_backward": Target(3)}, math.sqrt(2)
    shape = (16, 64, 32)
    return [
        act_case(*shape, "lrelu", gain=root, clamp=256.0, targets=target),
        act_case(*shape, "lrelu", gain=root, targets=target, quick=True),
        act_case(*shape, "lrelu", gain=root, last=True, targets=target),
        act_case(*shape, "swish", gain=root),
        act_case(*shape, "gelu", gain=root, clamp=8.0),
        act_case(*shape, "tanh"),
        act_case(*shape, "linear"),
        act_case(*shape, "relu", biased=False),
        act_case(*shape, "lrelu", gain=root, penalty=True),
        act_case(*shape, "swish", gain=root, penalty=True),
        act_case(*shape, "softplus", penalty=True),
        act_case(1, 2, 2, "lrelu", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, act_case(n, 64, 32, "lrelu", gain=1.5)) for n in (1, 2, 4, 8, 16)],
        "channels": [(c, act_case(16, c, 32, "lrelu", gain=1.5)) for c in (16, 64, 160)],
    }
