"""concat_elu."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.reference import concat_elu as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import assert_close


def check(inputs, upstream, function=genkern.concat_elu, definition=reference.forward):
    """Values and the gradient of ``function`` against the float64 definition."""
    (got,), (got_grad,) = run(function, inputs, upstream)
    (want,), (want_grad,) = run(definition, double(inputs), double(upstream))
    assert got.dtype == got_grad.dtype == inputs[0].dtype
    assert_close(got, want, scale=want.abs(), name="output")  # no term is larger than the result
    slopes = torch.exp(-inputs[0].double().abs()).clamp(max=1)
    one = torch.ones_like(slopes)
    first = torch.where(inputs[0] > 0, one, slopes)
    second = torch.where(inputs[0] > 0, slopes, one)
    up, down = upstream[0].double().abs().chunk(2, 1)
    assert_close(got_grad, want_grad, scale=up * first + down * second, name="d_input")


@st.composite
def problems(draw, longest=131):
    N, C = draw(sizes(3)), draw(st.one_of(sizes(5), st.sampled_from([16, 17, 33])))
    rest = [draw(st.one_of(sizes(6), st.just(longest))) for _ in range(draw(st.integers(0, 3)))]
    dtype, scale = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1.0, 1e-3, 30.0]))
    inputs = [draw(tensors((N, C, *rest[:2], *rest[2:][:1]), dtype, scale))]
    return inputs, [draw(tensors((N, 2 * C, *rest[:2], *rest[2:][:1]), dtype))]


@given(problems())
@examples(1.5)
def test_values_and_gradients_match_the_float64_reference(problem):
    check(*problem)
    assert genkern.last_backend("concat_elu") == backend()


def test_sizes_around_the_chunks():
    for length in (4095, 4097, 9000):
        check([torch.randn(2, length)], [torch.randn(2, 2 * length)])
        x = torch.randn(1, length, 2, 1).to(memory_format=torch.channels_last)
        check([x], [torch.randn(1, 2 * length, 2, 1)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_sides_of_zero_and_the_ends(dtype):
    inf, tiny = torch.inf, torch.finfo(dtype).tiny
    x = torch.tensor([[-inf, -1e4, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, 1e4, inf]]).to(dtype)
    y = genkern.concat_elu(x)
    torch.testing.assert_close(y, reference.forward(x.double()).to(dtype), rtol=0.01, atol=0)
    assert y[0, 0] == y[0, -1] == -1 and y[0, 9] == y[0, 10] == inf
    assert genkern.concat_elu(torch.full((1, 3), torch.nan, dtype=dtype)).isnan().all()
    leaf = torch.zeros(1, 1, dtype=dtype, requires_grad=True)
    genkern.concat_elu(leaf).backward(torch.tensor([[3.0, 5.0]], dtype=dtype))
    assert leaf.grad.item() == -2  # both slopes are 1 at 0


def test_small_values_keep_their_digits():
    x = torch.tensor([[1e-6, -1e-6]])
    want = torch.tensor([[1e-6, -1e-6, -1e-6, 1e-6]])
    torch.testing.assert_close(genkern.concat_elu(x), want, rtol=1e-6, atol=0)


def test_the_memory_format_is_kept():
    x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    y = genkern.concat_elu(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad.stride() == x.stride()


MUTANTS = {
    "halves swapped": lambda x: reference.forward(-x),
    "interleaved": lambda x: torch.stack(reference.forward(x).chunk(2, 1), 2).flatten(1, 2),
    "relu": lambda x: torch.relu(torch.cat([x, -x], 1)),
    "alpha of a half": lambda x: torch.nn.functional.elu(torch.cat([x, -x], 1), 0.5),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    inputs, upstream = [torch.randn(2, 3, 3, 4)], [torch.randn(2, 6, 3, 4)]
    check(inputs, upstream)
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, definition=MUTANTS[name])
