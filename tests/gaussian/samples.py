"""What the shared tests need of the Gaussian ops."""

import torch

import genkern
from genkern import nn, random
from genkern.reference import gaussian as reference
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.gaussian import test_options as options
from tests.gaussian import values
from tests.gaussian.values import F64, check, fused, plain

FLOAT, SEED = 4, 8  # bytes


def sample(name, inputs, num_samples=None, free_bits=0.0):
    function, definition = fused(num_samples, free_bits), plain(free_bits)
    return Sample(
        name, function, definition, inputs, lambda *both: check(function, definition, *both)
    )


def drawn_noise(mu, shape):
    return random.philox_normal(random.draw_seed(mu.device), shape, F64)


def draw(mu, logvar):
    return genkern.gaussian_kl_rsample(mu, logvar, num_samples=2)


def draw_definition(mu, logvar):
    eps = drawn_noise(mu, (2, *mu.shape))
    return reference.rsample(mu, logvar, eps), reference.kl(mu, logvar)


def check_draw(inputs, upstream):
    torch.manual_seed(5)
    mu = inputs[0]
    eps = drawn_noise(mu, (2, *mu.shape))

    def drawn(mu, logvar, prior_mu, prior_logvar, eps):
        torch.manual_seed(5)
        return draw(mu, logvar)

    def definition(mu, logvar, prior_mu, prior_logvar, _):
        return plain(0.0)(mu, logvar, None, None, eps)

    # The normals are off by 2 ulp and, where sqrt(-2 log u) loses relative accuracy, by 1/8 of eps.
    sizes = eps.abs() + 0.125
    check(drawn, definition, [*inputs, None, None, sizes.to(mu.dtype)], upstream)


def pair(*shape):
    return lambda normal: [normal(*shape), normal(*shape), None, None, normal(*shape)]


def prior(normal):
    return [normal(3, 4, 5, 7) for _ in range(4)] + [normal(2, 3, 4, 5, 7)]


SMALL = [
    sample("kl_rsample", pair(3, 4, 5, 7)),
    sample("kl_rsample, prior, free bits, samples", prior, 2, 0.05),
    Sample(
        "noise drawn", draw, draw_definition, lambda normal: [normal(3, 4, 5, 7) for _ in range(2)],
        check_draw, noise=True,
    ),
    options.sample("one scale a channel, log_prob", (3, 4, 5), (4, 1), "softplus", 2, "density"),
    options.sample("elements, log_std", (3, 5, 7), (7,), "log_std", None, "elements"),
]  # fmt: skip
LARGE = [
    options.sample("channels, softplus, log_prob", (37, 21, 50), (21, 1), "softplus", 2, "density"),
    options.sample("one value, elements", (37, 1031), (), "log_std", None, "elements"),
    sample("rows", pair(37, 1031)),
    sample("a long row", pair(1, 50021)),
    sample("short rows", pair(301, 3)),
    sample("one column", pair(3, 1)),
    Sample(
        "noise drawn", draw, draw_definition, lambda normal: [normal(37, 1031) for _ in range(2)],
        check_draw, noise=True,
    ),
]  # fmt: skip


def peaks():
    mu, logvar = leaves((512, 300), (512, 300))
    z, kl = mu.numel() * FLOAT, 512 * FLOAT
    results = z + kl + SEED  # the noise is not kept, e^(l/2) neither
    dense = z + kl + 2 * FLOAT  # copies of the expanded gradients
    both = results + 2 * z
    many = 4 * z + SEED
    return [
        Peak("kl holds one number a row", lambda: genkern.gaussian_kl(mu, logvar), kl, kl),
        Peak(
            "kl_rsample saves arguments and seed",
            lambda: genkern.gaussian_kl_rsample(mu, logvar), results, results,
        ),
        Peak(
            "samples hold no copies of the arguments",
            lambda: genkern.gaussian_rsample(mu, logvar, num_samples=4), many, many,
        ),
        Peak(
            "and the gradients",
            forward_backward(genkern.gaussian_kl_rsample, mu, logvar), both, both + dense,
        ),
    ]  # fmt: skip


X = torch.ones(2, 3)
ERRORS = [
    (lambda: genkern.gaussian_kl([1.0], X), TypeError,
     "gaussian_kl: mu must be a Tensor; got list"),
    (lambda: genkern.gaussian_kl(X.int(), X), TypeError,
     "gaussian_kl: mu must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: genkern.gaussian_kl(X, X.double()), RuntimeError,
     "gaussian_kl: logvar must be float32 like mu; got float64"),
    (lambda: genkern.gaussian_kl(X, torch.ones(2, 4)), ValueError,
     r"gaussian_kl: logvar must have shape mu.shape = \(2, 3\) or broadcast to it; got \(2, 4\)"),
    (lambda: genkern.gaussian_kl(X, X.to("meta")), RuntimeError,
     "gaussian_kl: logvar must be on cpu like mu; got meta"),
    (lambda: genkern.gaussian_kl(X.sum(), X.sum()), ValueError, "mu must have a batch dimension"),
    (lambda: genkern.gaussian_kl(X, X, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum', 'elements'; got 'men' .did you mean 'mean'"),
    (lambda: genkern.gaussian_kl(X, X, free_bits=-1), ValueError,
     "gaussian_kl: free_bits must be at least 0; got -1"),
    (lambda: genkern.gaussian_kl(X, X, prior=X), TypeError,
     r"prior must be a pair \(mu, logvar\)"),
    (lambda: genkern.gaussian_kl(X, X, prior=(X, X[:, :2])), ValueError,
     r"prior\[1\] must have shape"),
    (lambda: genkern.gaussian_rsample(X, X, eps=torch.ones(3)), ValueError,
     r"gaussian_rsample: eps must have shape mu.shape = \(2, 3\); got \(3,\)"),
    (lambda: genkern.gaussian_rsample(X, X, num_samples=2.0), TypeError,
     "gaussian_rsample: num_samples must be an integer; got 2.0"),
    (lambda: genkern.gaussian_kl_rsample(X, X, num_samples=-1), ValueError,
     "gaussian_kl_rsample: num_samples must be at least 0; got -1"),
    (lambda: genkern.gaussian_kl(X, X, scale="std"), ValueError,
     "gaussian_kl: scale must be one of 'logvar', 'log_std', 'softplus'; got 'std'"),
    (lambda: genkern.gaussian_kl(X, X, free_bits_by="dim"), ValueError,
     "gaussian_kl: free_bits_by must be one of 'element', 'dimension', 'row'; got 'dim'"),
    (lambda: genkern.gaussian_kl(X, X, capacity=1, reduction="elements"), ValueError,
     "gaussian_kl: capacity must be None where reduction is 'elements'"),
    (lambda: genkern.gaussian_kl_rsample(X, X, beta=-1.0), ValueError,
     "gaussian_kl_rsample: beta must be at least 0; got -1.0"),
    (lambda: genkern.gaussian_kl(X, X, reducton="sum"), TypeError, "reducton"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_every_gradient_match_the_float64_reference,
        values.test_noise_is_the_philox_stream_in_logical_order,
        values.test_long_rows_are_summed_accurately,
        values.test_kl_near_the_prior_does_not_cancel,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: nn.GaussianLatent(free_bits=0.1), lambda normal: normal(4, 10), "free_bits=0.1"
        )
    ],
)
