"""What the shared tests need of the likelihoods."""

import torch

import genkern
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.likelihoods import test_fifty_digits, values
from tests.likelihoods.values import check, events, fused, integers, masked, plain

FLOAT = 4  # bytes


def sample(name, kind, shape, scale=None, samples=None, mask=False, levels=16):
    """One likelihood of (N, ...), or of so many samples of it; ``scale`` is the shape of one."""
    whole = shape if samples is None else (samples, *shape)

    def inputs(normal):
        location, spread = normal(*whole), None if scale is None else normal(*scale)
        if kind == "logistic":
            return [location, spread, None]
        target = normal(*shape)
        return [location, spread, target if kind == "gaussian" else events(target)]

    options = {"levels": levels, "fixed": -0.4}  # drawn once: transforms allow no noise in a call
    options |= {"mask": masked(shape)} if mask else {}
    options |= {"target": integers(shape, levels)} if kind == "logistic" else {}
    return Sample(
        name, fused(kind, **options), plain(kind, **options), inputs,
        lambda inputs, upstream: check((kind, options), inputs, upstream),
    )  # fmt: skip


IMAGE = (3, 2, 5, 4)
SMALL = [
    sample("gaussian, learned", "gaussian", IMAGE, IMAGE),
    sample("bernoulli", "bernoulli", IMAGE),
    sample("logistic, masked", "logistic", IMAGE, IMAGE, mask=True),
    sample("continuous", "continuous", IMAGE, mask=True),
    sample("gaussian, shared", "gaussian", (3, 7), (1,), mask=True),
    sample("gaussian, fixed, samples", "gaussian", (2, 5), samples=3),
    sample("bernoulli, samples", "bernoulli", (2, 9), samples=3, mask=True),
    sample("logistic, a scale a channel", "logistic", (2, 3, 4), (3, 1), samples=2),
]
LARGE = [
    sample("bernoulli", "bernoulli", (301, 77)),
    sample("bernoulli, long rows", "bernoulli", (2, 20_011)),
    sample("continuous", "continuous", (33, 1103), mask=True),
    sample("gaussian", "gaussian", (301, 77), (301, 77)),
    sample("gaussian, shared", "gaussian", (37, 1301), (1,)),
    sample("gaussian, samples", "gaussian", (7, 1501), (1,), samples=3),
    sample("logistic", "logistic", (151, 79), (151, 79), levels=256),
    sample("logistic, samples", "logistic", (5, 1033), (3, 5, 1033), samples=3, mask=True),
    sample("one element", "gaussian", (1, 1), (1, 1)),
]


def peaks():
    a, b = leaves((200, 600), (200, 600))
    x, v = torch.rand(200, 600), torch.randint(0, 256, (200, 600), dtype=torch.uint8)
    nats, image, small = 200 * FLOAT, a.numel() * FLOAT, 2**17
    learned = lambda a, b: genkern.gaussian_nll(a, b, x)  # noqa: E731
    logistic = lambda a, b: genkern.discretized_logistic_nll(a, b, v)  # noqa: E731
    bernoulli = lambda a: genkern.bernoulli_nll(a, x)  # noqa: E731
    return [
        Peak("nats alone", lambda: bernoulli(a), nats, nats + small),
        Peak("and a gradient", forward_backward(bernoulli, a), nats + image, nats + image + small),
        Peak("two gradients", forward_backward(learned, a, b), nats + 2 * image,
             nats + 2 * image + small),
        Peak("slopes that are kept, and two gradients", forward_backward(logistic, a, b),
             nats + 4 * image, nats + 4 * image + small),
    ]  # fmt: skip


X, V = torch.ones(2, 6), torch.ones(2, 6, dtype=torch.uint8)
bernoulli, gaussian = genkern.bernoulli_nll, genkern.gaussian_nll
logistic, optimal = genkern.discretized_logistic_nll, genkern.gaussian_optimal_logvar
ERRORS = [
    (lambda: bernoulli([1.0], X), TypeError, "bernoulli_nll: logits must be a Tensor; got list"),
    (lambda: bernoulli(X, X.bool()), TypeError,
     "bernoulli_nll: target must be one of float32, float64, bfloat16, float16; got bool"),
    (lambda: bernoulli(X, X.double()), RuntimeError,
     "bernoulli_nll: target must be float32 like logits; got float64"),
    (lambda: bernoulli(X, X.to("meta")), RuntimeError,
     "bernoulli_nll: target must be on cpu like logits; got meta"),
    (lambda: bernoulli(X[0, 0], X[0, 0]), ValueError,
     "bernoulli_nll: logits must have a batch dimension; got a 0-dimensional tensor"),
    (lambda: bernoulli(X, X[:1]), ValueError,
     r"bernoulli_nll: target must have the shape \(N, ...\) of logits, or .*; "
     r"got \(1, 6\) for \(2, 6\)"),
    (lambda: bernoulli(X, X[0]), ValueError, r"got \(6,\) for \(2, 6\)"),
    (lambda: bernoulli(X, X, continuous=1), TypeError,
     "bernoulli_nll: continuous must be a bool; got 1"),
    (lambda: bernoulli(X, X, mask=X), TypeError,
     "bernoulli_nll: mask must be bool, True where an element counts; got float32"),
    (lambda: bernoulli(X, X, mask=3), TypeError,
     "bernoulli_nll: mask must be a dense Tensor; got int"),
    (lambda: bernoulli(X, X, mask=X.bool().to("meta")), RuntimeError,
     "bernoulli_nll: mask must be on cpu; got meta"),
    (lambda: bernoulli(X, X, mask=X[:, :5].bool()), ValueError,
     r"bernoulli_nll: mask must have the shape of target = \(2, 6\), or .* got \(2, 5\)"),
    (lambda: bernoulli(X, X, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: gaussian(X, "x", X), TypeError, "gaussian_nll: logvar must be a number; got 'x'"),
    (lambda: gaussian(X, float("nan"), X), ValueError, "gaussian_nll: logvar must be .* got nan"),
    (lambda: gaussian(X, X.half(), X), RuntimeError,
     "gaussian_nll: logvar must be float32 like mean; got float16"),
    (lambda: gaussian(X, X[:, :4], X), ValueError,
     r"gaussian_nll: logvar must have the shape of mean = \(2, 6\), or .* got \(2, 4\)"),
    (lambda: gaussian(X, X[None], X), ValueError, r"got \(1, 2, 6\)"),
    (lambda: optimal(X, X[0]), ValueError,
     "gaussian_optimal_logvar: target must have the shape"),
    (lambda: logistic(X, X, X), TypeError,
     "discretized_logistic_nll: target must be one of uint8, int32, int64; got float32"),
    (lambda: logistic(X, X[:, :5], V), ValueError,
     r"discretized_logistic_nll: log_scale must have the shape of mean = \(2, 6\), or .*"),
    (lambda: logistic(X, X, V, levels=1), ValueError,
     r"discretized_logistic_nll: levels must be in \[2, 16777216\]; got 1"),
    (lambda: logistic(X, X, V * 9, levels=9), ValueError,
     r"discretized_logistic_nll: target must be in \[0, 8\]; got 9"),
    (lambda: logistic(X, X, V.to("meta")), RuntimeError,
     "discretized_logistic_nll: target must be on cpu like mean; got meta"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_nats_and_gradients_match_the_float64_reference,
        values.test_rows_of_many_lengths,
        values.test_samples_share_their_target,
        test_fifty_digits.test_every_likelihood_against_fifty_digits,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
)
