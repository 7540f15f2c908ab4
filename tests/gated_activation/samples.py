"""What the shared tests need of gated_activation."""

import torch

import genkern
from genkern.reference import gated_activation as reference
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.gated_activation import values
from tests.gated_activation.values import check

FLOAT = 4  # bytes


def sample(name, shape, condition=None, last=False):
    def inputs(normal):
        image = normal(*shape)
        if last:
            image = image.to(memory_format=torch.channels_last)
        return [image, None if condition is None else normal(*condition)]

    call = lambda *tensors: genkern.gated_activation(*tensors)  # noqa: E731
    return Sample(name, call, reference.forward, inputs, check)


SMALL = [
    sample("a condition of channels", (3, 10, 5, 7), (3, 10)),
    sample("a condition of pixels", (3, 10, 5, 7), (3, 10, 5, 7)),
    sample("channels last", (2, 6, 3, 5), (2, 6), last=True),
    sample("alone", (2, 6, 3, 5)),
]
LARGE = [
    sample("rows", (9, 34, 17, 131), (9, 34)),
    sample("long rows", (1, 4, 1, 9001), (1, 4, 1, 9001)),
    sample("channels last", (5, 66, 9, 31), (5, 66), last=True),
    sample("one pixel", (1, 2, 1, 1)),
]


def peaks():
    x, c = leaves((2, 32, 64, 48), (2, 32))
    y, image = x.numel() // 2 * FLOAT, x.numel() * FLOAT
    condition = c.numel() * FLOAT
    both = y + image + condition
    return [
        Peak("the result", lambda: genkern.gated_activation(x, c), y, y),
        Peak(
            "and the gradients",  # nothing is saved; the expanded gradient may be copied
            forward_backward(genkern.gated_activation, x, c), both, both + y + 2**16,
        ),
    ]  # fmt: skip


X = torch.ones(2, 6, 3, 4)
call = genkern.gated_activation
ERRORS = [
    (lambda: call([1.0]), TypeError, "gated_activation: input must be a Tensor; got list"),
    (lambda: call(X.int()), TypeError,
     "gated_activation: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X, X.double()), RuntimeError,
     "gated_activation: condition must be float32 like input; got float64"),
    (lambda: call(X, X.to("meta")), RuntimeError,
     "gated_activation: condition must be on cpu like input; got meta"),
    (lambda: call(X[:, :5]), ValueError,
     r"gated_activation: input must have shape \(N, 2C, H, W\) or \(2C, H, W\); "
     r"got \(2, 5, 3, 4\)"),
    (lambda: call(X[0, 0]), ValueError,
     r"gated_activation: input must have shape .*; got \(3, 4\)"),
    (lambda: call(X, X[:, :3, 0, 0]), ValueError,
     r"gated_activation: condition must have shape \(2, 6\) or that of input = \(2, 6, 3, 4\); "
     r"got \(2, 3\)"),
    (lambda: call(X, X[0]), ValueError,
     r"condition must have shape \(2, 6\) or .*; got \(6, 3, 4\)"),
    (lambda: call(X, gate="x"), TypeError, "gate"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_gradients_match_the_float64_reference,
        values.test_sizes_around_the_chunks,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
)
