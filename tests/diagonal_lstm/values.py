"""diagonal_lstm."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import genkern
from benchmarks.diagonal_lstm import eager as skewed_loop
from genkern.reference import diagonal_lstm as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, LAYOUTS, backend, lay_out, sizes
from tests.core.tolerance import assert_close
from tests.diagonal_lstm.errors import error_scales

F64 = torch.float64
NAMES = ("h", "d_input_gates", "d_weight_hh", "d_h0", "d_c0")


def make(N, hidden, H, W, dtype, *, states=True, scale=1.0, seed=0):
    """Inputs (gates, weight, h0, c0) and the upstream gradient."""
    generator, device = torch.Generator().manual_seed(seed), torch.get_default_device()
    options = dict(generator=generator, dtype=F64, device="cpu")
    normal = lambda *shape: torch.randn(shape, **options).to(device)  # noqa: E731
    values = [normal(N, 4 * hidden, H, W) * scale]
    values.append(normal(4 * hidden, hidden, 2) / max(1, 2 * hidden) ** 0.5)
    values += [normal(N, hidden, H).tanh(), normal(N, hidden, H)] if states else [None, None]
    upstream = [normal(N, hidden, H, W)]
    return [t if t is None else t.to(dtype) for t in values], [t.to(dtype) for t in upstream]


def fused(reverse=False):
    return lambda *inputs: genkern.diagonal_lstm(*inputs, reverse=reverse)


def defined(reverse=False):
    return partial(reference.forward, reverse=reverse)


def check(function, definition, inputs, upstream, reverse):
    """Values and every gradient of ``function`` against the float64 ``definition``."""
    got, got_grads = run(function, inputs, upstream)
    exact, exact_upstream = double(inputs), double(upstream)
    want, want_grads = run(definition, exact, exact_upstream)
    gates, K = exact[:2]
    N, _, H, W = gates.shape
    terms = 8 * K.shape[1]
    counts = dict.fromkeys(NAMES, terms) | {"d_weight_hh": terms * max(1, N * H * W)}
    scales = error_scales(gates, K, exact[2:], exact_upstream[0], reverse)
    everything = zip(
        NAMES, (*got, *got_grads), (*want, *want_grads), (*got, *inputs), scales, strict=True
    )
    for name, a, b, like, scale in everything:
        if like is None:
            continue
        b = torch.zeros_like(like, dtype=F64) if b is None else b
        assert a.dtype == inputs[0].dtype
        assert_close(a, b, terms=counts[name], scale=scale, name=name)


def check_fused(inputs, upstream, reverse=False):
    check(fused(reverse), defined(reverse), inputs, upstream, reverse)


@st.composite
def problems(draw):
    N, hidden = draw(sizes(4)), draw(st.sampled_from([1, 2, 3, 8, 17, 33]))
    H, W = draw(sizes(9)), draw(sizes(19))
    dtype, states = draw(st.sampled_from(DTYPES)), draw(st.booleans())
    seed = draw(st.integers(0, 2**20))
    inputs, upstream = make(N, hidden, H, W, dtype, states=states, seed=seed)
    layout = st.sampled_from(LAYOUTS)
    inputs = [t if t is None else lay_out(t, draw(layout)) for t in inputs]
    return inputs, [lay_out(t, draw(layout)) for t in upstream], draw(st.booleans())


@given(problems())
def test_values_and_every_gradient_match_the_float64_reference(problem):
    check_fused(*problem)
    assert genkern.last_backend("diagonal_lstm") == backend()


SHAPES = [  # N, hidden, H, W: tall, wide; one block and pairs of blocks; groups of images
    (3, 16, 12, 28),
    (2, 40, 17, 5),
    (1, 96, 3, 33),
    (70, 24, 2, 5),
    (1, 8, 1, 40),
    (2, 5, 40, 1),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_larger_shapes(shape, reverse):
    check_fused(*make(*shape, torch.float32), reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_definition_is_the_recurrence_pixel_by_pixel(reverse):
    (gates, K, h0, c0), _ = make(2, 3, 4, 5, F64)
    above = [torch.zeros(2, 3, dtype=F64)] * 5
    got = genkern.diagonal_lstm(gates, K, h0, c0, reverse=reverse)
    for r in range(4):
        h, c = h0[:, :, r], c0[:, :, r]
        for x in reversed(range(5)) if reverse else range(5):
            sums = gates[:, :, r, x] + above[x] @ K[:, :, 0].T + h @ K[:, :, 1].T
            o, f, i, g = sums.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            above[x] = h = o.sigmoid() * c.tanh()
            torch.testing.assert_close(got[:, :, r, x], h)


@pytest.mark.parametrize("shape", [(4, 5), (5, 2), (1, 4), (3, 1)])
def test_the_loop_over_a_skewed_map_has_the_same_values(shape):
    (gates, K, _, _), _ = make(2, 3, *shape, F64)
    torch.testing.assert_close(genkern.diagonal_lstm(gates, K), skewed_loop(gates, K))


def padded_map(gates, K, bias):
    """The paper's: the gates of the padding are the bias, and rows run over it from state 0."""
    _, _, H, W = gates.shape
    skewed = bias[:, None, None].expand(2, -1, H, W + H - 1).clone()
    for r in range(H):
        skewed[:, :, r, r : r + W] = gates[:, :, r]
    h = c = gates.new_zeros(2, K.shape[1], H)
    columns = []
    for t in range(W + H - 1):
        h, c = reference.step(skewed[..., t], F.pad(h, (1, 0)), c, K)
        columns.append(h)
    skewed = torch.stack(columns, 3)
    return torch.stack([skewed[:, :, r, r : r + W] for r in range(H)], 2)


