"""gradient_penalty: values, gradients, and gradients of gradients."""

import functools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.ops.gradient_penalty import KINDS
from genkern.reference import gradient_penalty as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64


def second(function, inputs, upstream, direction):
    """Gradients in upstream and input of the gradient along ``direction``."""
    g, u = inputs[0].detach().requires_grad_(), upstream.detach().requires_grad_()
    (found,) = torch.autograd.grad(function(g), g, u, create_graph=True)
    return torch.autograd.grad(found, (u, g), direction, allow_unused=True, materialize_grads=True)


def rows(x):
    return x.reshape(x.shape[0], x[:1].numel())


def magnitudes(g, u, h, kind="wgan_gp", target=1.0, weight=10.0, reduction="mean", **_):
    """Sizes of what is rounded in the penalty, in its gradient, and in the two of second order."""
    g, h, N = rows(g), rows(h), max(1, g.shape[0])
    r = g.norm(dim=1, keepdim=True)
    inverse = torch.where(r == 0, 0.0, 1 / r)
    if kind in ("r1", "r2"):
        value, slope, bend = weight * r.square(), weight * torch.ones_like(r), torch.zeros_like(r)
    else:
        value, slope = weight * (r + target).square(), 2 * weight * (1 + target * inverse)
        bend = 2 * weight * target * inverse
    u = u.abs().reshape(-1, 1) / (N if reduction == "mean" else 1)
    unit = g.abs() * inverse
    of_upstream = slope * (h.abs() * g.abs()).sum(1, keepdim=True)
    of_g = u * (slope * h.abs() + bend * (unit * h.abs()).sum(1, keepdim=True) * unit)
    values = [value.squeeze(1), u * slope * g.abs(), of_upstream.squeeze(1), of_g]
    if reduction != "none":
        values[0], values[2] = (x.sum() / (N if reduction == "mean" else 1)
                                for x in (values[0], values[2]))  # fmt: skip
    return values


def check(inputs, upstream, function=genkern.gradient_penalty, definition=reference.forward,
          **options):  # fmt: skip
    """Values, the gradient and both of its gradients against the float64 definition."""
    (g,), (u,) = inputs, upstream
    function, definition = (functools.partial(f, **options) for f in (function, definition))
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(g.shape, generator=generator, dtype=F64, device="cpu").to(g)
    (got,), (d_g,) = run(function, inputs, upstream)
    (want,), (want_d,) = run(definition, double(inputs), double(upstream))
    sizes = magnitudes(g.double(), u.double(), h.double(), **options)
    assert got.dtype == d_g.dtype == g.dtype
    assert_close(got, want, scale=sizes[0], name="penalty")
    assert_close(d_g, want_d, scale=sizes[1].reshape(g.shape), name="d_gradient")
    found = second(function, inputs, u, h)
    wanted = second(definition, double(inputs), u.double(), h.double())
    assert_close(found[0], wanted[0], scale=sizes[2], name="second d_upstream")
    assert_close(found[1], wanted[1], scale=sizes[3].reshape(g.shape), name="second d_gradient")


@st.composite
def problems(draw):
    rest = draw(st.sampled_from([(), (1,), (7,), (40,), (3, 5), (2, 3, 2), (1100,)]))
    shape, dtype = (draw(sizes(5)), *rest), draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e-20, 30.0]))
    g = draw(tensors(shape, dtype, scale))
    if shape[0] > 1 and draw(st.booleans()):
        g = g * torch.arange(shape[0]).clamp(max=1).to(g).view(-1, *[1] * len(rest))
    options = {"kind": draw(st.sampled_from(KINDS)), "weight": draw(st.sampled_from([10.0, 0.5]))}
    options["reduction"] = draw(st.sampled_from(["none", "mean", "sum"]))
    if options["kind"] in ("wgan_gp", "dragan"):
        options["target"] = draw(st.sampled_from([1.0, 0.0, 2.5]))
        options["one_sided"] = draw(st.booleans())
    if options["reduction"] == "none":
        return [g], [draw(tensors(shape[:1], dtype))], options
    return [g], [draw(tensors((), dtype, layout="contiguous"))], options


