"""row_lstm, row_lstm_step, nn.RowLSTM."""

import itertools
import math
import unittest.mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genkern
from genkern.reference import row_lstm as reference
from tests.core.helpers import bf16_pairs, double, run
from tests.core.strategies import DTYPES, LAYOUTS, backend, lay_out, sizes
from tests.core.tolerance import assert_close, unit
from tests.row_lstm.errors import assert_nearly_all_close, error_scales, stored_step

F64 = torch.float64
NAMES = ("h", "h_n", "c_n", "d_input_gates", "d_weight_hh", "d_h0", "d_c0")


def fused(input_gates, weight_hh, h0, c0):
    h, (h_n, c_n) = genkern.row_lstm(input_gates, weight_hh, h0, c0)
    return h, h_n, c_n


def make(N, hidden, H, W, k, dtype, *, states=True, scale=1.0, seed=0, layout="contiguous"):
    """Inputs (gates, weight, h0, c0) and upstream gradients of (h, h_n, c_n)."""
    generator, device = torch.Generator().manual_seed(seed), torch.get_default_device()
    options = dict(generator=generator, dtype=F64, device="cpu")
    normal = lambda *shape: torch.randn(shape, **options).to(device)  # noqa: E731
    values = [normal(N, 4 * hidden, H, W) * scale]
    values.append(normal(4 * hidden, hidden, k) / max(1, hidden * k) ** 0.5)
    values += [normal(N, hidden, W).tanh(), normal(N, hidden, W)] if states else [None, None]
    upstream = [normal(N, hidden, H, W), normal(N, hidden, W), normal(N, hidden, W)]
    place = lambda t: t if t is None else lay_out(t.to(dtype), layout)  # noqa: E731
    return [place(t) for t in values], [place(t) for t in upstream]


def rounds_states(dtype):
    return dtype == torch.bfloat16 and torch.get_default_device().type == "cpu" and bf16_pairs()


def compare(function, definition, inputs, upstream, assert_close=assert_close, fed=False):
    """Values and every gradient of ``function`` against the float64 ``definition``; ``fed``: what
    is fed back is rounded in the one and not in the other."""
    got, got_grads = run(function, inputs, upstream)
    exact, exact_upstream = double(inputs), double(upstream)
    want, want_grads = run(definition, exact, exact_upstream)
    gates, K = exact[:2]
    N, _, H, W = gates.shape
    exact_upstream = [
        torch.zeros_like(y) if d is None else d for y, d in zip(want, exact_upstream, strict=True)
    ]
    terms, dtype = 4 * K.shape[1] * K.shape[2], inputs[0].dtype
    counts = dict.fromkeys(NAMES, terms) | {"d_weight_hh": terms * max(1, N * H * W)}
    scales = error_scales(gates, K, exact[2:], exact_upstream)
    if fed:
        roundings = error_scales(gates, K, exact[2:], exact_upstream, own=0.0, fed=1.0)
        scales = [
            scale + torch.finfo(dtype).eps / 2 / unit(dtype, n) * rounding
            for n, scale, rounding in zip(counts.values(), scales, roundings, strict=True)
        ]
    everything = zip(
        NAMES, (*got, *got_grads), (*want, *want_grads), (*got, *inputs), scales, strict=True
    )
    for name, a, b, like, scale in everything:
        if like is None:
            continue
        b = torch.zeros_like(like, dtype=F64) if b is None else b
        assert a.dtype == dtype
        assert_close(a, b, terms=counts[name], scale=scale, name=name)


def check(function, definition, inputs, upstream):
    compare(function, definition, inputs, upstream, fed=rounds_states(inputs[0].dtype))


def check_closely(function, definition, inputs, upstream):
    """The bound of `check` counts each rounding of a state at its worst; here they are made in the
    definition too. The inputs must be fixed ones."""
    check(function, definition, inputs, upstream)
    if rounds_states(inputs[0].dtype):
        with unittest.mock.patch.object(reference, "step", stored_step):
            compare(function, definition, inputs, upstream, assert_nearly_all_close)


