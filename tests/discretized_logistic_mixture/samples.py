"""What the shared tests need of the discretized logistic mixture."""

from functools import partial

import torch

import genkern
from genkern.reference import discretized_logistic_mixture as reference
from tests.core.samples import Peak, Sample, Samples, forward_backward, leaves
from tests.discretized_logistic_mixture import test_fifty_digits, values
from tests.discretized_logistic_mixture.values import check, integers, shaped

FLOAT = 4  # bytes


def of(N, colours, K, H, W, levels=256, last=False, dtype=torch.uint8):
    """A sample of the nll; the target belongs to the call."""
    target = integers((N, colours, H, W), levels, dtype)

    def inputs(normal):
        params = shaped(normal(N, reference.PARAMETERS[colours] * K, H, W), colours)
        return [params.to(memory_format=torch.channels_last) if last else params]

    def call(params):
        given = target.to(params.device)
        return genkern.discretized_logistic_mixture_nll(params, given, levels=levels)

    name = f"{colours} colours, {K} components, {H} x {W}, {levels} levels" + ", last" * last
    return Sample(
        name, call, lambda params: reference.nll(params, target.to(params.device), levels), inputs,
        lambda inputs, upstream: check(
            inputs, upstream, target.to(inputs[0].device), levels,
            function=lambda params, _, levels: call(params),
        ),
    )  # fmt: skip


SMALL = [
    of(3, 3, 2, 3, 5),
    of(2, 1, 3, 4, 3, levels=16, dtype=torch.int64),
    of(2, 3, 1, 3, 4, levels=1000, last=True, dtype=torch.int32),
]
LARGE = [
    of(5, 3, 7, 13, 31),
    of(3, 1, 2, 1, 1501, levels=2),
    of(3, 3, 3, 9, 23, last=True),
    of(1, 3, 1, 1, 1),
]


def peaks():
    (params,) = leaves((8, 50, 24, 20))
    target = integers((8, 3, 24, 20), 256, torch.uint8)
    call = partial(genkern.discretized_logistic_mixture_nll, target=target)
    nats, image = 8 * FLOAT, params.numel() * FLOAT
    scratch = 8 * 2**20 // 16  # blocks of two threads
    return [
        Peak("nats alone", lambda: call(params.detach()), nats, nats + scratch),
        Peak("keeps the gradients", lambda: call(params), nats + image, nats + image + scratch),
        Peak(
            "and scales them", forward_backward(call, params),
            nats + 2 * image, nats + 2 * image + scratch,
        ),
    ]  # fmt: skip


X, V = torch.ones(2, 30, 3, 4), torch.ones(2, 3, 3, 4, dtype=torch.uint8)
nll, sample = genkern.discretized_logistic_mixture_nll, genkern.discretized_logistic_mixture_sample
NLL, SAMPLE = "discretized_logistic_mixture_nll: ", "discretized_logistic_mixture_sample: "
ERRORS = [
    (lambda: nll([1.0], V), TypeError, NLL + "params must be a Tensor; got list"),
    (lambda: nll(X.int(), V), TypeError,
     NLL + "params must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: nll(X[0], V), ValueError,
     NLL + r"params must have shape \(N, C, H, W\); got \(30, 3, 4\)"),
    (lambda: nll(X[:, :29], V), ValueError,
     NLL + r"params.shape\[1\] must be a positive multiple of 10 for 3 colours; got 29"),
    (lambda: nll(X[:, :29], V[:, :1]), ValueError,
     NLL + r"params.shape\[1\] must be a positive multiple of 3 for 1 colour; got 29"),
    (lambda: nll(X, V.float()), TypeError,
     NLL + "target must be one of uint8, int32, int64; got float32"),
    (lambda: nll(X, V[:, :2]), ValueError,
     NLL + r"target must have shape \(N, 1 or 3, H, W\), .* \(2, 30, 3, 4\); got \(2, 2, 3, 4\)"),
    (lambda: nll(X, V[:1]), ValueError, r"target must have shape .* got \(1, 3, 3, 4\)"),
    (lambda: nll(X, V.to("meta")), RuntimeError,
     NLL + "target must be on cpu like params; got meta"),
    (lambda: nll(X, V, levels=1), ValueError,
     NLL + r"levels must be in \[2, 16777216\]; got 1"),
    (lambda: nll(X, V * 9, levels=9), ValueError,
     NLL + r"target must be in \[0, 8\]; got 9"),
    (lambda: nll(X, V, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: sample(X, data_channels=2), ValueError,
     SAMPLE + "data_channels must be 1 or 3; got 2"),
    (lambda: sample(X[:, :20], data_channels=1), ValueError,
     SAMPLE + r"params.shape\[1\] must be a positive multiple of 3 for 1 colour; got 20"),
    (lambda: sample(X, temperature=-1), ValueError, SAMPLE + r"temperature must be in \[0.0, "),
    (lambda: sample(X, levels=2.0), TypeError, SAMPLE + "levels must be an integer; got 2.0"),
    (lambda: sample(X, noise=torch.rand(2, 3, 3, 4)), ValueError,
     SAMPLE + r"noise must have shape \(N, 1 \+ data_channels, H, W\) = \(2, 4, 3, 4\); got"),
    (lambda: sample(X, noise=torch.rand(2, 4, 3, 4).double()), RuntimeError,
     SAMPLE + "noise must be float32 on cpu; got float64 on cpu"),
    (lambda: sample(X, noise=torch.rand(2, 4, 3, 4), generator=torch.Generator()), ValueError,
     SAMPLE + "generator must be None where noise is given; got both"),
    (lambda: sample(X, generator=3), TypeError,
     SAMPLE + "generator must be a torch.Generator; got int"),
]  # fmt: skip


def samples_do_not_depend_on_the_number_of_threads():
    params = shaped(torch.randn(3, 40, 17, 40), 3)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(sample(params, generator=torch.Generator().manual_seed(3)))
    torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_nats_and_gradients_match_the_float64_reference,
        values.test_sizes_around_the_blocks,
        test_fifty_digits.test_mixtures_of_coupled_colours_are_within_1e_5_nats_of_fifty_digits,
        values.test_samples_are_those_of_the_reference_for_the_same_noise,
        values.test_noise_is_the_philox_stream_in_logical_order,
        samples_do_not_depend_on_the_number_of_threads,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
)
