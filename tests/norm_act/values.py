"""norm_act: values, gradients, gradients of gradients, running statistics."""

import functools
import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.reference import norm_act as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import ACCUMULATION, assert_close

F64 = torch.float64
ACTIVATIONS = tuple(reference.ACTIVATIONS)


def calls(labels=None, running=None, over_batch=False, act="linear", alpha=0.2, eps=1e-5):
    """The public call of (input, weight, bias), and its definition."""

    def function(input, weight, bias):
        if not over_batch:
            return genkern.instance_norm_act(input, weight, bias, act=act, alpha=alpha, eps=eps)
        mean, variance = running or (None, None)
        options = {"training": running is None, "act": act, "alpha": alpha, "eps": eps}
        found = genkern.conditional_batch_norm(
            input, labels, weight, bias, mean, variance, **options
        )
        return found[0]

    def definition(input, weight, bias):
        mean, variance = (t.to(input) for t in running) if running else (None, None)
        rows = (labels, mean, variance, over_batch)
        return reference.forward(input, weight, bias, *rows, act, alpha, eps)[0]

    return function, definition


class Sizes:
    """Sizes of what is rounded: the formulas of csrc/norm_act/norm_act.h with every term
    positive, and |x| + |mean| in the place of their difference."""

    def __init__(self, inputs, dtype, labels=None, running=None, over_batch=False, act="linear",
                 alpha=0.2, eps=1e-5):  # fmt: skip
        x, weight, bias = double(inputs)
        self.labels, self.x, self.constant = labels, x, running is not None
        self.dims = (*([0] if over_batch else []), *range(2, x.ndim))
        _, mean, variance = reference.forward(
            x, None, None, None, *(running or (None, None)), over_batch
        )
        mean, variance = (self.column(t.double()) for t in (mean, variance))
        self.s = (variance + eps).rsqrt()
        self.w = self.planes(weight, 1.0).abs()
        self.h = self.s * (x.abs() + mean.abs() + self.mean(x.abs(), always=True))
        self.z = (x - mean) * self.s * self.planes(weight, 1.0) + self.planes(bias, 0.0)
        self.size = self.w * self.h + self.planes(bias, 0.0).abs()
        self.terms = max(1, x.numel() // max(1, mean.numel()))
        z, found = self.z.detach().requires_grad_(), []
        for k in range(4):
            value = reference.ACTIVATIONS[act](z, alpha) if k == 0 else found[-1]
            if k and value.requires_grad:
                (value,) = torch.autograd.grad(value.sum(), z, create_graph=True)
            found.append(torch.zeros_like(z) if k and not found[-1].requires_grad else value)
        cancels = torch.finfo(F64).eps / torch.finfo(ACCUMULATION[dtype]).eps
        self.of_act = [a.detach().abs() + b.detach().abs() * self.size
                       + cancels * (1 + self.size) ** 2
                       for a, b in itertools.pairwise(found)]  # fmt: skip
        eps = 16 * torch.finfo(ACCUMULATION[dtype]).eps * self.terms**0.5
        self.kept = torch.where(self.z.abs() <= eps * self.size, 0.0, 1.0)

    def mean(self, t, always=False):
        if self.constant and not always:
            return torch.zeros(())
        return t.mean(self.dims, keepdim=True) if self.dims else t

    def column(self, rows):
        return rows.view(*rows.shape, *[1] * (self.x.ndim - 2))

    def planes(self, rows, otherwise):
        if rows is None:
            return torch.tensor(otherwise, dtype=F64)
        return self.column((rows if self.labels is None else rows[self.labels]).double())

    def rows(self, t, like):
        """The sums of an image's planes, added to the rows that they belong to."""
        if like is None:
            return None
        t = t.flatten(2).sum(2) if t.ndim > 2 else t
        if self.labels is not None:
            return torch.zeros(like.shape, dtype=F64).index_add(0, self.labels.long(), t)
        return t.sum(0) if like.ndim == 1 else t

    def first(self, d, weight, bias):
        q = d.double().abs() * self.of_act[1]
        t = self.w * q
        d_x = self.s * (t + self.mean(t) + self.h * self.mean(t * self.h))
        return d_x, self.rows(q * self.h, weight), self.rows(q, bias)

    def second(self, d, g, g_w, g_b, weight, bias):
        d, g = d.double().abs(), g.double().abs()
        g_w, g_b = (self.planes(t, 0.0).abs() for t in (g_w, g_b))
        q, gh = d * self.of_act[1], self.mean(g * self.h)
        t = self.w * q
        u = g + self.mean(g) + self.h * gh
        v = self.w * self.s * u + g_w * self.h + g_b
        e = d * self.of_act[2] * v
        a = self.w * e + g_w * q + self.s * (t * gh + g * self.mean(t * self.h))
        d_x = self.s * (a + self.mean(a) + self.h * self.mean(a * self.h))
        d_x = d_x + self.s**2 * self.h * self.mean(t * u)
        of_w = self.rows(e * self.h + self.s * q * u, weight)
        return self.of_act[1] * v, d_x, of_w, self.rows(e, bias)


def second(function, inputs, upstream, directions):
    """Gradients in upstream and inputs of the gradients along ``directions``."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in (upstream, *inputs)]
    wanted = [x for x in leaves if x is not None]
    y = function(*leaves[1:])
    found = torch.autograd.grad(y, wanted[1:], leaves[0], create_graph=True)
    got = iter(torch.autograd.grad(found, wanted, directions, allow_unused=True,
                                   materialize_grads=True))  # fmt: skip
    return [x if x is None else next(got) for x in leaves]


def check_second(inputs, upstream, scales, function, definition):
    generator = torch.Generator().manual_seed(1)
    all_three = [x if x is None else torch.randn(x.shape, generator=generator, dtype=F64,
                                                 device="cpu").to(x) for x in inputs]  # fmt: skip
    directions = [x for x in all_three if x is not None]
    got = second(function, inputs, upstream, directions)
    want = second(definition, double(inputs), upstream.double(), double(directions))
    limits = scales.second(upstream, *all_three, *inputs[1:])
    kept = [scales.kept, 1.0, 1.0, 1.0]
    for i, name in enumerate(("upstream", "input", "weight", "bias")):
        if got[i] is None:
            continue
        assert got[i].dtype == inputs[0].dtype
        terms = scales.terms if i < 2 else max(1, inputs[0].numel())
        assert_close(got[i] * torch.as_tensor(kept[i]).to(got[i]), want[i] * kept[i], terms=terms,
                     scale=limits[i], name=f"second d_{name}")  # fmt: skip


def check(inputs, upstream, function=None, definition=None, **options):
    """Values, gradients and their gradients of the call against the float64 definition."""
    inputs, (upstream,) = list(inputs), upstream
    ours, exact = calls(**options)
    function, definition = function or ours, definition or exact
    scales = Sizes(inputs, inputs[0].dtype, **options)
    if (scales.kept == 0).any():  # where rounding decides on the side of a corner
        upstream = upstream * scales.kept.to(upstream)
    (got,), grads = run(function, inputs, [upstream])
    (want,), wanted = run(definition, double(inputs), [upstream.double()])
    assert got.dtype == inputs[0].dtype
    assert_close(got, want, terms=scales.terms, scale=scales.of_act[0], name="output")
    limits = scales.first(upstream, *inputs[1:])
    for i, name in enumerate(("d_input", "d_weight", "d_bias")):
        if grads[i] is None:
            continue
        assert grads[i].dtype == inputs[0].dtype
        terms = max(1, inputs[0].numel()) if i else scales.terms
        assert_close(grads[i], wanted[i], terms=terms, scale=limits[i], name=name)
    check_second(inputs, upstream, scales, function, definition)


@st.composite
def problems(draw):
    N, C = draw(sizes(4)), draw(st.one_of(sizes(5), st.sampled_from([17, 33])))
    places = draw(st.sampled_from([[2], [7], [1, 3], [40], [3, 5], [2, 64], [4, 4]]))
    over_batch = draw(st.booleans())
    if over_batch and N != 1 and draw(st.booleans()):
        places = draw(st.sampled_from([[], [1], [1, 1]]))
    shape, dtype = [N, C, *places], draw(st.sampled_from(DTYPES))
    options = {
        "act": draw(st.sampled_from(ACTIVATIONS)),
        "eps": draw(st.sampled_from([1e-5, 1e-3])),
        "over_batch": over_batch,
    }
    rows = draw(st.sampled_from([None, (C,), (3, C) if over_batch else (N, C)]))
    if over_batch and rows == (3, C):
        options["labels"] = torch.randint(3, (N,), generator=torch.Generator().manual_seed(N))
    if over_batch and draw(st.booleans()):
        mean, variance = draw(tensors((C,), torch.float32)), draw(tensors((C,), torch.float32))
        options["running"] = (mean, variance.square() + 0.1)
    scale = draw(st.sampled_from([1.0, 1.0, 20.0]))
    inputs = [draw(tensors(shape, dtype, scale)), None, None]
    for i in (1, 2):
        if rows is not None and (draw(st.booleans()) or "labels" in options):
            inputs[i] = draw(tensors(rows, dtype))
    return inputs, [draw(tensors(shape, dtype))], options


@given(problems())
@examples(2)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    check(inputs, upstream, **options)
    assert genkern.last_backend("norm_act") == backend()


def test_sizes_around_the_chunks():
    for shape in ((2, 3, 4097), (3, 2, 64, 64), (1, 2, 9001), (70, 3, 3), (3, 1, 8192)):
        for act, over_batch in itertools.product(("lrelu", "swish"), (False, True)):
            inputs = [torch.randn(shape), torch.randn(shape[1]), torch.randn(shape[1])]
            check(inputs, [torch.randn(shape)], act=act, over_batch=over_batch)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_through_classes_and_styles(act):
    labels = torch.tensor([2, 0, 2])
    for dtype in (torch.float32, F64):
        x, d = (torch.randn(3, 2, 5, 7, dtype=dtype) for _ in range(2))
        w, b = (torch.randn(3, 2, dtype=dtype) for _ in range(2))
        check([x, w, b], [d], act=act)
        check([x, w, b], [d], act=act, over_batch=True, labels=labels)


# ---- against torch ---------------------------------------------------------------------------


def test_running_statistics_are_those_of_batch_norm():
    labels, w, b = torch.tensor([1, 0, 1, 1]), torch.randn(2, 3), torch.randn(2, 3)
    plain = torch.nn.BatchNorm2d(3, affine=False, momentum=0.3)
    mean, variance = torch.zeros(3), torch.ones(3)
    for step in range(3):
        x = torch.randn(4, 3, 2, 5) * (1 + step) + step
        before = mean.clone(), variance.clone()
        y, *after = genkern.conditional_batch_norm(
            x, labels, w, b, mean, variance, training=True, momentum=0.3, act="relu"
        )
        assert torch.equal(mean, before[0]) and torch.equal(variance, before[1])
        mean, variance = after
        want = plain(x) * w[labels][:, :, None, None] + b[labels][:, :, None, None]
        torch.testing.assert_close(y, want.relu())
        torch.testing.assert_close(mean, plain.running_mean)
        torch.testing.assert_close(variance, plain.running_var)
        assert not mean.requires_grad
    y, *same = genkern.conditional_batch_norm(x, labels, w, b, mean, variance, training=False)
    want = plain.eval()(x) * w[labels][:, :, None, None] + b[labels][:, :, None, None]
    torch.testing.assert_close(y, want)
    assert same[0] is mean and same[1] is variance


def test_an_empty_batch_leaves_the_running_statistics():
    mean, variance = torch.randn(3), torch.rand(3)
    y, *after = genkern.conditional_batch_norm(
        torch.randn(0, 3, 4, 4), None, None, None, mean, variance, training=True
    )
    assert y.shape == (0, 3, 4, 4) and after[0] is mean and after[1] is variance


def test_a_large_mean_costs_no_digits_of_the_variance():
    values = torch.randn(4, 3, 32, 32, dtype=F64)
    x = (values + 1e3).float()
    for over_batch, dims in ((False, (2, 3)), (True, (0, 2, 3))):
        function, _ = calls(over_batch=over_batch)
        exact = x.double() - x.double().mean(dims, keepdim=True)
        exact = exact / (exact.square().mean(dims, keepdim=True) + 1e-5).sqrt()
        # 1e3 has steps of 6e-5: half of one is what the mean is rounded by.
        assert (function(x, None, None).double() - exact).abs().max() < 5e-5
    _, _, variance = genkern.conditional_batch_norm(
        x, None, None, None, torch.zeros(3), torch.ones(3), training=True, momentum=1.0
    )
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3)), rtol=1e-6, atol=0)


def test_a_value_that_is_not_finite_stays_in_its_group():
    x = torch.randn(2, 3, 4, 4)
    x[1, 2, 0, 0] = torch.inf
    y = genkern.instance_norm_act(x, act="relu")
    assert y[1, 2].isnan().all() and y.isnan().sum() == 16
    y = calls(over_batch=True, act="relu")[0](x, None, None)
    assert y[:, 2].isnan().all() and y.isnan().sum() == 32


def test_third_derivatives_are_those_of_the_formula():
    x, w, b = torch.randn(2, 3, 4, dtype=F64), torch.randn(3, dtype=F64), torch.randn(3, dtype=F64)

    def third(function):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        y = function(*leaves).pow(3).sum()
        for _ in range(2):
            y = sum(g.pow(2).sum() for g in torch.autograd.grad(y, leaves, create_graph=True))
        return torch.autograd.grad(y, leaves)

    for over_batch in (False, True):
        function, definition = calls(act="swish", over_batch=over_batch)
        torch.testing.assert_close(third(function), third(definition), rtol=1e-9, atol=1e-9)


def test_the_memory_format_is_kept_in_both_orders():
    for over_batch in (False, True):
        x = torch.randn(2, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
        y = calls(act="tanh", over_batch=over_batch)[0](x, torch.randn(8), None)
        assert y.is_contiguous(memory_format=torch.channels_last)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        g.square().sum().backward()
        assert g.stride() == x.grad.stride() == x.stride()


# ---- tests of the tests ----------------------------------------------------------------------


def mutant(change):
    """From a change of (h, w, b) to a definition that is wrong by it."""

    def definition(input, weight, bias, eps=1e-5, unbiased=False, constant=False):
        variance, mean = torch.var_mean(input, (2, 3), correction=int(unbiased), keepdim=True)
        if constant:
            variance, mean = variance.detach(), mean.detach()
        h = (input - mean) * torch.rsqrt(variance + eps)
        return torch.nn.functional.leaky_relu(
            change(h, weight[:, :, None, None], bias[:, :, None, None]), 0.2
        )

    return definition


RIGHT = mutant(lambda h, w, b: h * w + b)
MUTANTS = {
    "no bias": mutant(lambda h, w, b: h * w),
    "no weight": mutant(lambda h, w, b: h + b),
    "weight of another image": mutant(lambda h, w, b: h * w.flip(0) + b),
    "weight behind the bias": mutant(lambda h, w, b: (h + b) * w),
    "unbiased variance": functools.partial(RIGHT, unbiased=True),
    "another eps": functools.partial(RIGHT, eps=1e-3),
    "statistics are constants": functools.partial(RIGHT, constant=True),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    inputs = [torch.randn(2, 3, 5, 8), torch.randn(2, 3), torch.randn(2, 3)]
    upstream = [torch.randn(2, 3, 5, 8)]
    check(inputs, upstream, definition=RIGHT, act="lrelu")
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, definition=MUTANTS[name], act="lrelu")
