"""What the shared tests need of pixel_cross_entropy."""

from functools import partial

import torch

import genkern
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.pixel_cross_entropy import values
from tests.pixel_cross_entropy.values import check, fused, integers, plain

FLOAT = 4  # bytes
SLACK = 2**16  # alignment, and what small scratch is rounded up to


def sample(name, image, levels, K=None, bias=True, last=False, four=False, **options):
    """``image`` (N, colours, H, W); features of ``K`` channels, or logits where it is None."""
    N, colours, *plane = image
    options |= {"data_channels": colours}
    target = integers(levels, image, torch.uint8)

    def inputs(normal):
        rows = levels * colours
        found = normal(N, rows if K is None else K, *plane)
        if last:
            found = found.to(memory_format=torch.channels_last)
        if K is None:
            return [found]
        weight = normal(rows, K, 1, 1) if four else normal(rows, K)
        return [found, weight, normal(rows) if bias else None]

    return Sample(
        name, fused(target, **options), plain(target, **options), inputs,
        partial(check, target=target, **options), weights=() if K is None else (1, 2),
    )  # fmt: skip


SMALL = [
    sample("features, masked", (3, 3, 3, 5), 6, K=7, masked=True),
    sample("logits", (3, 2, 3, 5), 9),
    sample("features, channels last", (2, 1, 3, 5), 5, K=4, last=True, bias=False, four=True),
    sample("logits, channels last, mean", (2, 3, 2, 5), 10, last=True, reduction="mean"),
]
LARGE = [
    sample("features, masked", (5, 3, 9, 31), 70, K=35, masked=True),
    sample("features", (2, 1, 40, 33), 66, K=17),
    sample("features, channels last", (3, 2, 17, 19), 10, K=40, last=True),
    sample("one pixel, many levels", (1, 1, 1, 1), 1000, K=3),
    sample("logits", (3, 3, 17, 61), 37),
    sample("logits, channels last", (2, 2, 9, 67), 41, last=True),
    sample("logits, whole vectors", (9, 1, 16, 16), 17),
]


def peaks():
    """Nothing of the size of the logits is held where a head makes them."""
    N, K, rows, side = 2, 24, 3 * 128, 64
    target = integers(128, (N, 3, side, side), torch.uint8)
    x, w, b = leaves((N, K, side, side), (rows, K), (rows,))
    call = partial(genkern.pixel_cross_entropy, data_channels=3)
    logits, features, weight = N * rows * side**2 * FLOAT, x.numel() * FLOAT, w.numel() * FLOAT
    saved = 2 * target.numel() * FLOAT  # of each pixel and colour: the maximum, and a factor
    gradients = features + 2 * weight + saved
    (a,) = leaves((N, rows, side, side))
    return [
        Peak("features", lambda: call(x.detach(), target, w, b), 0, weight + SLACK * 4),
        Peak(
            "features, gradients", forward_backward(lambda *t: call(t[0], target, *t[1:]), x, w, b),
            features, gradients + logits // 8 + SLACK * 4,
        ),
        Peak("logits", lambda: call(a.detach(), target), N * FLOAT, N * FLOAT + SLACK),
        Peak(
            "logits, gradients", forward_backward(lambda t: call(t, target), a),
            logits, logits + saved + SLACK,
        ),
    ]  # fmt: skip


X, T, WEIGHT = torch.ones(2, 6, 3, 4), torch.ones(2, 1, 3, 4, dtype=torch.int64), torch.ones(8, 6)
BIAS = torch.ones(8)
call = genkern.pixel_cross_entropy
ERRORS = [
    (lambda: call([1.0], T), TypeError,
     "pixel_cross_entropy: features must be a Tensor; got list"),
    (lambda: call(X.int(), T), TypeError,
     "pixel_cross_entropy: features must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X, None), TypeError,
     "pixel_cross_entropy: target must be a Tensor; got NoneType"),
    (lambda: call(X, T.float()), TypeError,
     "pixel_cross_entropy: target must be one of uint8, int16, int32, int64; got float32"),
    (lambda: call(X, T.to("meta")), RuntimeError,
     "pixel_cross_entropy: target must be on cpu like features; got meta"),
    (lambda: call(X, T.to_sparse()), TypeError,
     "pixel_cross_entropy: target must be a dense Tensor; got torch.sparse_coo"),
    (lambda: call(X, T[:, 0]), ValueError,
     r"target must have shape \(N, data_channels, H, W\) = \(2, 1, 3, 4\); got \(2, 3, 4\)"),
    (lambda: call(X, 6 * T), ValueError, r"target must be in \[0, 5\]; got 6"),
    (lambda: call(X, T - 2, WEIGHT), ValueError, r"target must be in \[0, 7\]; got -1"),
    (lambda: call(X, T + 2**32), ValueError, r"target must be in \[0, 5\]; got 4294967297"),
    (lambda: call(X, T, WEIGHT.double()), RuntimeError,
     "pixel_cross_entropy: weight must be float32 like features; got float64"),
    (lambda: call(X, T, WEIGHT, BIAS.to("meta")), RuntimeError,
     "pixel_cross_entropy: bias must be on cpu like features; got meta"),
    (lambda: call(X[0], T), ValueError,
     r"features must have shape \(N, data_channels \* levels, H, W\) or \(N, levels, "
     r"data_channels, H, W\); got \(6, 3, 4\)"),
    (lambda: call(X[0], T, WEIGHT), ValueError,
     r"features must have shape \(N, C_in, H, W\); got \(6, 3, 4\)"),
    (lambda: call(X, T, WEIGHT[0]), ValueError,
     r"weight must have shape \(levels \* data_channels, C_in\), or that and \(1, 1\); got \(6,\)"),
    (lambda: call(X, T, WEIGHT[:, :5]), ValueError,
     r"weight.shape\[1\] must equal the channels of features = 6; got weight \(8, 5\)"),
    (lambda: call(X, T, WEIGHT, BIAS[1:]), ValueError,
     r"bias must have shape \(weight.shape\[0\],\) = \(8,\); got \(7,\)"),
    (lambda: call(X, T, None, BIAS), ValueError, "bias must be None where weight is None"),
    (lambda: call(X, T, WEIGHT, data_channels=3), ValueError,
     r"weight.shape\[0\] must be levels \* data_channels, a multiple of 3 and at least that; "
     "got 8"),
    (lambda: call(X, T, data_channels=4), ValueError, r"features.shape\[1\] must be levels \*"),
    (lambda: call(X[:, :, None], T, data_channels=2), ValueError,
     r"data_channels must equal features.shape\[2\] = 1; got 2"),
    (lambda: call(X, T, data_channels=0), ValueError, "data_channels must be at least 1; got 0"),
    (lambda: call(X, T, masked=True), ValueError, "masked must be False where weight is None"),
    (lambda: call(X, T, WEIGHT, masked=1), TypeError, "masked must be a bool; got 1"),
    (lambda: call(X, T, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: call(X, T, levels=6), TypeError, "levels"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_logits_match_the_float64_reference,
        values.test_features_match_the_float64_reference,
        values.test_sizes_around_the_blocks,
        values.test_what_a_colour_does_not_see_never_leaks_and_gets_no_gradient,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
)
