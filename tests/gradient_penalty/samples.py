"""What the shared tests need of gradient_penalty."""

import functools

import torch

import genkern
from genkern.reference import gradient_penalty as reference
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.gradient_penalty import values
from tests.gradient_penalty.values import check

FLOAT = 4  # bytes


def sample(name, *shape, **options):
    return Sample(
        name,
        lambda g: genkern.gradient_penalty(g, **options),
        functools.partial(reference.forward, **options),
        lambda normal: [normal(*shape)],
        functools.partial(check, **options),
    )


SMALL = [
    sample("wgan_gp", 3, 2, 4, 5),
    sample("r1 of each item", 4, 7, kind="r1", weight=2.0, reduction="none"),
    sample("one-sided", 5, 3, target=1.5, one_sided=True, reduction="sum"),
    sample("dragan of numbers", 6, kind="dragan", target=0.5, reduction="none"),
]
LARGE = [
    sample("images", 16, 3, 33, 41),
    sample("one item", 1, 70_001, kind="r1", reduction="none"),
    sample("short rows", 3001, 5, kind="r2", reduction="sum"),
    sample("of each item", 7, 2049, reduction="none"),
]


def peaks():
    (g,) = leaves((8, 3, 64, 48))
    image, small = g.numel() * FLOAT, 2**12
    call = genkern.gradient_penalty
    return [
        Peak("the penalty", lambda: call(g), FLOAT, small),
        Peak("and the gradient", forward_backward(call, g), image, image + small),
    ]


G = torch.ones(2, 3)
call = genkern.gradient_penalty
ERRORS = [
    (lambda: call([1.0]), TypeError, "gradient_penalty: gradient must be a Tensor; got list"),
    (lambda: call(G.int()), TypeError,
     "gradient_penalty: gradient must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(G[0, 0]), ValueError,
     r"gradient_penalty: gradient must have shape \(N, ...\); got \(\)"),
    (lambda: call(G, kind="r3"), ValueError,
     "gradient_penalty: kind must be one of 'wgan_gp', 'r1', 'r2', 'dragan'; got 'r3'"),
    (lambda: call(G, kind="r1", target=0.0), ValueError,
     r"gradient_penalty: target must be 1.0 for kind 'r1' \(it has no target\); got 0.0"),
    (lambda: call(G, kind="r2", one_sided=True), ValueError,
     "gradient_penalty: one_sided must be False for kind 'r2'"),
    (lambda: call(G, target=-1.0), ValueError,
     "gradient_penalty: target must be at least 0.0; got -1.0"),
    (lambda: call(G, target=torch.ones(2)), ValueError,
     r"gradient_penalty: target must be a number or a 0-dim constant Tensor; got shape \(2,\)"),
    (lambda: call(G, weight=-1), ValueError,
     "gradient_penalty: weight must be at least 0.0; got -1"),
    (lambda: call(G, weight="10"), TypeError,
     "gradient_penalty: weight must be a number; got '10'"),
    (lambda: call(G, one_sided=1), TypeError, "gradient_penalty: one_sided must be a bool; got 1"),
    (lambda: call(G, reduction="avg"), ValueError, "gradient_penalty: reduction must be one of"),
    (lambda: call(G, lambda_gp=1), TypeError, "lambda_gp"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_gradients_match_the_float64_reference,
        values.test_rows_of_several_segments,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
)