def test_starts_that_ran_over_the_bias_give_the_papers_padded_map():
    (gates, K, _, _), _ = make(2, 3, 5, 4, F64)
    bias = torch.randn(12, dtype=F64)
    h, c = torch.zeros(2, 3, 1, dtype=F64), torch.zeros(2, 3, 1, dtype=F64)
    starts = [(h, c)]
    for _ in range(4):
        one_tap = K.sum(2, keepdim=True)
        h, c = reference.step(bias[None, :, None], h, c, one_tap)
        starts.append((h, c))
    h0, c0 = (torch.cat(s, 2) for s in zip(*starts, strict=True))
    want = padded_map(gates, K, bias)
    torch.testing.assert_close(genkern.diagonal_lstm(gates, K, h0, c0), want)
    assert (genkern.diagonal_lstm(gates, K) - want).abs().max() > 0.01


def test_reverse_is_the_mirror_image():
    inputs, upstream = make(2, 9, 5, 11, torch.float32)
    mirrored = [inputs[0].flip(3), *inputs[1:]]
    h, grads = run(fused(), mirrored, [upstream[0].flip(3)])
    got, got_grads = run(fused(reverse=True), inputs, upstream)
    assert torch.equal(got[0], h[0].flip(3))
    torch.testing.assert_close(got_grads, (grads[0].flip(3), *grads[1:]))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_pixel_reaches_only_what_is_below_and_ahead_and_nan_propagates(reverse):
    row, column = torch.meshgrid(torch.arange(6), torch.arange(15), indexing="ij")
    for dtype, gate in itertools.product(DTYPES, (0, 3)):
        (gates, K, h0, c0), _ = make(1, 5, 6, 15, dtype)
        before = genkern.diagonal_lstm(gates, K, h0, c0, reverse=reverse)
        gates[0, gate * 5 + 3, 2, 7] = math.nan  # of one unit: the others are reached later
        after = genkern.diagonal_lstm(gates, K, h0, c0, reverse=reverse)
        ahead = (row >= 2) & ((column <= 7) if reverse else (column >= 7))
        here = (row == 2) & (column == 7)
        assert after[0][:, ahead & ~here].isnan().all() and after[0, 3, 2, 7].isnan()
        assert torch.equal(before[0][:, ~ahead], after[0][:, ~ahead])
        same = torch.tensor([0, 1, 2, 4])
        assert torch.equal(before[0, same, 2, 7], after[0, same, 2, 7])


