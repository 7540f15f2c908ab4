"""The Triton kernels of row_lstm in the interpreter, through their launchers."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from tests.core.strategies import DTYPES, sizes, tensors
from tests.core.tolerance import assert_close

pytest.importorskip("triton")
import genkern
from genkern.reference import row_lstm as reference
from genkern.triton_kernels import row_lstm as kernels
from genkern.triton_kernels.row_lstm import plan
from tests.core.triton_kit import (
    few_examples,
    interpreted,
    launches,
    only_program,
    resolved,
    small_tiles,
)

NEEDS = (True, True, True, True)
NAMES = ("d_input_gates", "d_weight_hh", "d_h0", "d_c0")


def forward(gates, weight, h0=None, c0=None, save=True):
    return resolved(kernels.LAUNCHERS["row_lstm_forward"])(gates, weight, h0, c0, save)


def backward(upstream, inputs, saved, needs=NEEDS):
    return resolved(kernels.LAUNCHERS["row_lstm_backward"])(*upstream, *inputs, *saved, *needs)


def definition(inputs, upstream):
    """Outputs and gradients in float64; zeros where nothing depends on an input."""
    leaves = [x if x is None else x.double().requires_grad_() for x in inputs]
    outputs = reference.forward(*leaves)
    pairs = [(y, d.double()) for y, d in zip(outputs, upstream, strict=True) if d is not None]
    wanted = [x for x in leaves if x is not None]
    found = iter(
        torch.autograd.grad(
            [y for y, _ in pairs], wanted, [d for _, d in pairs], materialize_grads=True
        )
    )
    return [y.detach() for y in outputs], [None if x is None else next(found) for x in leaves]


def scales(inputs, upstream, d_gates):
    """Bounds on what is summed: by an output, by a gradient of the gates, by one of the weight.

    |h| <= max(1, |h0|), |c| <= |c0| + H, and no factor along the cell is above 1, so that the
    errors of the rows add up; through the state they pass scaled by the weight's absolute sum.
    """
    gates, weight, h0, c0 = inputs
    largest = [0.0 if x is None else x.double().abs().max().item() for x in (gates, h0, c0)]
    through = weight.double().abs().sum((1, 2)).max().item()
    rows = gates.shape[2] * (1 + through) ** 2
    output = (largest[0] + through * max(1.0, largest[1]) + largest[2] + 1) * rows
    sent = sum(0.0 if d is None else d.double().abs().max().item() for d in upstream)
    gradient = sent * rows * (1 + largest[2] + gates.shape[2]) * (1 + through)
    above = torch.full_like(d_gates[:, : weight.shape[1], 0], max(1.0, largest[1]))
    counted = torch.zeros_like(weight, dtype=torch.float64).requires_grad_()
    product = F.conv1d(above, counted, padding=weight.shape[2] // 2).sum() * gates.shape[2]
    return output, gradient, gradient * torch.autograd.grad(product, counted)[0]


def check(inputs, upstream):
    gates, weight, h0, c0 = inputs
    hidden, K = weight.shape[1:]
    empty = gates.numel() == 0
    with launches() as names:
        *outputs, saved_gates, saved_cells = forward(*inputs)
    assert len(names) == (0 if empty else 1)
    needs = (True, True, h0 is not None, c0 is not None)
    with launches() as names:
        grads = backward(upstream, inputs, (saved_gates, saved_cells), needs)
    assert len(names) == (0 if empty else 2)
    if empty:
        assert not grads[1].any()
        return
    want, want_grads = definition(inputs, upstream)
    output, gradient, weight_gradient = scales(inputs, upstream, want_grads[0])
    terms = hidden * K + 4
    for name, got, wanted in zip(("h", "h_n", "c_n"), outputs, want, strict=True):
        assert_close(got, wanted, terms=terms, scale=output, name=name)
    for name, got, wanted in zip(NAMES, grads, want_grads, strict=True):
        if wanted is not None:
            scale = weight_gradient if name == "d_weight_hh" else gradient
            assert_close(got, wanted, terms=4 * terms, scale=scale, name=name)


@st.composite
def problems(draw):
    hidden = draw(st.one_of(st.integers(1, 5), st.sampled_from([16, 17])))
    N, H, W = draw(sizes(2)), draw(st.integers(1, 3)), draw(sizes(9))
    K, dtype = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from(DTYPES))
    state = (N, hidden, W)
    inputs = [
        draw(tensors((N, 4 * hidden, H, W), dtype, 2.0)),
        draw(tensors((4 * hidden, hidden, K), dtype, 1 / (hidden * K))),
        *([draw(tensors(state, dtype)) for _ in range(2)] if draw(st.booleans()) else [None, None]),
    ]
    upstream = [draw(tensors(s, dtype)) for s in ((N, hidden, H, W), state, state)]
    absent = draw(st.sampled_from([(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]))
    return inputs, [None if i in absent else d for i, d in enumerate(upstream)]


@given(problems())
@few_examples
def test_values_and_every_gradient_match_the_float64_reference(problem):
    check(*problem)


def check_tiles(hidden, H, W, dtype):
    N, K = 1, 3
    inputs = [torch.randn(N, 4 * hidden, H, W), torch.randn(4 * hidden, hidden, K) / 14]
    inputs += [torch.randn(N, hidden, W) for _ in range(2)]
    upstream = [torch.randn(N, hidden, H, W), torch.randn(N, hidden, W), torch.randn(N, hidden, W)]
    check([x.to(dtype) for x in inputs], [x.to(dtype) for x in upstream])


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.deep), torch.bfloat16]
)
def test_several_tiles_of_units_and_columns(dtype):
    with small_tiles(4, 4, 8):
        check_tiles(6, 2, 7, dtype)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_of_the_tiles_of_a_chip(dtype):
    check_tiles(70, 3, 37, dtype)


def small(N=2, hidden=3, H=5, W=6, K=3, dtype=torch.float32):
    shapes = (N, 4 * hidden, H, W), (4 * hidden, hidden, K), (N, hidden, W), (N, hidden, W)
    return [torch.randn(shape).to(dtype) for shape in shapes]


def test_the_front_door_reaches_the_launchers():
    inputs = [x.requires_grad_() for x in small()]
    with interpreted("row_lstm"), launches() as names:
        h, (h_n, c_n) = genkern.row_lstm(*inputs)
        grads = torch.autograd.grad(h_n.sum() + c_n.sum(), inputs)
    assert names == [f"row_lstm_{k}_kernel" for k in ("forward", "backward", "weight")]
    want, want_grads = definition(inputs, [None, torch.ones_like(h_n), torch.ones_like(c_n)])
    for got, wanted in zip((h, h_n, c_n, *grads), (*want, *want_grads), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_later_rows_and_distant_pixels_never_leak():
    gates, weight, h0, c0 = small()
    want = forward(gates, weight, h0, c0)[0]
    poisoned = gates.clone()
    poisoned[:, :, 2, 3] = float("nan")
    got = forward(poisoned, weight, h0, c0)[0]
    for r in range(5):  # a pixel is seen from one more column on each side, row by row
        reached = range(3 - (r - 2), 3 + (r - 2) + 1) if r >= 2 else ()
        for x in range(6):
            assert got[:, :, r, x].isnan().all() if x in reached else torch.equal(
                got[:, :, r, x], want[:, :, r, x]
            )  # fmt: skip


def test_saturated_gates_stay_finite():
    gates, weight, h0, c0 = small(1, 2, 2, 3)
    for sign in (-1, 1):
        inputs = gates.sign() * sign * 1e4, weight, h0, c0
        *outputs, saved_gates, saved_cells = forward(*inputs)
        upstream = [torch.ones_like(y) for y in outputs]
        grads = backward(upstream, inputs, (saved_gates, saved_cells))
        assert all(x.isfinite().all() for x in (*outputs, *grads))


def test_rows_in_two_calls_are_rows_in_one():
    gates, weight, h0, c0 = small(1, 3, 4, 3, dtype=torch.float64)
    h, h_n, c_n, *_ = forward(gates, weight, h0, c0, False)
    first = forward(gates[:, :, :2].contiguous(), weight, h0, c0, False)
    second = forward(gates[:, :, 2:].contiguous(), weight, first[1], first[2], False)
    assert torch.equal(torch.cat([first[0], second[0]], 2), h)
    assert torch.equal(second[1], h_n) and torch.equal(second[2], c_n)


def test_saving_changes_no_output():
    inputs = small(2, 3, 2, 6, dtype=torch.bfloat16)
    found = [forward(*inputs, save=save) for save in (False, True)]
    assert all(map(torch.equal, found[0][:3], found[1][:3]))
    for save, (*_, gates, cells) in enumerate(found):
        assert gates.shape == (2 * save, 2, 64, 6) and cells.shape == (2 * save, 2, 16, 6)
        assert gates.dtype == cells.dtype == torch.float32


def test_only_the_gradients_that_are_needed():
    gates, weight, h0, c0 = small(1, 2, 2, 3)
    *outputs, saved_gates, saved_cells = forward(gates, weight, h0, c0)
    upstream, inputs = [torch.randn_like(y) for y in outputs], (gates, weight, h0, c0)
    arguments = (upstream, inputs, (saved_gates, saved_cells))
    want = backward(*arguments)
    for i in range(4):
        needs = tuple(i == j for j in range(4))
        with launches() as names:
            got = backward(*arguments, needs)
        assert len(names) == (2 if needs[1] else 1)
        for found, wanted, need in zip(got, want, needs, strict=True):
            assert torch.equal(found, wanted) if need else found.numel() == 0


@pytest.mark.parametrize("parts", [2, pytest.param(5, marks=pytest.mark.deep)])
def test_a_divided_weight_gradient_has_the_same_value_and_leaves_zeros(parts, monkeypatch):
    gates, weight, h0, c0 = small(N=3, H=4, W=8, dtype=torch.float64)
    *outputs, saved_gates, saved_cells = forward(gates, weight, h0, c0)
    upstream = [torch.randn_like(y) for y in outputs]
    counts = torch.zeros(64, dtype=torch.int32)
    monkeypatch.setattr(kernels.launch, "counters", lambda *_: counts)
    monkeypatch.setattr(plan, "SHORTEST_PART", 1)
    monkeypatch.setattr(plan, "PROGRAMS", parts)
    got = backward(upstream, (gates, weight, h0, c0), (saved_gates, saved_cells))
    _, want = definition((gates, weight, h0, c0), upstream)
    torch.testing.assert_close(got[1], want[1])
    assert not counts.any()


FAR = 2_100_000  # an image whose elements lie beyond 2^31 in every large buffer


def zeros(*shape):
    """Memory of a batch that ends with image FAR; only the pages in use exist."""
    return torch.from_numpy(np.zeros((FAR + 1, *shape), np.float32))


def at_far(tensor):
    buffer = zeros(*tensor.shape[1:])
    buffer[FAR] = tensor[0]
    return buffer


def test_offsets_beyond_32_bits():
    hidden, H, W = 16, 2, 8
    gates, weight, h0, c0 = small(1, hidden, H, W)
    weight /= 50
    outputs = forward(gates, weight, h0, c0)
    upstream = [torch.randn_like(y) for y in outputs[:3]]
    grads = backward(upstream, (gates, weight, h0, c0), outputs[3:])
    got = [zeros(*y.shape[1:]) for y in outputs]
    sides = (hidden, hidden, H, W, H * W)
    with only_program(FAR, FAR + 1):
        kernels.row_lstm_forward_kernel[(1,)](
            at_far(gates), weight, at_far(h0), at_far(c0), *got, zeros(2, 2, hidden, W), *sides,
            **plan.constants("row_lstm_forward", weight, W),
        )  # fmt: skip
    assert got[3].numel() > 2**31
    for found, wanted in zip(got, outputs, strict=True):
        assert torch.equal(found[FAR], wanted[0])
    d, *d_states = [zeros(*x.shape[1:]) for x in (gates, h0, c0)]
    with only_program(FAR, FAR + 1):
        kernels.row_lstm_backward_kernel[(1,)](
            *map(at_far, upstream), weight, at_far(h0), at_far(c0), *got[3:], d, None, *d_states,
            zeros(hidden, H, W), zeros(2, hidden, W), *sides,
            **plan.constants("row_lstm_backward", weight, W),
        )  # fmt: skip
    for found, wanted in zip((d, *d_states), (grads[0], *grads[2:]), strict=True):
        assert torch.equal(found[FAR], wanted[0])


def test_what_cannot_run_is_said_in_a_sentence():
    gates, weight, *_ = small()
    with pytest.raises(RuntimeError, match=r"row_lstm: weight_hh must be float32 like inp"):
        forward(gates, weight.double())
    huge = torch.empty(40_000, 10_000, 7, device="meta")
    reason = kernels.unsupported(torch.empty(1, 40_000, 1, 1, device="meta"), huge)
    assert reason is not None and "fewer than 2^31" in reason
