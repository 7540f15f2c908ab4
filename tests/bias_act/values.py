"""bias_act: values, gradients, and gradients of gradients."""

import functools
import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.reference import bias_act as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import ACCUMULATION, assert_close

F64 = torch.float64
ACTIVATIONS = tuple(reference.ACTIVATIONS)


def column(bias, input, dim):
    shape = [1] * input.ndim
    shape[dim] = -1
    return bias.view(shape)


def magnitudes(input, bias, dtype, act="linear", alpha=0.2, gain=1.0, clamp=None, dim=1):
    """Sizes of what is rounded in y, gain act' and gain act'': the rounding of z goes through the
    next derivative. The definition's own slopes cancel in their tails, in float64."""
    bias = torch.zeros(()).to(input) if bias is None else column(bias, input, dim)
    z, size = (input + bias).requires_grad_(), input.abs() + bias.abs()
    derivatives = [reference.ACTIVATIONS[act](z, alpha)]
    for _ in range(3):
        last = derivatives[-1]
        if not last.requires_grad:
            derivatives.append(torch.zeros_like(z))
            continue
        (found,) = torch.autograd.grad(last.sum(), z, create_graph=True)
        derivatives.append(found)
    cancels = torch.finfo(F64).eps / torch.finfo(ACCUMULATION[dtype]).eps
    sizes = [y.detach().abs() for y in derivatives]
    return [abs(gain) * (y + slope * size + cancels * (1 + size) ** 2)
            for y, slope in itertools.pairwise(sizes)]  # fmt: skip


def away_from_the_bend(inputs, act="linear", alpha=0.2, gain=1.0, clamp=None, dim=1):
    """Where rounding decides on which side of a corner an element is, any side is right."""
    input, bias = double(inputs)
    z = input if bias is None else input + column(bias, input, dim)
    y = reference.ACTIVATIONS[act](z, alpha) * gain
    eps = 16 * torch.finfo(ACCUMULATION[inputs[0].dtype]).eps
    size = input.abs() + (0 if bias is None else column(bias, input, dim).abs())
    corner = (z.abs() <= eps * size) & (z != 0)
    if clamp is not None:
        corner |= ((y.abs() - clamp).abs() <= eps * (clamp + abs(gain) * size)) & (y.abs() != clamp)
    return torch.where(corner, 0.0, 1.0)


