"""gated_activation."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.reference import gated_activation as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import ACCUMULATION, assert_close

F64 = torch.float64


def full(input, condition):
    """The condition as an image."""
    if condition is None:
        return torch.zeros_like(input)
    return condition if condition.ndim == 4 else condition[:, :, None, None].expand(input.shape)


def magnitudes(input, condition, upstream, dtype):
    """Sizes of what is rounded: errors of the sum pass through slopes of at most 1.

    The definition's own slopes, 1 - tanh^2 and sigmoid (1 - sigmoid), cancel in their tails, in
    float64.
    """
    size = input.abs() + full(input, condition).abs()
    a, b = (input + full(input, condition)).chunk(2, 1)
    size_a, size_b = size.chunk(2, 1)
    tanh, sigmoid = torch.tanh(a).abs(), torch.sigmoid(b)
    d_tanh, d_sigmoid = 1 - tanh.square(), sigmoid * (1 - sigmoid)
    cancels = torch.finfo(F64).eps / torch.finfo(ACCUMULATION[dtype]).eps
    y = tanh * sigmoid + d_tanh * sigmoid * size_a + tanh * d_sigmoid * size_b
    d_a = d_tanh * sigmoid * (1 + 2 * size_a + size_b) + cancels * sigmoid
    d_b = tanh * d_sigmoid * (1 + size_b) + d_tanh * d_sigmoid * size_a + cancels * tanh * sigmoid
    d_x = upstream.abs().repeat(1, 2, 1, 1) * torch.cat([d_a, d_b], 1)
    return y, d_x, d_x.sum((2, 3)) if condition is not None and condition.ndim == 2 else d_x


def check(inputs, upstream, function=genkern.gated_activation, definition=reference.forward):
    """Values and gradients of ``function`` against the float64 definition."""
    (got,), got_grads = run(function, inputs, upstream)
    (want,), want_grads = run(definition, double(inputs), double(upstream))
    scale, *grad_scales = magnitudes(*double(inputs), upstream[0].double(), inputs[0].dtype)
    assert got.dtype == inputs[0].dtype
    assert_close(got, want, scale=scale, name="output")
    pixels = inputs[0][0, 0].numel() if inputs[0].shape[0] * inputs[0].shape[1] else 1
    summed = inputs[1] is not None and inputs[1].ndim == 2
    terms = (1, pixels if summed else 1)
    for i, name in enumerate(("d_input", "d_condition")):
        if got_grads[i] is not None:
            assert got_grads[i].dtype == inputs[i].dtype
            assert_close(got_grads[i], want_grads[i], terms=terms[i], scale=grad_scales[i],
                         name=name)  # fmt: skip


@st.composite
def problems(draw, longest=131):
    N, C = draw(sizes(3)), draw(st.one_of(sizes(5), st.sampled_from([16, 17, 33])))
    H, W = draw(sizes(6)), draw(st.one_of(sizes(9), st.sampled_from([longest // 3, longest])))
    shape, dtype = (N, 2 * C, H, W), draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1.0, 1e-3, 20.0]))
    kind = draw(st.sampled_from([None, shape[:2], shape]))
    condition = None if kind is None else draw(tensors(kind, dtype, scale))
    inputs = [draw(tensors(shape, dtype, scale)), condition]
    return inputs, [draw(tensors((N, C, H, W), dtype))]


@given(problems())
@examples(1.5)
def test_values_and_gradients_match_the_float64_reference(problem):
    check(*problem)
    assert genkern.last_backend("gated_activation") == backend()


def test_sizes_around_the_chunks():
    for pixels in (4095, 4097, 9000):
        check([torch.randn(1, 4, 1, pixels), torch.randn(1, 4)], [torch.randn(1, 2, 1, pixels)])
    x = torch.randn(1, 2 * 4097, 2, 1).to(memory_format=torch.channels_last)
    check([x, torch.randn(1, 2 * 4097)], [torch.randn(1, 4097, 2, 1)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tails_are_the_limits_and_keep_their_digits(dtype):
    a = torch.tensor([-torch.inf, -1e4, -30.0, -9.0, -0.0, 0.0, 9.0, 30.0, 1e4, torch.inf])
    grid = torch.cartesian_prod(a, a).T.reshape(1, 2, 10, 10).to(dtype)
    y = genkern.gated_activation(grid)
    torch.testing.assert_close(y, reference.forward(grid.double()).to(dtype))
    x = torch.tensor([20.0, -20.0]).view(1, 2, 1, 1).requires_grad_()
    genkern.gated_activation(x).backward(torch.ones(1, 1, 1, 1))
    exact = torch.autograd.functional.jacobian(
        lambda t: (1 - torch.exp(-2 * t[0])) / (1 + torch.exp(-2 * t[0])) / (1 + torch.exp(-t[1])),
        x.detach().double().flatten(),
    )
    torch.testing.assert_close(x.grad.double().flatten(), exact, rtol=1e-6, atol=0)
    nan = torch.full((1, 2, 1, 1), torch.nan, dtype=dtype)
    assert genkern.gated_activation(nan).isnan().all()


def test_an_image_alone_is_a_batch_of_one():
    x = torch.randn(6, 4, 5)
    for c in (torch.randn(6), torch.randn(6, 4, 5)):
        batched = genkern.gated_activation(x[None], c[None])
        assert torch.equal(genkern.gated_activation(x, c), batched[0])


def test_the_memory_format_is_kept():
    x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    y = genkern.gated_activation(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad.stride() == x.stride()


MUTANTS = {
    "halves swapped": lambda x, c: reference.forward(x.roll(x.shape[1] // 2, 1), c),
    "channels interleaved": lambda x, c: torch.tanh(x[:, ::2]) * torch.sigmoid(x[:, 1::2]),
    "condition on a alone": lambda x, c: reference.forward(
        x, torch.cat([c.chunk(2, 1)[0], torch.zeros_like(c.chunk(2, 1)[1])], 1)
    ),
    "no condition": lambda x, c: reference.forward(x),
    "two sigmoids": lambda x, c: reference.forward(x, c).mul(0.5) + 0.5,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    inputs, upstream = [torch.randn(2, 6, 3, 4), torch.randn(2, 6)], [torch.randn(2, 3, 3, 4)]
    check(inputs, upstream)
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, definition=MUTANTS[name])
