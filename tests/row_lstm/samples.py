"""What the shared tests need of row_lstm."""

import torch

import genkern
from genkern import nn
from genkern.reference import row_lstm as reference
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.row_lstm import values
from tests.row_lstm.values import check, fused

FLOAT = 4  # bytes
SLACK = 2**16  # alignment and rounding of scratch


def sample(name, N, hidden, H, W, k, states=True):
    def inputs(normal):
        gates = normal(N, 4 * hidden, H, W)
        weight = normal(4 * hidden, hidden, k, scale=1 / max(1, hidden * k) ** 0.5)
        start = [normal(N, hidden, W).tanh(), normal(N, hidden, W)] if states else [None, None]
        return [gates, weight, *start]

    return Sample(
        name, fused, reference.forward, inputs,
        lambda *both: check(fused, reference.forward, *both),
    )  # fmt: skip


SMALL = [
    sample("with states", 2, 3, 4, 5, 3),
    sample("without", 3, 5, 4, 7, 3, states=False),
]
# Few images, whose rows are divided; many; a weight gradient of each image, and of groups.
SHAPES = [
    (1, 64, 6, 29, 3), (1, 80, 4, 16, 3), (5, 17, 7, 11, 3), (70, 24, 3, 9, 5),
    (3, 128, 4, 12, 3), (300, 8, 3, 4, 3), (2, 17, 3, 13, 3), (1, 1, 2, 1, 1), (2, 40, 4, 20, 5),
]  # fmt: skip


def peaks():
    N, hidden, H, W = 2, 16, 64, 48
    gates, weight = leaves((N, 4 * hidden, H, W), (4 * hidden, hidden, 3))
    h, state = N * hidden * H * W * FLOAT, 2 * N * hidden * W * FLOAT
    layer = lambda gates, weight: genkern.row_lstm(gates, weight)[0]  # noqa: E731
    plain = lambda: torch.no_grad()(layer)(gates, weight)  # noqa: E731
    saved = 5 * h  # four gates and the cell
    d_gates, upstream, d_weight = 4 * h, h, weight.numel() * FLOAT
    rings = N * (2**20 + SLACK)  # rows of each image: about its cache
    both = h + state + saved + d_gates + upstream + rings + 2 * d_weight + SLACK
    return [
        Peak("without gradients", plain, h + state, h + state),
        Peak("saved", lambda: layer(gates, weight), h + state + saved, h + state + saved),
        Peak("gradients", forward_backward(layer, gates, weight), 0, both),
    ]


X, K, S = torch.ones(2, 12, 4, 5), torch.ones(12, 3, 3), torch.ones(2, 3, 5)
ERRORS = [
    (lambda: genkern.row_lstm([1.0], K), TypeError,
     "row_lstm: input_gates must be a Tensor; got list"),
    (lambda: genkern.row_lstm(X.int(), K), TypeError,
     "row_lstm: input_gates must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: genkern.row_lstm(X, K.double()), RuntimeError,
     "row_lstm: weight_hh must be float32 like input_gates; got float64"),
    (lambda: genkern.row_lstm(X, K.to("meta")), RuntimeError,
     "row_lstm: weight_hh must be on cpu like input_gates; got meta"),
    (lambda: genkern.row_lstm(X[0], K), ValueError,
     r"row_lstm: input_gates must have shape \(N, 4h, H, W\); got \(12, 4, 5\)"),
    (lambda: genkern.row_lstm(X, K[0]), ValueError,
     r"row_lstm: weight_hh must have shape \(4h, h, k\); got \(3, 3\)"),
    (lambda: genkern.row_lstm(X, K[:9]), ValueError,
     r"row_lstm: weight_hh must have shape \(4h, h, k\); got \(9, 3, 3\)"),
    (lambda: genkern.row_lstm(X, K[:, :, :2]), ValueError,
     r"row_lstm: weight_hh must have an odd width k = shape\[2\]; got \(12, 3, 2\)"),
    (lambda: genkern.row_lstm(X[:, :8], K), ValueError,
     r"row_lstm: input_gates.shape\[1\] must equal weight_hh.shape\[0\] = 12; got"),
    (lambda: genkern.row_lstm(X[:, :, :0], K), ValueError,
     "the number of rows, must be larger than 0"),
    (lambda: genkern.row_lstm(X, K, S), ValueError,
     "row_lstm: h0 and c0 must be given together; got h0 and no c0"),
    (lambda: genkern.row_lstm(X, K, None, S), ValueError, "got c0 and no h0"),
    (lambda: genkern.row_lstm(X, K, S, S[:1]), ValueError,
     r"row_lstm: c0 must have shape \(N, h, W\) = \(2, 3, 5\); got \(1, 3, 5\)"),
    (lambda: genkern.row_lstm(X, K, S.double(), S), RuntimeError,
     "row_lstm: h0 must be float32 like input_gates; got float64"),
    (lambda: genkern.row_lstm_step(X, S, S, K), ValueError,
     r"row_lstm_step: input_gates_row must have shape \(N, 4h, W\); got \(2, 12, 4, 5\)"),
    (lambda: genkern.row_lstm_step(X[:, :, 0], S, None, K), TypeError,
     "row_lstm_step: c must be a Tensor; got NoneType"),
    (lambda: nn.RowLSTM(4, 3, kernel_size=2), ValueError, "kernel_size must be odd; got 2"),
    (lambda: nn.RowLSTM(4, 0), ValueError, "RowLSTM: hidden_size must be at least 1; got 0"),
    (lambda: nn.RowLSTM(4, 3, mask_type="C"), ValueError, "mask_type must be one of 'A', 'B'"),
    (lambda: nn.RowLSTM(4, 3, mask_type="A"), ValueError, "residual must be False with mask_type"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=[sample(str(shape), *shape) for shape in SHAPES],
    everywhere=[
        values.test_values_and_every_gradient_match_the_float64_reference,
        values.test_states_that_are_fed_back_are_rounded_as_they_are_stored,
        values.test_half_precision_carries_the_state_in_float32,
        values.test_infinite_state_does_not_become_nan_through_unused_lanes,
        values.test_a_pixel_reaches_only_its_cone_and_nan_propagates,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: nn.RowLSTM(6, 4, mask_type="A", residual=False),
            lambda normal: normal(1, 6, 3, 5),
            "mask_type='A'",
        )
    ],
)