def second(function, inputs, upstream, directions):
    """Gradients in upstream, input and bias of the gradients along ``directions``."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in (upstream, *inputs)]
    wanted = [x for x in leaves if x is not None]
    y = function(*leaves[1:])
    found = torch.autograd.grad(y, wanted[1:], leaves[0], create_graph=True)
    return torch.autograd.grad(found, wanted, directions, allow_unused=True, materialize_grads=True)


def check_second(inputs, upstream, kept, dim, sizes, function, definition):
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(x.shape, generator=generator, dtype=F64, device="cpu").to(x)
                  for x in inputs if x is not None]  # fmt: skip
    directions[0] *= kept.to(directions[0])
    if len(directions) > 1 and (kept == 0).any():
        directions[1] *= 0
    got = second(function, inputs, upstream, directions)
    want = second(definition, double(inputs), upstream.double(), double(directions))
    along = directions[0].double().abs()
    if len(directions) > 1:
        along = along + column(directions[1].double().abs(), along, dim)
    of_input = along * upstream.double().abs() * sizes[2]
    scales = [along * sizes[1], of_input, of_input.transpose(0, dim).flatten(1).sum(1)
              if len(directions) > 1 else None]  # fmt: skip
    names = ("second d_upstream", "second d_input", "second d_bias")
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        terms = max(1, inputs[0].numel() // max(1, inputs[1].numel())) if i == 2 else 1
        assert a.dtype == inputs[0].dtype
        assert_close(a, b, terms=terms, scale=scales[i], name=names[i])


def check(inputs, upstream, function=genkern.bias_act, definition=reference.forward, **options):
    """Values, gradients and their gradients of ``function`` against the float64 definition."""
    inputs, (upstream,) = list(inputs), upstream
    dtype, dim = inputs[0].dtype, options.get("dim", 1)
    kept = away_from_the_bend(inputs, **options)
    if (kept == 0).any():
        upstream = upstream * kept.to(upstream)
    function = functools.partial(function, **options)
    definition = functools.partial(definition, **options)
    (got,), (d_input, d_bias) = run(function, inputs, [upstream])
    (want,), (want_input, want_bias) = run(definition, double(inputs), [upstream.double()])
    sizes = magnitudes(*double(inputs), dtype, **options)
    assert got.dtype == d_input.dtype == dtype
    assert_close(got, want, scale=sizes[0], name="output")
    scale = upstream.double().abs() * sizes[1]
    assert_close(d_input, want_input, scale=scale, name="d_input")
    if d_bias is not None:
        scale = scale.transpose(0, dim).flatten(1).sum(1)
        terms = max(1, inputs[0].numel() // max(1, d_bias.numel()))
        assert_close(d_bias, want_bias, terms=terms, scale=scale, name="d_bias")
    check_second(inputs, upstream, kept, dim, sizes, function, definition)


@st.composite
def problems(draw):
    N, C = draw(sizes(3)), draw(st.one_of(sizes(5), st.sampled_from([16, 33, 300])))
    shape = [N, C, *draw(st.sampled_from([[], [1], [7], [40], [3, 5], [2, 64]]))]
    dtype, scale = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1.0, 1e-3, 20.0]))
    dim = draw(st.sampled_from([1, 1, 0, len(shape) - 1]))
    inputs = [draw(tensors(shape, dtype, scale)), None]
    if draw(st.booleans()):
        inputs[1] = draw(tensors((shape[dim],), dtype, scale))
    options = {
        "act": draw(st.sampled_from(ACTIVATIONS)),
        "gain": draw(st.sampled_from([1.0, 2**0.5, -0.5])),
        "clamp": draw(st.sampled_from([None, None, 0.5, 256.0])),
        "dim": dim,
    }
    return inputs, [draw(tensors(shape, dtype))], options


@given(problems())
@examples(2)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    check(inputs, upstream, **options)
    assert genkern.last_backend("bias_act") == backend()


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_over_its_range(act):
    for dtype in DTYPES:
        steps = torch.cat([torch.linspace(-30, 30, 121), torch.tensor([1e-6, -1e-6, 80.0, -80.0])])
        x = steps.view(5, 25).to(dtype)
        check([x, torch.zeros(25, dtype=dtype)], [torch.randn(5, 25).to(dtype)], act=act)


def test_sizes_around_the_chunks():
    for shape in ((2, 3, 4097), (3, 4095), (1, 2, 9001), (700, 3), (3, 2, 8192)):
        for act in ("lrelu", "sigmoid"):
            check([torch.randn(shape), torch.randn(shape[1])], [torch.randn(shape)], act=act)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_the_ends_are_the_limits(act):
    inf = torch.inf
    for dtype in DTYPES:
        y = genkern.bias_act(
            torch.tensor([[-inf, -1e4, 1e4, inf, torch.nan]], dtype=dtype), act=act
        )
        low = {
            "linear": -inf,
            "lrelu": -inf,
            "tanh": -1.0,
            "elu": -1.0,
            "selu": -1.7580993408473766,
        }
        high = {"tanh": 1.0, "sigmoid": 1.0}
        want = torch.tensor([[low.get(act, 0.0), high.get(act, inf)]]).to(dtype)
        torch.testing.assert_close(y[:, [0, 3]], want)
        assert y[:, 1:3].isfinite().all() and y[0, 4].isnan()
        bounded = genkern.bias_act(y, clamp=0.25)
        assert (bounded[0, :4].abs() <= 0.25).all() and bounded[0, 4].isnan()
        x = torch.tensor([[-inf, inf]], dtype=dtype, requires_grad=True)
        genkern.bias_act(x, act=act).sum().backward()
        assert x.grad.isfinite().all()


def test_second_derivatives_of_corners_are_zero_and_not_computed():
    for act in ("linear", "relu", "lrelu"):
        x, d = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
        (g,) = torch.autograd.grad(genkern.bias_act(x, act=act), x, d, create_graph=True)
        assert not g.requires_grad
    (g,) = torch.autograd.grad(genkern.bias_act(x, act="elu"), x, d, create_graph=True)
    assert g.requires_grad


def test_third_derivatives_are_those_of_the_formula():
    x, b = torch.randn(2, 3, dtype=F64), torch.randn(3, dtype=F64)

    def third(function):
        z, c = x.clone().requires_grad_(), b.clone().requires_grad_()
        y = function(z, c, act="swish").pow(3).sum()
        for _ in range(2):
            y = sum(g.pow(2).sum() for g in torch.autograd.grad(y, (z, c), create_graph=True))
        return torch.autograd.grad(y, (z, c))

    torch.testing.assert_close(third(genkern.bias_act), third(reference.forward))


def test_the_memory_format_is_kept_in_both_orders():
    x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    b = torch.randn(8, requires_grad=True)
    y = genkern.bias_act(x, b, act="tanh")
    assert y.is_contiguous(memory_format=torch.channels_last)
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    g.square().sum().backward()
    assert g.stride() == x.grad.stride() == x.stride()


class Critic(torch.nn.Module):
    """Convolutions and a penalty's worth of activations."""

    def __init__(self, function, act):
        super().__init__()
        torch.manual_seed(0)
        self.convolutions = torch.nn.ModuleList(
            [torch.nn.Conv2d(3, 6, 3, 2, 1, bias=False), torch.nn.Conv2d(6, 5, 3, 2, 1, bias=False)]
        )
        self.biases = torch.nn.ParameterList([torch.randn(6), torch.randn(5)])
        self.function, self.act = function, act

    def forward(self, x):
        for convolution, bias in zip(self.convolutions, self.biases, strict=True):
            x = self.function(convolution(x), bias, act=self.act, gain=2**0.5)
        return x.sum((1, 2, 3))


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_gradient_penalties_equal_pure_pytorch(act):
    found = []
    for function in (genkern.bias_act, reference.forward):
        critic = Critic(function, act).double()
        x = torch.linspace(-1, 1, 2 * 3 * 64, dtype=F64).view(2, 3, 8, 8).sin().requires_grad_()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        r1 = g.square().sum((1, 2, 3)).mean()
        gp = (g.flatten(1).norm(dim=1) - 1).square().mean()
        weights = [*critic.convolutions.parameters(), *critic.biases]
        both = torch.autograd.grad(r1 + gp, weights, allow_unused=True, materialize_grads=True)
        found.append((r1, gp, *both))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


