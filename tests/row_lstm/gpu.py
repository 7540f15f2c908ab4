"""What `make gpu` asks of row_lstm."""

import torch

import genkern
from benchmarks import row_lstm as cases
from genkern.reference import row_lstm as reference
from tests.gpu.kit import F64, Large, both, raises
from tests.row_lstm.values import check, fused, make


def _call(dtype):
    """Less than a tile, and several tiles of units and of columns; with and without a state."""
    for states, shape in (
        (True, (2, 3, 4, 5, 3)),
        (True, (2, 40, 3, 37, 3)),
        (False, (1, 16, 4, 9, 5)),
    ):
        inputs, upstream = make(*shape, dtype, states=states)
        check(fused, reference.forward, inputs, upstream)


def _step(dtype):
    """One row: the state and the cell alone have gradients."""
    inputs, upstream = make(3, 17, 1, 12, 3, dtype)
    check(fused, reference.forward, inputs, [None, *upstream[1:]])
    gates, weight, h, c = inputs
    for got, want in zip(
        genkern.row_lstm_step(gates[:, :, 0], h, c, weight), fused(*inputs)[1:], strict=True
    ):
        assert torch.equal(got, want)


CALLS = {"row_lstm": _call, "row_lstm_step": _step}


def headlines():
    """The timed cases that fill a GPU."""
    return [cases.layer_case(132, 64, 32)]


def batches_around_the_limit_of_the_other_grid_axes():
    for N in (65_535, 65_536, 65_537):
        gates, weight = torch.randn(N, 4, 2, 3, dtype=F64), torch.randn(4, 1, 3, dtype=F64)
        both(
            lambda g, w: genkern.row_lstm(g, w)[0],
            lambda g, w: reference.forward(g, w)[0],
            [gates, weight], [torch.randn(N, 1, 2, 3, dtype=F64)], terms=6 * N, scale=8.0,
        )  # fmt: skip


def tensors_on_different_devices_are_named():
    gates, weight = torch.ones(1, 4, 2, 3), torch.ones(4, 1, 3).cpu()
    text = "weight_hh must be on cuda:0 like input_gates; got cpu"
    raises(RuntimeError, text, lambda: genkern.row_lstm(gates, weight))


CHECKS = [batches_around_the_limit_of_the_other_grid_axes, tensors_on_different_devices_are_named]

STEPS = {
    "a layer": (
        lambda gates, weight, h0, c0: genkern.row_lstm(gates, weight / 10, h0, c0)[0],
        [(16, 128, 28, 28), (128, 32, 3), (16, 32, 28), (16, 32, 28)],
    ),
}

LARGE = {
    "states": Large(
        lambda gates, w: genkern.row_lstm(gates, w / 8)[:1],
        lambda gates, w: reference.forward(gates, w / 8)[:1],
        [(2**16 + 1, 64, 2, 256)], [(64, 16, 3)],
        [(48, 64.0), (4 * 48, 64.0), (4 * 48 * 512, 64.0)], 48,
    ).check,
}  # fmt: skip
