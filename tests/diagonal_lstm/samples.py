"""What the shared tests need of diagonal_lstm."""

import torch

import genkern
from genkern import nn
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.diagonal_lstm import values
from tests.diagonal_lstm.values import check, defined, fused

FLOAT = 4  # bytes
SLACK = 2**16  # alignment and rounding of scratch


def sample(name, N, hidden, H, W, states=True, reverse=False):
    def inputs(normal):
        gates = normal(N, 4 * hidden, H, W)
        weight = normal(4 * hidden, hidden, 2, scale=1 / max(1, 2 * hidden) ** 0.5)
        start = [normal(N, hidden, H).tanh(), normal(N, hidden, H)] if states else [None, None]
        return [gates, weight, *start]

    call, definition = fused(reverse), defined(reverse)
    return Sample(
        name, call, definition, inputs, lambda *both: check(call, definition, *both, reverse)
    )


SMALL = [
    sample("with states", 2, 3, 3, 4),
    sample("reversed", 3, 5, 4, 3, states=False, reverse=True),
]
# Wide, tall; one block of units and several; groups of images in the weight's gradient.
SHAPES = [
    (1, 64, 6, 29), (5, 17, 11, 7), (70, 24, 3, 9), (3, 40, 4, 12), (2, 1, 2, 1), (9, 3, 1, 33),
]  # fmt: skip


def peaks():
    N, hidden, H, W = 8, 16, 24, 32
    gates, weight = leaves((N, 4 * hidden, H, W), (4 * hidden, hidden, 2))
    h = N * hidden * H * W * FLOAT
    image = h // N
    threads = min(N, torch.get_num_threads())
    plain = lambda: torch.no_grad()(genkern.diagonal_lstm)(gates, weight)  # noqa: E731
    saved, d_gates = 5 * h, 4 * h  # four gates and the cell
    rows = threads * (15 * hidden * (H + 1) * FLOAT + SLACK)
    forward = threads * 5 * image + rows  # the gates and the state of the images in work
    backward = threads * (4 * image + hidden * (H + 1) * (W + 1) * FLOAT) + rows
    sums = (N + 2) * weight.numel() * FLOAT
    return [
        Peak("without gradients", plain, h, h + forward),
        Peak(
            "saved", lambda: genkern.diagonal_lstm(gates, weight), h + saved, h + saved + forward
        ),
        Peak(
            "gradients", forward_backward(genkern.diagonal_lstm, gates, weight), 0,
            h + saved + d_gates + h + backward + sums + SLACK,
        ),
    ]  # fmt: skip


X, K, S = torch.ones(2, 12, 4, 5), torch.ones(12, 3, 2), torch.ones(2, 3, 4)
call = genkern.diagonal_lstm
ERRORS = [
    (lambda: call([1.0], K), TypeError,
     "diagonal_lstm: input_gates must be a Tensor; got list"),
    (lambda: call(X.int(), K), TypeError,
     "diagonal_lstm: input_gates must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(X, K.double()), RuntimeError,
     "diagonal_lstm: weight_hh must be float32 like input_gates; got float64"),
    (lambda: call(X, K.to("meta")), RuntimeError,
     "diagonal_lstm: weight_hh must be on cpu like input_gates; got meta"),
    (lambda: call(X[0], K), ValueError,
     r"diagonal_lstm: input_gates must have shape \(N, 4h, H, W\); got \(12, 4, 5\)"),
    (lambda: call(X, K[0]), ValueError,
     r"diagonal_lstm: weight_hh must have shape \(4h, h, 2\); got \(3, 2\)"),
    (lambda: call(X, torch.ones(12, 3, 3)), ValueError,
     r"diagonal_lstm: weight_hh must have shape \(4h, h, 2\); got \(12, 3, 3\)"),
    (lambda: call(X, K[:9]), ValueError,
     r"diagonal_lstm: weight_hh must have shape \(4h, h, 2\); got \(9, 3, 2\)"),
    (lambda: call(X[:, :8], K), ValueError,
     r"diagonal_lstm: input_gates.shape\[1\] must equal weight_hh.shape\[0\] = 12; got"),
    (lambda: call(X, K, S), ValueError,
     "diagonal_lstm: h0 and c0 must be given together; got h0 and no c0"),
    (lambda: call(X, K, None, S), ValueError, "got c0 and no h0"),
    (lambda: call(X, K, S, S[:1]), ValueError,
     r"diagonal_lstm: c0 must have shape \(N, h, H\) = \(2, 3, 4\); got \(1, 3, 4\)"),
    (lambda: call(X, K, S.double(), S), RuntimeError,
     "diagonal_lstm: h0 must be float32 like input_gates; got float64"),
    (lambda: call(X, K, reverse=1), TypeError,
     "diagonal_lstm: reverse must be a bool; got 1"),
    (lambda: nn.DiagonalBiLSTM(4, 0), ValueError,
     "DiagonalBiLSTM: hidden_size must be at least 1; got 0"),
    (lambda: nn.DiagonalBiLSTM(4, 3, data_channels=4), ValueError,
     r"DiagonalBiLSTM: data_channels must be in \[1, 3\]; got 4"),
    (lambda: nn.DiagonalBiLSTM(4, 3, residual="no"), TypeError,
     "DiagonalBiLSTM: residual must be a bool; got 'no'"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=[
        sample(f"{shape}", *shape, states=i % 3 > 0, reverse=i % 2 == 1)
        for i, shape in enumerate(SHAPES)
    ],
    everywhere=[
        values.test_values_and_every_gradient_match_the_float64_reference,
        values.test_half_precision_carries_the_state_in_float32,
        values.test_infinite_states_do_not_become_nan_through_unused_lanes,
        values.test_reverse_is_the_mirror_image,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: nn.DiagonalBiLSTM(6, 4, data_channels=3),
            lambda normal: normal(1, 6, 3, 5),
            "data_channels=3",
        )
    ],
)