@st.composite
def problems(draw):
    N, H = draw(sizes(4)), draw(st.integers(1, 6))
    hidden, W = draw(st.sampled_from([1, 2, 3, 8, 17, 33])), draw(sizes(21))
    k = draw(st.sampled_from([1, 3, 3, 5, 9]))
    dtype, states = draw(st.sampled_from(DTYPES)), draw(st.booleans())
    inputs, upstream = make(N, hidden, H, W, k, dtype, seed=draw(st.integers(0, 2**20)))
    layout = st.sampled_from(LAYOUTS)
    inputs = [lay_out(t, draw(layout)) for t in inputs]
    upstream = [lay_out(t, draw(layout)) for t in upstream]
    kept = draw(st.sampled_from([(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]))
    if not states:
        inputs[2:] = [None, None]
    return inputs, [d if keep else None for d, keep in zip(upstream, kept, strict=True)]


@given(problems())
def test_values_and_every_gradient_match_the_float64_reference(problem):
    check(fused, reference.forward, *problem)
    assert genkern.last_backend("row_lstm") == backend()


SHAPES = [  # N, hidden, H, W, k: the paths through the tiles, the ring of rows and the image groups
    (3, 16, 12, 28, 3),
    (2, 64, 9, 13, 3),
    (1, 40, 5, 32, 5),
    (2, 96, 3, 33, 1),
    (300, 8, 2, 3, 3),
    (258, 24, 2, 5, 3),
    (1, 128, 3, 8, 3),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_larger_shapes(shape):
    check(fused, reference.forward, *make(*shape, torch.float32))


def test_states_that_are_fed_back_are_rounded_as_they_are_stored():
    shapes = [(3, 16, 5, 28, 3), (2, 17, 5, 13, 5), (1, 64, 4, 9, 3), (4, 1, 7, 1, 1)]
    for shape in (*shapes, (2, 33, 3, 2, 3)):
        check_closely(fused, reference.forward, *make(*shape, torch.bfloat16))
    check_closely(fused, reference.forward, *make(*shapes[0], torch.bfloat16, states=False))


def test_stride_0_states_and_gradients_reduce_properly():
    (gates, weight, _, _), _ = make(3, 4, 3, 5, 3, F64)
    results = []
    for function in (fused, reference.forward):
        h0, c0 = (torch.linspace(-1, 1, 4, dtype=F64).requires_grad_() for _ in range(2))
        h, _, c_n = function(gates, weight, *(s[:, None].expand(3, 4, 5) for s in (h0, c0)))
        (h.sum() + c_n.sum()).backward()
        results.append((h, h0.grad, c0.grad))
    torch.testing.assert_close(results[0], results[1])


def test_rows_in_chunks_equal_all_rows_at_once():
    (gates, weight, h0, c0), (d_h, d_h_n, d_c_n) = make(2, 7, 6, 9, 3, F64)

    def chunked(gates, weight, h0, c0):
        first, state = genkern.row_lstm(gates[:, :, :2], weight, h0, c0)
        second, (h_n, c_n) = genkern.row_lstm(gates[:, :, 2:], weight, *state)
        return torch.cat([first, second], 2), h_n, c_n

    inputs, upstream = (gates, weight, h0, c0), (d_h, d_h_n, d_c_n)
    torch.testing.assert_close(run(chunked, inputs, upstream), run(fused, inputs, upstream))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_equal_all_rows_at_once(dtype):
    inputs, upstream = make(2, 7, 5, 9, 3, F64)

    def steps(gates, weight, h, c):
        rows = []
        for r in range(gates.shape[2]):
            h, c = genkern.row_lstm_step(gates[:, :, r], h, c, weight)
            rows.append(h)
        return torch.stack(rows, 2), h, c

    torch.testing.assert_close(run(steps, inputs, upstream), run(fused, inputs, upstream))
    row = [x.to(dtype) for x in (inputs[0][:, :, 0], *inputs[2:], inputs[1])]
    h, c = genkern.row_lstm_step(*row)
    want_h, want_c = reference.step(*double(row))
    assert h.dtype == c.dtype == dtype
    assert_close(h, want_h, terms=21, scale=4.0)
    assert_close(c, want_c, terms=21, scale=4.0)


def test_half_precision_carries_the_state_in_float32():
    # c grows by sigmoid(0) tanh(0.01): after 300 rows a bfloat16 cell would have stopped at 1.
    gates = torch.zeros(1, 4, 300, 1)
    gates[:, 1], gates[:, 3] = 20.0, 0.01
    c_n = genkern.row_lstm(gates.bfloat16(), torch.zeros(4, 1, 1).bfloat16())[1][1]
    want = reference.forward(gates.bfloat16().double(), torch.zeros(4, 1, 1, dtype=F64))[2]
    assert_close(c_n, want, terms=300, scale=want)


def test_saturated_gates_and_long_memory():
    inputs, upstream = make(2, 3, 5, 4, 3, torch.float32, scale=300.0)
    check(fused, reference.forward, inputs, upstream)
    gates = torch.zeros(1, 4, 4096, 1)
    gates[:, 1], gates[:, 0] = 200.0, 200.0  # forget 1, output 1
    c0 = torch.full((1, 1, 1), 0.3, requires_grad=True)
    h, (_, c_n) = genkern.row_lstm(gates, torch.zeros(4, 1, 1), torch.zeros(1, 1, 1), c0)
    assert c_n.item() == c0.item() and h[0, 0, -1, 0].item() == pytest.approx(math.tanh(0.3))
    c_n.backward()
    assert c0.grad.item() == 1.0


def test_integer_gates_give_exact_zeros():
    gates = torch.zeros(2, 12, 3, 5)
    h, (h_n, c_n) = genkern.row_lstm(gates, torch.ones(12, 3, 3))
    assert not h.any() and not h_n.any() and not c_n.any()


def test_a_pixel_reaches_only_its_cone_and_nan_propagates():
    row, column = torch.meshgrid(torch.arange(6), torch.arange(15), indexing="ij")
    for dtype, gate in itertools.product(DTYPES, (0, 3)):
        (gates, weight, h0, c0), _ = make(1, 5, 6, 15, 3, dtype)
        before = genkern.row_lstm(gates, weight, h0, c0)[0]
        gates[0, gate * 5 + 3, 2, 7] = math.nan  # of one unit: its neighbours are reached below
        after = genkern.row_lstm(gates, weight, h0, c0)[0]
        cone = (row > 2) & ((column - 7).abs() <= row - 2)
        assert after[0, :, cone].isnan().all() and after[0, 3, 2, 7].isnan()
        outside = ~cone & ~((row == 2) & (column == 7))
        assert torch.equal(before[0, :, outside], after[0, :, outside])
        same = torch.tensor([0, 1, 2, 4])
        assert torch.equal(before[0, same, 2, 7], after[0, same, 2, 7])


def test_infinite_state_does_not_become_nan_through_unused_lanes():
    for dtype in DTYPES:
        inputs, _ = make(1, 3, 3, 5, 3, dtype)
        inputs[2] = torch.full((1, 3, 5), math.inf, dtype=dtype)
        inputs[1] = inputs[1].abs()
        got, want = fused(*inputs), reference.forward(*double(inputs))
        assert want[0].isfinite().all() and got[0].isfinite().all()
        if not rounds_states(dtype):
            assert_close(got[0], want[0], terms=9, scale=8.0)


def test_infinite_state_leaves_the_gradients_of_saturated_gates_zero():
    inputs, upstream = make(2, 3, 3, 5, 3, torch.float32)
    inputs[1], inputs[2] = inputs[1].abs(), torch.full((2, 3, 5), math.inf)
    _, grads = run(fused, inputs, upstream)
    assert not grads[0][:, :9, 0].any() and not grads[2].any()  # o, f, i of the first row; h0
    assert grads[0].isfinite().all() and grads[3].isfinite().all()


def test_everything_that_is_saved_is_written():
    inputs, _ = make(2, 3, 4, 5, 3, torch.float32)
    gates, cells = torch.ops.genkern.row_lstm_forward.default(*inputs, True)[3:]
    assert gates.isfinite().all() and cells.isfinite().all()  # lanes without a unit too


RING_SHAPES = [(2, 4, 9, 9, 3), (3, 4, 6, 9, 1), (7, 4, 6, 5, 3), (2, 9, 7, 9, 3), (1, 9, 5, 5, 3)]


@pytest.mark.parametrize("shape", RING_SHAPES)
@pytest.mark.parametrize("states", [False, True])
def test_boundaries_of_the_ring_and_of_the_groups_of_images(shape, states):
    # With small blocks: several groups of rows, of images alone, of images together. In float64,
    # because over so many rows the bound of float32 grows beyond what one row adds.
    check(fused, reference.forward, *make(*shape, F64, states=states))


# ---- gradients of every kind -----------------------------------------------------------------


def test_nothing_is_saved_without_gradients():
    inputs, _ = make(1, 3, 2, 4, 3, torch.float32)
    saved = torch.ops.genkern.row_lstm_forward.default(*inputs, False)[3:]
    assert all(t.numel() == 0 for t in saved)
    with torch.no_grad():
        assert genkern.row_lstm(*(x.requires_grad_() for x in inputs))[0].grad_fn is None


@pytest.mark.parametrize(
    "shape", [(0, 3, 2, 4, 3), (2, 3, 2, 0, 3), (0, 0, 1, 0, 1), (1, 0, 2, 3, 1)]
)
def test_empty_batches_rows_and_states(shape):
    check(fused, reference.forward, *make(*shape, torch.float32))