MUTANTS = {
    "no bias": lambda x, b, **k: reference.forward(x, None, **k),
    "no gain": lambda x, b, **k: reference.forward(x, b, **k | {"gain": 1.0}),
    "gain before the activation": lambda x, b, act, alpha=0.2, gain=1.0, clamp=None, dim=1: (
        reference.forward(gain * (x + b[:, None]), None, act, alpha, 1.0, clamp)
    ),
    "no clamp": lambda x, b, **k: reference.forward(x, b, **k | {"clamp": None}),
    "approximate gelu": lambda x, b, act, gain, clamp: (
        torch.nn.functional.gelu(x + b[:, None], approximate="tanh") * gain
    ).clamp(-clamp, clamp),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    options = {"act": "gelu", "gain": 1.5, "clamp": 1.25}
    inputs, upstream = [torch.randn(2, 3, 40), torch.randn(3)], [torch.randn(2, 3, 40)]
    check(inputs, upstream, **options)
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, definition=MUTANTS[name], **options)


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_gradient_of_a_piecewise_linear_function_has_a_gradient(create_graph):
    """In the upstream gradient, also where it is to be differentiated again."""
    x, w = torch.tensor([-1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    y = w * genkern.bias_act(x, act="lrelu", dim=0)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (d,) = torch.autograd.grad(g.square().sum(), w, create_graph=create_graph)
    torch.testing.assert_close(d.detach(), torch.tensor(2 * 3.0 * (0.2**2 + 1)))
