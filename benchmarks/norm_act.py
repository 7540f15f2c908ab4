"""Normalisation, an affine map of each image and an activation, against torch's chain.

Eager is what people write: F.instance_norm or F.batch_norm without a map, the map of a style or of
the gathered class, the activation. "penalty" is a whole step of a gradient penalty: forward, the
gradient of the input, and backward through that gradient; torch.compile has no double backward.
Where the map is one for all, torch has a kernel for all but the activation, and in evaluation
there are no statistics: fusion wins less there, and those cases stand here too.

Equivalent library call: none.
"""

import functools

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import norm_act as reference

FUNCTIONS = {
    "linear": lambda z: z,
    "lrelu": lambda z: F.leaky_relu(z, 0.2),
    "relu": torch.relu,
    "swish": F.silu,
}
CLASSES = 10


def eager_style(input, weight, bias, *, act):
    h = F.instance_norm(input)
    return FUNCTIONS[act](h * weight[:, :, None, None] + bias[:, :, None, None])


def eager_one(input, weight, bias, *, act):
    return FUNCTIONS[act](F.instance_norm(input, weight=weight, bias=bias))


def eager_class(input, weight, bias, *, act, labels, running=None):
    mean, variance = (None, None) if running is None else running
    h = F.batch_norm(input, mean, variance, training=running is None)
    weight, bias = weight[labels], bias[labels]
    return FUNCTIONS[act](h * weight[:, :, None, None] + bias[:, :, None, None])


def by_class(input, weight, bias, *, act, labels, running=None):
    mean, variance = (None, None) if running is None else running
    return genkern.conditional_batch_norm(
        input, labels, weight, bias, mean, variance, training=running is None, act=act
    )[0]


def exact(input, weight, bias, *, act, labels=None, running=None):
    given = (None, None) if running is None else (t.to(input) for t in running)
    batch = labels is not None
    return reference.forward(input, weight, bias, labels, *given, batch, act)[0]


def penalised(function):
    """From the arguments to the gradient of the input: what a penalty differentiates again."""

    def gradient(upstream, input, *rows):
        x = input if input.requires_grad else input.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(x, *rows), x, upstream, create_graph=True)
        return found

    return gradient


def norm_case(op, N, C, side, act, *, rows="own", last=False, penalty=False, running=False,
              **rest) -> Case:  # fmt: skip
    """``rows``: each image its "own" map (a style, or its class), or "one" for all."""
    batch = op == "conditional_batch_norm"

    def inputs():
        x = torch.randn(N, C, side, side) * 2 + 0.5
        tensors = {"upstream": torch.randn(N, C, side, side)} if penalty else {}
        tensors["input"] = x.to(memory_format=torch.channels_last) if last else x
        shape = (C,) if rows == "one" else (CLASSES if batch else N, C)
        return tensors | {"weight": torch.randn(shape), "bias": torch.randn(shape)}

    options: dict = {"act": act}
    if batch:
        options["labels"] = torch.arange(N) * 7 % CLASSES
        if running:
            options["running"] = (torch.full((C,), 0.5), torch.full((C,), 4.0))
    plain = eager_class if batch else eager_one if rows == "one" else eager_style
    function = by_class if batch else genkern.instance_norm_act
    ours, theirs, truth = (functools.partial(f, **options) for f in (function, plain, exact))
    words = [act, *(["one map"] if rows == "one" else []), *(["eval"] if running else [])]
    words += [*(["channels last"] if last else []), *(["penalty"] if penalty else [])]
    if penalty:
        ours, theirs, truth = map(penalised, (ours, theirs, truth))
        rest |= {"phases": ("forward_backward",), "compiled_phases": ()}
    elements, group = N * C * side * side, side * side * (N if batch else 1)
    results = ["output", "d_input", "d_weight", "d_bias", "gradient", "d_upstream"]
    return Case(
        family="norm_act",
        op=op,
        shape=f"N{N} {C} {side}x{side} {' '.join(words)}",
        inputs=inputs,
        genkern=ours,
        eager=theirs,
        reference=truth,
        outputs=("gradient",) if penalty else ("output",),
        flops=(10.0 * elements, 16.0 * elements),
        elements=(2.0 * elements, 3.0 * elements),
        terms=dict.fromkeys(results, max(group, N * side * side)),
        roundings=4,
        **rest,
    )


def cases() -> list[Case]:
    target, root = {"forward_backward": Target(3)}, (16, 64, 32)
    style = functools.partial(norm_case, "instance_norm_act")
    classes = functools.partial(norm_case, "conditional_batch_norm")
    return [
        style(*root, "lrelu", targets=target, quick=True),
        style(*root, "relu", rows="one"),
        style(*root, "swish"),
        style(*root, "lrelu", last=True),
        style(*root, "lrelu", penalty=True),
        style(*root, "swish", penalty=True),
        style(16, 256, 4, "lrelu"),
        classes(*root, "relu", targets=target, quick=True),
        classes(*root, "swish"),
        classes(*root, "relu", last=True),
        classes(*root, "relu", running=True),
        classes(*root, "relu", penalty=True),
        classes(*root, "swish", penalty=True),
        classes(16, 256, 4, "relu"),
        style(1, 2, 2, "lrelu", overhead=True, quick=True),
        classes(1, 2, 2, "relu", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    style = functools.partial(norm_case, "instance_norm_act")
    return {
        "batch": [(n, style(n, 64, 32, "lrelu")) for n in (1, 2, 4, 8, 16)],
        "channels": [(c, style(16, c, 32, "lrelu")) for c in (16, 64, 160)],
    }
