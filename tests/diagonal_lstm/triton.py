"""The Triton kernels of diagonal_lstm, interpreted: values, gradients, causality, launches."""

import numpy as np
import pytest
import torch
from hypothesis import given

pytest.importorskip("triton")
from hypothesis import strategies as st

import genkern
from genkern.triton_kernels import diagonal_lstm as kernels
from genkern.triton_kernels.diagonal_lstm import plan
from tests.core.strategies import DTYPES
from tests.core.triton_kit import (
    few_examples,
    interpreted,
    launches,
    only_program,
    resolved,
    small_tiles,
)
from tests.diagonal_lstm.values import check_fused, fused, make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
KERNELS = [f"diagonal_lstm_{name}_kernel" for name in ("forward", "backward", "weight")]


@st.composite
def problems(draw):
    hidden = draw(st.sampled_from([1, 2, 3, 5, 17]))
    shape = draw(st.integers(1, 2)), hidden, draw(st.integers(1, 3)), draw(st.integers(1, 4))
    inputs, upstream = make(
        *shape, draw(st.sampled_from(DTYPES)), states=draw(st.booleans()), seed=draw(st.integers(0))
    )
    return inputs, upstream, draw(st.booleans())


@given(problems())
@few_examples
def test_values_and_every_gradient_match_the_float64_reference(problem):
    with interpreted("diagonal_lstm"):
        check_fused(*problem)


def test_several_tiles_of_units_and_rows():
    with interpreted("diagonal_lstm"), small_tiles(4, 4, 8):
        check_fused(*make(1, 5, 5, 2, torch.bfloat16), reverse=True)


@pytest.mark.deep
def test_several_of_the_tiles_of_a_chip():
    with interpreted("diagonal_lstm"):
        check_fused(*make(1, 34, 18, 17, torch.bfloat16), reverse=True)


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 3, 2, 0), (2, 3, 0, 2)])
def test_empty_batches_and_maps(shape):
    with interpreted("diagonal_lstm"), launches() as names:
        check_fused(*make(*shape, torch.float32))
    assert names == []


def test_launches_and_only_the_gradients_that_are_needed():
    inputs, (upstream,) = make(1, 2, 2, 3, torch.float32)
    with interpreted("diagonal_lstm"):
        with launches() as names:
            leaves = [x.clone().requires_grad_() for x in inputs]
            want = torch.autograd.grad(fused()(*leaves), leaves, upstream)
        assert names == KERNELS
        for i, gradient in enumerate(want):
            leaves = [x.clone().requires_grad_(i == j) for j, x in enumerate(inputs)]
            with launches() as names:
                (got,) = torch.autograd.grad(fused()(*leaves), leaves[i], upstream)
            assert torch.equal(got, gradient) and names == KERNELS[: 3 if i == 1 else 2]


@pytest.mark.parametrize("reverse", [False, True])
def test_later_pixels_never_leak(reverse):
    (gates, *rest), _ = make(1, 3, 4, 5, torch.float32)
    row, column = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    with interpreted("diagonal_lstm"):
        want = genkern.diagonal_lstm(gates, *rest, reverse=reverse)
        gates[:, :, 2, 3] = torch.nan
        got = genkern.diagonal_lstm(gates, *rest, reverse=reverse)
    reached = (row >= 2) & ((column <= 3) if reverse else (column >= 3))
    assert got[:, :, reached].isnan().all()
    assert torch.equal(got[:, :, ~reached], want[:, :, ~reached])


def test_saturated_gates_stay_finite():
    inputs, upstream = make(1, 3, 2, 3, torch.float32, scale=1e4)
    with interpreted("diagonal_lstm"):
        check_fused(inputs, upstream)


@pytest.mark.parametrize("parts", [2, pytest.param(5, marks=pytest.mark.deep)])
def test_a_divided_weight_gradient_has_the_same_value(parts, monkeypatch):
    monkeypatch.setattr(plan, "SHORTEST_PART", 1)
    monkeypatch.setattr(plan, "PROGRAMS", parts)
    with interpreted("diagonal_lstm"):
        check_fused(*make(3, 3, 2, 3, torch.float64), reverse=parts == 2)


FAR = 5_600_000  # an image whose elements lie beyond 2^31 in every large buffer


def zeros(*shape):
    """Memory of a batch that ends with image FAR; only the pages in use exist."""
    return torch.from_numpy(np.zeros((FAR + 1, *shape), np.float32))


def at_far(tensor):
    buffer = zeros(*tensor.shape[1:])
    buffer[FAR] = tensor[0]
    return buffer


def test_offsets_beyond_32_bits():
    hidden, H, W = 16, 2, 3
    (gates, weight, h0, c0), (upstream,) = make(1, hidden, H, W, torch.float32)
    forward, backward = (resolved(f) for f in kernels.LAUNCHERS.values())
    outputs = forward(gates, weight, h0, c0, False, True)
    needs = (True, False, True, True)
    grads = backward(upstream, gates, weight, h0, c0, *outputs[1:], False, *needs)
    got, sides = [zeros(*y.shape[1:]) for y in outputs], plan.places(H, W, False)
    with only_program(FAR, FAR + 1):
        kernels.diagonal_lstm_forward_kernel[(1,)](
            at_far(gates), weight, at_far(h0), at_far(c0), *got, zeros(2, hidden, H),
            zeros(hidden, H), hidden, hidden, *sides,
            **plan.constants("diagonal_lstm_forward", weight),
        )  # fmt: skip
    assert got[1].numel() > 2**31
    for found, wanted in zip(got, outputs, strict=True):
        assert torch.equal(found[FAR], wanted[0])
    d, d_h0, d_c0 = (zeros(*x.shape[1:]) for x in (gates, h0, c0))
    with only_program(FAR, FAR + 1):
        kernels.diagonal_lstm_backward_kernel[(1,)](
            at_far(upstream), weight, at_far(c0), *got[1:], d, None, d_h0, d_c0, None,
            zeros(2, 4 * hidden, H), zeros(hidden, H), hidden, hidden, *sides,
            **plan.constants("diagonal_lstm_backward", weight),
        )  # fmt: skip
    for found, wanted in zip((d, d_h0, d_c0), (grads[0], *grads[2:]), strict=True):
        assert torch.equal(found[FAR], wanted[0])


def test_what_cannot_run_is_said_in_a_sentence():
    (gates, weight, *_), _ = make(1, 3, 2, 3, torch.float32)
    forward = kernels.LAUNCHERS["diagonal_lstm_forward"]
    with pytest.raises(RuntimeError, match="diagonal_lstm: weight_hh must be float32 like inp"):
        forward(gates, weight.double(), None, None, False, False)
    huge = torch.empty(80_000, 20_000, 2, device="meta")
    reason = kernels.unsupported(torch.empty(1, 80_000, 1, 1, device="meta"), huge)
    assert reason is not None and "fewer than 2^31" in reason
