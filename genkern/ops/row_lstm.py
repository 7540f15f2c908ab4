"""row_lstm: every row of a Row LSTM layer in one call; row_lstm_step: one row of it."""

from collections.abc import Sequence

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import row_lstm as reference

Tensor = torch.Tensor


def _results(input_gates, weight_hh, h0, c0, save):
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    dtype = spec.accumulation(input_gates.dtype)
    padded, rows = spec.padded(hidden, dtype), N if save else 0
    return (
        input_gates.new_empty(N, hidden, H, W),
        input_gates.new_empty(N, hidden, W),
        input_gates.new_empty(N, hidden, W),
        input_gates.new_empty(rows, H, 4 * padded, W, dtype=dtype),
        input_gates.new_empty(rows, H, padded, W, dtype=dtype),
    )


def _flops(input_gates, weight_hh, h0, c0, save) -> int:
    """Of the products with the state; the cell, without products of matrices, is not counted."""
    N, _, H, W = input_gates.shape
    rows = H if h0 is not None else H - 1  # no state is above the first one
    return 2 * N * rows * W * weight_hh.numel()


def _backward_flops(d_h, d_h_n, d_c_n, input_gates, weight_hh, h0, c0, gates, cells, *needs) -> int:
    products = 1 + needs[1]  # with the gradient of the state, and with that of the weight
    return products * _flops(input_gates, weight_hh, h0, c0, True)


_row_lstm = Family(
    "row_lstm",
    "(Tensor input_gates, Tensor weight_hh, Tensor? h0, Tensor? c0) -> (Tensor, Tensor, Tensor)",
    results=_results,
    reference=reference.forward,
    saved=("gates", "cells"),
    flops=(_flops, _backward_flops),
)


def _check(
    op: str, name: str, gates: Tensor, weight_hh: Tensor, names: Sequence, states: Sequence
) -> None:
    rows = "H, " if name == "input_gates" else ""
    given, shape = gates.shape, weight_hh.shape
    if len(given) != 3 + bool(rows):
        raise ValueError(f"{op}: {name} must have shape (N, 4h, {rows}W); got {tuple(given)}")
    if len(shape) != 3 or shape[0] != 4 * shape[1]:
        raise ValueError(f"{op}: weight_hh must have shape (4h, h, k); got {tuple(shape)}")
    if shape[2] % 2 == 0:
        raise ValueError(f"{op}: weight_hh must have an odd width k = shape[2]; got {tuple(shape)}")
    if given[1] != shape[0]:
        raise ValueError(
            f"{op}: {name}.shape[1] must equal weight_hh.shape[0] = {shape[0]}; "
            f"got {name} {tuple(given)}"
        )
    for state_name, state in zip(names, states, strict=False):
        expected = (given[0], shape[1], given[-1])
        checks.check_shape(op, state_name, state, expected, "(N, h, W)")


def row_lstm(
    input_gates: Tensor,
    weight_hh: Tensor,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    r"""All rows of a Row LSTM layer: a convolutional LSTM that runs down the image.

    .. math::
        [o, f, i, g]_r &= x_r + K^{ss} * h_{r-1} \\
        c_r &= \sigma(f_r) \odot c_{r-1} + \sigma(i_r) \odot \tanh(g_r) \\
        h_r &= \sigma(o_r) \odot \tanh(c_r)

    where * is a convolution along the row, zero padding, no mask: it sees earlier rows only.

    Equivalent to ``h, c = cell(input_gates[:, :, r] + F.conv1d(h, weight_hh, padding=k // 2), c)``
    for each row r, with the outputs stacked.

    Args:
        input_gates: (N, 4h, H, W), H > 0; the input's contribution to the gates and the bias, from
            a masked convolution; in the order o, f, i, g (output, forget, input, candidate).
        weight_hh: (4h, h, k), odd k, same gate order.
        h0, c0: (N, h, W), the state and the cell above the first row; both or neither (zeros).

    Any strides; float32, float64, bfloat16 or float16, all alike. Half precision is rounded where
    it is stored, in the results; h and c go from row to row in float32, but for bfloat16 on CPUs
    with AVX512-BF16: there h, and in the backward pass the gradient of the gates, are rounded as
    they are in the results before the recurrent products. Inside autocast, all arguments but
    float64 ones take the autocast dtype.

    Returns:
        ``(h, (h_n, c_n))``: the states (N, h, H, W), and state and cell of the last row (N, h, W),
        to be passed as ``h0`` and ``c0`` for further rows.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: a shape does not fit, H = 0, or only one of h0 and c0 is given.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times; the first derivative is fused, others run the formula.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.1.
    """
    op = "row_lstm"
    if (h0 is None) != (c0 is None):
        given, missing = ("h0", "c0") if c0 is None else ("c0", "h0")
        raise ValueError(f"{op}: h0 and c0 must be given together; got {given} and no {missing}")
    states: Sequence = () if h0 is None else (h0, c0)
    if not checks.are_plain(input_gates, weight_hh, *states):
        tensors = {"input_gates": input_gates, "weight_hh": weight_hh}
        tensors |= zip(("h0", "c0"), states, strict=False)
        input_gates, weight_hh, *states = checks.admit(op, checks.PRODUCT, tensors)
    _check(op, "input_gates", input_gates, weight_hh, ("h0", "c0"), states)
    if input_gates.shape[2] == 0:
        raise ValueError(
            f"{op}: input_gates.shape[2], the number of rows, must be larger than 0; "
            f"got input_gates {tuple(input_gates.shape)}"
        )
    h, h_n, c_n = _row_lstm(input_gates, weight_hh, *(states or (None, None)))
    return h, (h_n, c_n)


def row_lstm_step(
    input_gates_row: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """One row of a Row LSTM: `row_lstm` for H = 1.

    Equivalent to ``row_lstm(input_gates_row[:, :, None], weight_hh, h, c)[1]``.

    Args:
        input_gates_row: (N, 4h, W), gate order o, f, i, g.
        h, c: (N, h, W), state and cell of the row above.
        weight_hh: (4h, h, k), odd k.

    Returns:
        ``(h, c)`` of this row, (N, h, W).

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: a shape does not fit.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times. dtypes and Source: as `row_lstm`.
    """
    op = "row_lstm_step"
    tensors = {"input_gates_row": input_gates_row, "h": h, "c": c, "weight_hh": weight_hh}
    gates, h, c, weight_hh = checks.admit(op, checks.PRODUCT, tensors)
    _check(op, "input_gates_row", gates, weight_hh, ("h", "c"), (h, c))
    _, h_n, c_n = _row_lstm(gates[:, :, None], weight_hh, h, c)
    return h_n, c_n
