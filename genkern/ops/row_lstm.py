"""row_lstm: every row of a Row LSTM layer in one call; row_lstm_step: one row of it."""

import torch

from genkern import checks, library
from genkern.reference import differentiable_backward
from genkern.reference import row_lstm as reference

Tensor = torch.Tensor


def _forward_fake(input_gates, weight_hh, h0, c0, save):
    N, _, H, W = input_gates.shape
    hidden = weight_hh.shape[1]
    double = input_gates.dtype == torch.float64
    saved_dtype, lanes = (torch.float64, 8) if double else (torch.float32, 16)
    padded = (hidden + lanes - 1) // lanes * lanes
    rows = N if save else 0
    return (
        input_gates.new_empty(N, hidden, H, W),
        input_gates.new_empty(N, hidden, W),
        input_gates.new_empty(N, hidden, W),
        input_gates.new_empty(rows, H, 4 * padded, W, dtype=saved_dtype),
        input_gates.new_empty(rows, H, padded, W, dtype=saved_dtype),
    )


def _backward_fake(
    d_h, d_h_n, d_c_n, weight_hh, h0, c0, gates, cells, need_input, need_weight, need_h0, need_c0
):
    N, H, _, W = gates.shape
    hidden = weight_hh.shape[1]
    state = (N, hidden, W)
    return (
        weight_hh.new_empty((N, 4 * hidden, H, W) if need_input else 0),
        weight_hh.new_empty(weight_hh.shape if need_weight else 0),
        weight_hh.new_empty(state if need_h0 else 0),
        weight_hh.new_empty(state if need_c0 else 0),
    )


_forward = library.define(
    "row_lstm_forward(Tensor input_gates, Tensor weight_hh, Tensor? h0, Tensor? c0, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _forward_fake,
)
_backward = library.define(
    "row_lstm_backward(Tensor? d_h, Tensor? d_h_n, Tensor? d_c_n, Tensor weight_hh, Tensor? h0, "
    "Tensor? c0, Tensor gates, Tensor cells, bool need_input, bool need_weight, bool need_h0, "
    "bool need_c0) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward_fake,
)


class RowLSTMFunction(library.Function):
    @staticmethod
    def forward(ctx, input_gates, weight_hh, h0, c0):
        h, h_n, c_n, gates, cells = _forward(input_gates, weight_hh, h0, c0, True)
        ctx.save_for_backward(input_gates, weight_hh, h0, c0, gates, cells)
        ctx.set_materialize_grads(False)
        return h, h_n, c_n

    @staticmethod
    def backward(ctx, d_h, d_h_n, d_c_n):
        *inputs, gates, cells = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph: the formula is differentiable again
            return differentiable_backward(reference.forward, inputs, needs, (d_h, d_h_n, d_c_n))
        upstream = [d if d is None else d.contiguous() for d in (d_h, d_h_n, d_c_n)]
        found = _backward(*upstream, *inputs[1:], gates, cells, *needs)
        return tuple(d if need else None for d, need in zip(found, needs, strict=True))


def _cast(op: str, **tensors: Tensor) -> list[Tensor]:
    """Checks the types; inside autocast, everything but float64 takes the autocast dtype."""
    for name, tensor in tensors.items():
        checks.check_tensor(op, name, tensor)
    first = next(iter(tensors.values()))
    dtype = checks.autocast_dtype(first)
    if dtype is None or first.dtype == torch.float64:
        return list(tensors.values())
    return [t.to(dtype) for t in tensors.values()]


def _check(op: str, gates_name: str, gates: Tensor, weight_hh: Tensor, **states: Tensor) -> None:
    rows = "H, " if gates_name == "input_gates" else ""
    if gates.ndim != 3 + bool(rows):
        raise RuntimeError(
            f"{op}: {gates_name} must have shape (N, 4h, {rows}W); got {tuple(gates.shape)}"
        )
    checks.check_like(op, "weight_hh", weight_hh, gates_name, gates)
    shape = tuple(weight_hh.shape)
    if len(shape) != 3 or shape[0] != 4 * shape[1]:
        raise RuntimeError(f"{op}: weight_hh must have shape (4h, h, k); got {shape}")
    if shape[2] % 2 == 0:
        raise RuntimeError(f"{op}: weight_hh must have an odd width k = shape[2]; got {shape}")
    if gates.shape[1] != shape[0]:
        raise RuntimeError(
            f"{op}: {gates_name}.shape[1] must equal weight_hh.shape[0] = {shape[0]}; "
            f"got {gates_name} {tuple(gates.shape)}"
        )
    expected = (gates.shape[0], shape[1], gates.shape[-1])
    for name, state in states.items():
        checks.check_like(op, name, state, gates_name, gates)
        checks.check_shape(op, name, state, expected, "(N, h, W)")


def _run(
    input_gates: Tensor, weight_hh: Tensor, h0: Tensor | None, c0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if library.choose("row_lstm", input_gates) == "reference":
        return reference.forward(input_gates, weight_hh, h0, c0)
    inputs = [x if x is None else x.contiguous() for x in (input_gates, weight_hh, h0, c0)]
    if checks.needs_grad(*inputs):
        return RowLSTMFunction.apply(*inputs)
    return _forward(*inputs, False)[:3]


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
        TypeError: an argument is not a tensor of a supported dtype.
        RuntimeError: shapes, dtypes or devices do not fit, H = 0, or only one of h0 and c0 given.

    Differentiable any number of times; the first derivative is fused, others run the formula.
    Source: van den Oord et al. 2016, "Pixel recurrent neural networks", sec. 3.1.
    """
    op = "row_lstm"
    if (h0 is None) != (c0 is None):
        given, missing = ("h0", "c0") if c0 is None else ("c0", "h0")
        raise RuntimeError(f"{op}: h0 and c0 must be given together; got {given} and no {missing}")
    states = {} if h0 is None or c0 is None else {"h0": h0, "c0": c0}
    gates, weight_hh, *cast = _cast(op, input_gates=input_gates, weight_hh=weight_hh, **states)
    _check(op, "input_gates", gates, weight_hh, **dict(zip(states, cast, strict=True)))
    if gates.shape[2] == 0:
        raise RuntimeError(
            f"{op}: input_gates.shape[2], the number of rows, must be larger than 0; "
            f"got input_gates {tuple(gates.shape)}"
        )
    h0, c0 = cast or (None, None)
    h, h_n, c_n = _run(gates, weight_hh, h0, c0)
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
        TypeError: an argument is not a tensor of a supported dtype.
        RuntimeError: shapes, dtypes or devices do not fit.

    Differentiable any number of times. dtypes and Source: as `row_lstm`.
    """
    op = "row_lstm_step"
    gates, h, c, weight_hh = _cast(
        op, input_gates_row=input_gates_row, h=h, c=c, weight_hh=weight_hh
    )
    _check(op, "input_gates_row", gates, weight_hh, h=h, c=c)
    _, h_n, c_n = _run(gates[:, :, None], weight_hh, h, c)
    return h_n, c_n
