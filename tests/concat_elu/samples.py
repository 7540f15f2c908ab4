"""What the shared tests need of concat_elu."""

import torch

import genkern
from genkern.reference import concat_elu as reference
from tests.concat_elu import values
from tests.concat_elu.values import check
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves

FLOAT = 4  # bytes


def sample(name, shape, last=False):
    def inputs(normal):
        x = normal(*shape)
        return [x.to(memory_format=torch.channels_last) if last else x]

    return Sample(name, lambda x: genkern.concat_elu(x), reference.forward, inputs, check)


SMALL = [
    sample("an image", (3, 5, 4, 7)),
    sample("channels last", (2, 6, 3, 5), last=True),
    sample("a row", (3, 5)),
]
LARGE = [
    sample("images", (9, 17, 17, 131)),
    sample("long rows", (1, 2, 9001)),
    sample("channels last", (5, 66, 9, 31), last=True),
    sample("one value", (1, 1)),
]


def peaks():
    (x,) = leaves((2, 32, 64, 48))
    image = x.numel() * FLOAT
    return [
        Peak("the result", lambda: genkern.concat_elu(x), 2 * image, 2 * image),
        Peak(
            "and the gradient",  # nothing is saved; the expanded gradient is copied
            forward_backward(genkern.concat_elu, x), 3 * image, 5 * image + 2**10,
        ),
    ]  # fmt: skip


X = torch.ones(2, 6, 3, 4)
call = genkern.concat_elu
ERRORS = [
    (lambda: call([1.0]), TypeError, "concat_elu: input must be a Tensor; got list"),
    (lambda: call(X.int()), TypeError,
     "concat_elu: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X[0, 0, 0]), ValueError,
     r"concat_elu: input must have shape \(N, C, ...\); got \(4,\)"),
    (lambda: call(X, dim=1), TypeError, "dim"),
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
