"""What the shared tests need of filtered_act."""

import functools

import torch

import genkern
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.filtered_act import values
from tests.filtered_act.values import DOWN, FILTERS, SQUARE, UP, check, defined

FLOAT = 4  # bytes


def sample(name, shape, biased=True, **options):
    options = FILTERS | {"padding": (4, 3)} | options

    def placed(x):
        filters = {k: options[k].to(x.device) for k in ("up_filter", "down_filter")}
        return options | filters

    return Sample(
        name,
        lambda x, b: genkern.filtered_act(x, b, **placed(x)),
        lambda x, b: defined(x, b, **options),
        lambda normal: [normal(*shape), normal(shape[1]) if biased else None],
        functools.partial(check, **options),
    )


SMALL = [
    sample("swish", (2, 2, 3, 4), act="swish", gain=1.5),
    sample("leaky, clamped", (1, 2, 4, 3), act="lrelu", clamp=0.9),
    sample("not separable", (1, 2, 4, 4), False, up_filter=SQUARE, down_filter=SQUARE, up=3,
           down=1, act="tanh", padding=1),
]  # fmt: skip
LARGE = [
    sample("leaky", (2, 3, 67, 21), act="lrelu", gain=2**0.5),
    sample("of one plane", (1, 1, 130, 17), act="elu", clamp=1.0),
    sample("many planes", (5, 17, 9, 11), act="sigmoid", up_filter=DOWN, down_filter=UP),
]


def peaks():
    x, b = leaves((2, 16, 64, 48), (16,))
    image, small = x.numel() * FLOAT, 2 * 2**17  # and the rows between the filters, of two threads
    call = functools.partial(genkern.filtered_act, **FILTERS, padding=(4, 3))
    return [
        Peak("the result", lambda: call(x, b), image, image + small),
        Peak(
            "and the gradients",  # nothing is saved; the expanded gradient is copied
            forward_backward(call, x, b), 2 * image, 3 * image + 2 * small,
        ),
    ]  # fmt: skip


X, B, F = torch.ones(2, 3, 4, 5), torch.ones(3), torch.ones(2)


def call(x=X, b=B, f=F, g=F, **options):
    return genkern.filtered_act(x, b, up_filter=f, down_filter=g, **options)


ERRORS = [
    (lambda: call([1.0]), TypeError, "filtered_act: input must be a Tensor; got list"),
    (lambda: call(X.int()), TypeError,
     "filtered_act: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X[0]), ValueError,
     r"filtered_act: input must have shape \(N, C, H, W\); got \(3, 4, 5\)"),
    (lambda: call(b=B[:2]), ValueError,
     r"filtered_act: bias must have shape \(input.shape\[1\],\) = \(3,\); got \(2,\)"),
    (lambda: call(b=B.double()), RuntimeError,
     "filtered_act: bias must be float32 like input; got float64"),
    (lambda: call(f=None), TypeError, "filtered_act: up_filter must be a Tensor; got NoneType"),
    (lambda: call(g=X), ValueError,
     r"filtered_act: down_filter must have shape \(taps,\) or \(height, width\), and elements"),
    (lambda: call(f=torch.ones(9)), ValueError,
     r"filtered_act: up_filter must be no larger than the padded image = \(8, 10\); got \(9, 9\)"),
    (lambda: call(g=torch.ones(8)), ValueError,
     r"filtered_act: down_filter must be no larger than the upsampled image = \(7, 9\); got "),
    (lambda: call(up=0), ValueError, r"filtered_act: up must be in \[1, 65535\]; got 0"),
    (lambda: call(padding=(1, 2, 3)), ValueError,
     r"filtered_act: padding must be an integer, a pair \(x, y\) or .*; got 3 numbers"),
    (lambda: call(act="leaky"), ValueError, "filtered_act: act must be one of 'linear', 'relu'"),
    (lambda: call(clamp=-1.0), ValueError, "filtered_act: clamp must be at least 0.0; got -1.0"),
    (lambda: call(gain="2"), TypeError, "filtered_act: gain must be a number; got '2'"),
    (lambda: call(slope=1), TypeError, "slope"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_gradients_match_the_float64_reference,
        values.test_sizes_around_the_blocks_of_rows,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
)
