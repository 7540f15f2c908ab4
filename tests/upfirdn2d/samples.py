"""What the shared tests need of upfirdn2d."""

import functools
import math

import torch

import genkern
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.upfirdn2d import values
from tests.upfirdn2d.values import BLUR, check, defined

FLOAT = 4  # bytes
WIDE = torch.linspace(-0.3, 1.0, 12)
SQUARE = torch.tensor([[1.0, 2.0, -1.0], [0.5, 4.0, 1.0]])


def sample(name, shape, **options):
    filter, rest = options["filter"], {k: v for k, v in options.items() if k != "filter"}
    call = lambda x: genkern.upfirdn2d(x, filter.to(x.device), **rest)  # noqa: E731

    definition = lambda x: defined(x, **options | {"filter": options["filter"].to(x)})  # noqa: E731
    inputs = lambda normal: [normal(*shape)]  # noqa: E731
    return Sample(name, call, definition, inputs, functools.partial(check, **options))


SMALL = [
    sample("twice as large", (2, 3, 4, 5), filter=BLUR, up=2, padding=(2, 1), gain=4.0),
    sample("half as large", (2, 1, 6, 7), filter=BLUR, down=2, padding=1),
    sample("blurred, alone", (2, 4, 5), filter=BLUR, padding=(1, 2, -1, 3)),
    sample("both, not separable", (1, 2, 3, 5), filter=SQUARE, up=3, down=2, padding=2),
]
LARGE = [
    sample("twice as large", (3, 5, 67, 33), filter=BLUR, up=2, padding=(2, 1), gain=4.0),
    sample("half as large", (3, 5, 132, 65), filter=BLUR, down=2, padding=1),
    sample("one plane", (1, 1, 300, 41), filter=WIDE, up=2, down=2, padding=(6, 5)),
    sample("not separable", (2, 3, 70, 19), filter=SQUARE, up=1, down=3, padding=(0, 2)),
]


def peaks():
    (x,) = leaves((2, 8, 64, 48))
    image, rows = x.numel() * FLOAT, 2**13  # and a few rows for each thread
    call = functools.partial(values.call, filter=BLUR, up=2, padding=(2, 1))
    return [
        Peak("the result", lambda: call(x), 4 * image, 4 * image + rows),
        Peak(
            "and the gradient",  # nothing is saved; the expanded gradient is copied
            forward_backward(call, x), 5 * image, 9 * image + rows,
        ),
    ]  # fmt: skip


X, F = torch.ones(2, 3, 4, 5), torch.ones(3)
call = genkern.upfirdn2d
ERRORS = [
    (lambda: call([1.0], F), TypeError, "upfirdn2d: input must be a Tensor; got list"),
    (lambda: call(X.int(), F), TypeError,
     "upfirdn2d: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X[0, 0], F), ValueError,
     r"upfirdn2d: input must have shape \(N, C, H, W\) or \(C, H, W\); got \(4, 5\)"),
    (lambda: call(X, None), TypeError, "upfirdn2d: filter must be a Tensor; got NoneType"),
    (lambda: call(X, X), ValueError,
     r"upfirdn2d: filter must have shape \(taps,\) or \(height, width\), and elements; got "),
    (lambda: call(X, F.clone().requires_grad_()), ValueError,
     "upfirdn2d: filter must be a constant; got one that requires grad"),
    (lambda: call(X, F, gain=math.nan), ValueError,
     "upfirdn2d: gain must be a number that is not NaN; got nan"),
    (lambda: call(X, F.to("meta")), RuntimeError,
     "upfirdn2d: filter must be on cpu like input; got meta"),
    (lambda: call(X, torch.ones(7), padding=1), ValueError,
     r"upfirdn2d: filter must be no larger than the padded image = \(6, 7\); got \(7, 7\)"),
    (lambda: call(X, F, up=0), ValueError, r"upfirdn2d: up must be in \[1, 65535\]; got 0"),
    (lambda: call(X, F, down=1.5), TypeError, "upfirdn2d: down must be an integer; got 1.5"),
    (lambda: call(X, F, up=10**9), ValueError,
     r"upfirdn2d: up must be in \[1, 65535\]; got 1000000000"),
    (lambda: call(X, F, padding=2**40), ValueError,
     r"upfirdn2d: padding must be in \[-2147483647, 2147483647\]; got 1099511627776"),
    (lambda: call(X, F, padding=2**31 - 1), ValueError,
     r"upfirdn2d: up and padding must make a result of at most 2\^40 pixels; got 4294967296 x "),
    (lambda: call(X[:1, :1, :1, :1].expand(64, 64, 4, 4), F, up=65535), RuntimeError,
     r"upfirdn2d: up and padding must make a result that fits into the memory; got \(64, 64, 262"),
    (lambda: call(X, F, padding=(1, 2, 3)), ValueError,
     r"upfirdn2d: padding must be an integer, a pair \(x, y\) or .*; got 3 numbers"),
    (lambda: call(X, F, padding=(1, 2.0)), TypeError,
     "upfirdn2d: padding must be an integer; got 2.0"),
    (lambda: call(X, F, flip=True), TypeError, "flip"),
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
