"""diagonal_lstm: every pixel of one direction of a Diagonal BiLSTM layer in one call."""

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import diagonal_lstm as reference

Tensor = torch.Tensor


def _results(input_gates, weight_hh, h0, c0, reverse, save):
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    dtype = spec.accumulation(input_gates.dtype)
    padded, images = spec.padded(hidden, dtype), N if save else 0
    return (
        input_gates.new_empty(N, hidden, H, W),
        input_gates.new_empty(images, 4 * padded, H, W, dtype=dtype),
        input_gates.new_empty(images, padded, H, W, dtype=dtype),
    )


def _flops(input_gates, weight_hh, h0, c0, reverse, save) -> int:
    """Of the products with the state; the cell, without products of matrices, is not counted."""
    N, _, H, W = input_gates.shape
    left = H * (W if h0 is not None else W - 1)  # no state is left of the first column,
    above = (H - 1) * W  # and none above the first row
    return 2 * N * (left + above) * weight_hh[:, :, 0].numel()


def _backward_flops(d_h, input_gates, weight_hh, h0, c0, gates, cells, reverse, *needs) -> int:
    products = 1 + needs[1]  # with the gradient of the state, and with that of the weight
    return products * _flops(input_gates, weight_hh, h0, c0, reverse, True)


_diagonal_lstm = Family(
    "diagonal_lstm",
    "(Tensor input_gates, Tensor weight_hh, Tensor? h0, Tensor? c0, bool reverse) -> (Tensor)",
    results=_results,
    reference=lambda *arguments: (reference.forward(*arguments),),
    saved=("gates", "cells"),
    flops=(_flops, _backward_flops),
)


def _check(gates: Tensor, weight_hh: Tensor, h0: Tensor | None, c0: Tensor | None) -> None:
    op, given, shape = "diagonal_lstm", tuple(gates.shape), tuple(weight_hh.shape)
    if len(given) != 4:
        raise ValueError(f"{op}: input_gates must have shape (N, 4h, H, W); got {given}")
    if len(shape) != 3 or shape[0] != 4 * shape[1] or shape[2] != 2:
        raise ValueError(f"{op}: weight_hh must have shape (4h, h, 2); got {shape}")
    if given[1] != shape[0]:
        raise ValueError(
            f"{op}: input_gates.shape[1] must equal weight_hh.shape[0] = {shape[0]}; "
            f"got input_gates {given}"
        )
    for name, state in (("h0", h0), ("c0", c0)):
        if state is not None:
            checks.check_shape(op, name, state, (given[0], shape[1], given[2]), "(N, h, H)")


def diagonal_lstm(
    input_gates: Tensor,
    weight_hh: Tensor,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    r"""One direction of a Diagonal BiLSTM layer: each pixel has the states of the pixel above and
    of its left neighbour.

    .. math::
        [o, f, i, g]_{r,x} &= a_{r,x} + K_0 h_{r-1,x} + K_1 h_{r,x-1} \\
        c_{r,x} &= \sigma(f) \odot c_{r,x-1} + \sigma(i) \odot \tanh(g) \\
        h_{r,x} &= \sigma(o) \odot \tanh(c_{r,x})

    with a the input's contribution and 0 above the first row. All pixels of a diagonal
    r + x = constant are computed together; no skewed map is stored.

    Equivalent to skewing ``input_gates`` (row r moved r columns to the right), then for each
    column t ``h, c = cell(skewed[..., t] + F.conv1d(F.pad(h, (1, 0)), weight_hh), c)``, row r
    starting at t = r, and moving the rows back.

    Args:
        input_gates: (N, 4h, H, W); the input's contribution to the gates and the bias, from a
            masked 1 x 1 convolution; in the order o, f, i, g (output, forget, input, candidate).
        weight_hh: (4h, h, 2), same gate order; taps [row above, same row] at the previous diagonal.
        h0, c0: (N, h, H), the state and the cell with which each row starts, left of its first
            column (with ``reverse``, right of its last one); both or neither (zeros).
        reverse: mirrored left to right: the neighbour of pixel x is x + 1. The result stays in
            place: `genkern.nn.DiagonalBiLSTM` moves it down by one row, which makes it causal.

    On the paper's padded map row r runs over r columns of padding, whose gates are the bias, before
    its first pixel. It then starts with what an LSTM cell with the weight ``weight_hh.sum(2)`` has
    after r steps on the bias: given as ``h0`` and ``c0``, these starts give that map's values. (On
    a map whose gates are padded with zeros, state 0 stays 0, as without ``h0`` and ``c0``.)

    Any strides; float32, float64, bfloat16 or float16, all alike. Half precision is rounded where
    it is stored, in the result; h and c go from pixel to pixel in float32. Inside autocast, all
    arguments but float64 ones take the autocast dtype.

    Returns:
        The states h, (N, h, H, W).

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype; ``reverse`` is no bool.
        ValueError: a shape does not fit, or only one of h0 and c0 is given.
        RuntimeError: dtypes or devices differ.

    Differentiable any number of times; the first derivative is fused, others run the formula.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.2.
    """
    op = "diagonal_lstm"
    checks.check_bool(op, "reverse", reverse)
    if (h0 is None) != (c0 is None):
        given, missing = ("h0", "c0") if c0 is None else ("c0", "h0")
        raise ValueError(f"{op}: h0 and c0 must be given together; got {given} and no {missing}")
    if h0 is None or c0 is None:
        if not checks.are_plain(input_gates, weight_hh):
            tensors = {"input_gates": input_gates, "weight_hh": weight_hh}
            input_gates, weight_hh = checks.admit(op, checks.PRODUCT, tensors)
    elif not checks.are_plain(input_gates, weight_hh, h0, c0):
        tensors = {"input_gates": input_gates, "weight_hh": weight_hh, "h0": h0, "c0": c0}
        input_gates, weight_hh, h0, c0 = checks.admit(op, checks.PRODUCT, tensors)
    _check(input_gates, weight_hh, h0, c0)
    (h,) = _diagonal_lstm(input_gates, weight_hh, h0, c0, reverse)
    return h