def test_infinite_states_do_not_become_nan_through_unused_lanes():
    for dtype in DTYPES:
        inputs, _ = make(1, 3, 3, 5, dtype)
        inputs[2] = torch.full((1, 3, 3), math.inf, dtype=dtype)
        inputs[1] = inputs[1].abs()
        got, want = fused()(*inputs), reference.forward(*double(inputs))
        assert want.isfinite().all() and got.isfinite().all()
        assert_close(got, want, terms=6, scale=8.0)


def test_infinite_states_leave_the_gradients_of_saturated_gates_zero():
    inputs, upstream = make(2, 3, 3, 5, torch.float32)
    inputs[1], inputs[2] = inputs[1].abs(), torch.full((2, 3, 3), math.inf)
    _, grads = run(fused(), inputs, upstream)
    assert not grads[0][:, :9, :, 0].any() and not grads[2].any()  # o, f, i of first pixels; h0
    assert grads[0].isfinite().all() and grads[3].isfinite().all()


def test_half_precision_carries_the_state_in_float32():
    # c grows by sigmoid(0) tanh(0.01): after 300 pixels a bfloat16 cell would have stopped at 1.
    gates = torch.zeros(1, 4, 1, 300)
    gates[:, 0], gates[:, 1], gates[:, 3] = 20.0, 20.0, 0.01
    gates, K = gates.bfloat16(), torch.zeros(4, 1, 2).bfloat16()
    want = reference.forward(gates.double(), K.double())
    assert_close(genkern.diagonal_lstm(gates, K), want, terms=300, scale=want)


def test_saturated_gates_and_long_memory():
    check_fused(*make(2, 3, 4, 5, torch.float32, scale=300.0))
    gates = torch.zeros(1, 4, 1, 4096)
    gates[:, 1], gates[:, 0] = 200.0, 200.0  # forget 1, output 1
    c0 = torch.full((1, 1, 1), 0.3, requires_grad=True)
    h = genkern.diagonal_lstm(gates, torch.zeros(4, 1, 2), torch.zeros(1, 1, 1), c0)
    assert h[0, 0, 0, -1].item() == pytest.approx(math.tanh(0.3))
    h[..., -1].sum().backward()
    assert c0.grad.item() == pytest.approx(1 - math.tanh(0.3) ** 2)


def test_everything_that_is_saved_is_written():
    inputs, _ = make(2, 3, 4, 5, torch.float32)
    _, gates, cells = torch.ops.genkern.diagonal_lstm_forward.default(*inputs, False, True)
    assert gates.isfinite().all() and cells.isfinite().all()  # lanes without a unit too


def test_nothing_is_saved_without_gradients():
    inputs, _ = make(1, 3, 2, 4, torch.float32)
    _, *saved = torch.ops.genkern.diagonal_lstm_forward.default(*inputs, False, False)
    assert all(t.numel() == 0 for t in saved)
    with torch.no_grad():
        assert genkern.diagonal_lstm(*(x.requires_grad_() for x in inputs)).grad_fn is None


GROUP_SHAPES = [(2, 4, 9, 9), (7, 9, 6, 5), (11, 1, 7, 9), (3, 17, 1, 9), (3, 17, 9, 1)]


@pytest.mark.parametrize("shape", GROUP_SHAPES)
def test_boundaries_of_the_chunks_and_of_the_groups_of_images(shape):
    # In float64: the bound of float32 grows over so many pixels beyond what one of them adds.
    for reverse in (False, True):
        check_fused(*make(*shape, F64), reverse)


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 3, 2, 0), (2, 3, 0, 2), (1, 0, 2, 3)])
def test_empty_batches_maps_and_states(shape):
    check_fused(*make(*shape, torch.float32))