@given(problems())
@examples(1.5)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    if options["reduction"] == "mean" and inputs[0].shape[0] == 0:
        return  # the mean of nothing
    check(inputs, upstream, **options)
    assert genkern.last_backend("gradient_penalty") == backend()


def test_rows_of_several_segments():
    for dtype in (torch.float32, torch.bfloat16):
        check([torch.randn(2, 20_001, dtype=dtype)], [torch.randn(2, dtype=dtype)],
              reduction="none", target=50.0)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one_sided", [False, True])
def test_at_a_gradient_of_zero_every_derivative_is_zero(kind, one_sided):
    if one_sided and kind in ("r1", "r2"):
        return
    for dtype in DTYPES:
        g = torch.zeros(3, 5, dtype=dtype, requires_grad=True)
        u = torch.ones(3, dtype=dtype, requires_grad=True)
        p = genkern.gradient_penalty(g, kind=kind, one_sided=one_sided, reduction="none")
        assert torch.equal(p, torch.full((3,), 0.0 if one_sided or kind[0] == "r" else 10.0).to(p))
        (d,) = torch.autograd.grad(p, g, u, create_graph=True)
        assert torch.equal(d, torch.zeros_like(g))
        d_u, d_g = torch.autograd.grad(d, (u, g), torch.ones_like(d))
        assert torch.equal(d_u, torch.zeros_like(u))
        assert torch.equal(d_g, torch.full_like(g, 10.0 if kind[0] == "r" else 0.0))


def test_no_gradient_is_so_large_or_small_that_its_direction_is_lost():
    for scale in (1e-30, 1e30):
        g = torch.full((2, 4), scale, requires_grad=True)
        (d,) = torch.autograd.grad(genkern.gradient_penalty(g, reduction="sum"), g)
        want = 20.0 * (2 * scale - 1.0) / (2 * scale) * scale
        torch.testing.assert_close(d, torch.full_like(g, want))
    half = torch.full((1, 4096), 600.0, dtype=torch.float16)  # the squares are beyond float16
    value = genkern.gradient_penalty(half, kind="r1", weight=1e-5)
    torch.testing.assert_close(value.item(), 0.5e-5 * 4096 * 600.0**2, rtol=1e-3, atol=0.0)


def test_nan_and_inf_reach_their_own_item():
    g = torch.ones(3, 4)
    g[0, 1], g[1, 2] = torch.nan, torch.inf
    for options in ({}, {"one_sided": True}, {"kind": "r1"}):
        p = genkern.gradient_penalty(g, reduction="none", **options)
        assert p[0].isnan() and p[1] == torch.inf and p[2].isfinite()


def test_a_target_may_be_a_tensor_that_is_not_read():
    g = torch.randn(4, 6, requires_grad=True)
    for target in (0.0, 0.75):
        number = genkern.gradient_penalty(g, target=target)
        tensor = genkern.gradient_penalty(g, target=torch.tensor(target))
        assert torch.equal(number, tensor)
        grads = [torch.autograd.grad(x, g) for x in (number, tensor)]
        assert torch.equal(*(d for (d,) in grads))


def test_the_second_order_runs_kernels():
    g = torch.randn(3, 8, dtype=F64, requires_grad=True)
    with torch.profiler.profile() as profiler:
        (d,) = torch.autograd.grad(genkern.gradient_penalty(g), g, create_graph=True)
        d.square().sum().backward()
    names = [event.key for event in profiler.key_averages()]
    assert "genkern::gradient_penalty_backward_backward" in names and "aten::sqrt" not in names


MUTANTS = {
    "no half": lambda g, **k: 2 * reference.forward(g, **k) if k["kind"][0] == "r"
    else reference.forward(g, **k) + 1e-3,
    "another target": lambda g, **k: reference.forward(g, **k | {"target": 0.9})
    + (1e-3 if k["kind"][0] == "r" else 0),
    "not squared": lambda g, **k: reference.forward(g, **k).sqrt(),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("kind", ["wgan_gp", "r1"])
def test_the_property_test_catches_wrong_definitions(name, kind):
    options = {"kind": kind, "weight": 2.0, "reduction": "mean"}
    g, u = torch.randn(3, 5), torch.tensor(0.7)
    check([g], [u], **options)
    with pytest.raises(AssertionError, match="elements off"):
        check([g], [u], definition=MUTANTS[name], **options)
