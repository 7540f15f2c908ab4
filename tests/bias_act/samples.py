"""What the shared tests need of bias_act."""

import functools

import torch

import genkern
from genkern.reference import bias_act as reference
from tests.bias_act import values
from tests.bias_act.values import check
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves

FLOAT = 4  # bytes


def sample(name, shape, channels=None, last=False, **options):
    def inputs(normal):
        x = normal(*shape)
        bias = None if channels is None else normal(channels)
        return [x.to(memory_format=torch.channels_last) if last else x, bias]

    return Sample(
        name,
        lambda *tensors: genkern.bias_act(*tensors, **options),
        functools.partial(reference.forward, **options),
        inputs,
        functools.partial(check, **options),
    )


SMALL = [
    sample("swish of an image", (2, 5, 3, 4), 5, act="swish", gain=1.5),
    sample("leaky, clamped, channels last", (2, 6, 3, 2), 6, last=True, act="lrelu", clamp=0.9),
    sample("tanh along rows", (3, 5), 5, act="tanh", dim=-1),
    sample("gelu without a bias", (2, 3, 4), act="gelu", clamp=0.75),
    sample("softplus along dim 0", (3, 4), 3, act="softplus", dim=0),
]
LARGE = [
    sample("planes", (9, 17, 17, 31), 17, act="lrelu", gain=2**0.5),
    sample("long planes", (2, 2, 9001), 2, act="sigmoid"),
    sample("channels last", (5, 66, 9, 31), 66, last=True, act="elu"),
    sample("many channels", (3, 4999), 4999, act="selu", clamp=1.0),
    sample("one value", (1, 1), 1, act="relu"),
]


def peaks():
    x, b = leaves((2, 32, 64, 48), (32,))
    image, small = x.numel() * FLOAT, 2**10
    call = functools.partial(genkern.bias_act, act="lrelu")
    return [
        Peak("the result", lambda: call(x, b), image, image),
        Peak(
            "and the gradients",  # nothing is saved; the expanded gradient is copied
            forward_backward(call, x, b), 2 * image, 3 * image + small,
        ),
    ]  # fmt: skip


X, B = torch.ones(2, 6, 3, 4), torch.ones(6)
call = genkern.bias_act
ERRORS = [
    (lambda: call([1.0]), TypeError, "bias_act: input must be a Tensor; got list"),
    (lambda: call(X.int()), TypeError,
     "bias_act: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X, B.double()), RuntimeError,
     "bias_act: bias must be float32 like input; got float64"),
    (lambda: call(X, B[:3]), ValueError,
     r"bias_act: bias must have shape \(input.shape\[1\],\) = \(6,\); got \(3,\)"),
    (lambda: call(X, B, dim=2), ValueError,
     r"bias_act: bias must have shape \(input.shape\[2\],\) = \(3,\); got \(6,\)"),
    (lambda: call(X, B, dim=4), ValueError, r"bias_act: dim must be in \[-4, 3\]; got 4"),
    (lambda: call(X, act="leaky"), ValueError, "bias_act: act must be one of 'linear', 'relu'"),
    (lambda: call(X, clamp=-1.0), ValueError, "bias_act: clamp must be at least 0.0; got -1.0"),
    (lambda: call(X, gain="2"), TypeError, "bias_act: gain must be a number; got '2'"),
    (lambda: call(X, alpha=None), TypeError, "bias_act: alpha must be a number; got NoneType"),
    (lambda: call(X, slope=1), TypeError, "slope"),
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
