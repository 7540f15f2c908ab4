"""filtered_act: values, gradients, and gradients of gradients."""

import functools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from genkern.reference import filtered_act as reference
from genkern.reference import upfirdn2d
from genkern.reference.activations import ACTIVATIONS
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import ACCUMULATION, assert_close

F64 = torch.float64
UP = torch.tensor([-1.0, 3.0, 9.0, 3.0, -1.0, 2.0]) / 15
DOWN = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
SQUARE = torch.tensor([[1.0, 2.0, -1.0], [0.5, 4.0, 1.0]]) / 8
FILTERS = {"up_filter": UP, "down_filter": DOWN}


def four(padding):
    sides = list(padding) if isinstance(padding, (list, tuple)) else [padding, padding]
    return tuple(sides) if len(sides) == 4 else (sides[0], sides[0], sides[1], sides[1])


def defined(x, b, *, up_filter, down_filter, padding=0, up=2, down=2, **options):
    """The definition behind the public arguments."""
    filters = (f.to(x) for f in (up_filter, down_filter))
    return reference.forward(x, b, *filters, up, down, four(padding), **options)


def call(x, b, **options):
    return genkern.filtered_act(x, b, **options)


class Sizes:
    """Sizes of what is rounded, in float64: the maps of the absolute values."""

    def __init__(self, x, b, dtype, *, up_filter, down_filter, padding=0, up=2, down=2,
                 act="lrelu", alpha=0.2, gain=1.0, clamp=None):  # fmt: skip
        f, g = up_filter.to(x), down_filter.to(x)
        self.shape, self.sides = x.shape, four(padding)
        taps = [k.numel() ** (2 if k.ndim == 1 else 1) for k in (f, g)]
        self.terms = taps[0] + taps[1]
        self.raise_ = lambda v: upfirdn2d.forward(v, f.abs(), up, 1, self.sides, float(up * up))
        self.lower = lambda v: upfirdn2d.forward(v, g.abs(), 1, down)
        biased = x if b is None else x + b[:, None, None]
        z = upfirdn2d.forward(biased, f, up, 1, self.sides, float(up * up)).requires_grad_()
        size = self.raise_(x.abs() + (0 if b is None else b.abs()[:, None, None]))
        found = [ACTIVATIONS[act](z, alpha) * gain]
        for _ in range(3):
            last = found[-1]
            (d,) = torch.autograd.grad(last.sum(), z, create_graph=True) if last.requires_grad \
                else (torch.zeros_like(z),)  # fmt: skip
            found.append(d)
        self.y, self.slope, self.bend, self.third = (v.detach().abs() for v in found)
        eps = 16 * torch.finfo(ACCUMULATION[dtype]).eps * taps[0] ** 0.5
        # Where rounding decides on which side of a corner a value is: what may change there.
        corner = z.detach().abs() <= eps * size
        if clamp is not None:
            corner |= (self.y - clamp).abs() <= eps * (clamp + abs(gain) * size)
        self.corner = corner.double() * abs(gain) * (1 + alpha) / eps
        # The definition's own slopes cancel in their tails, in float64.
        rest = torch.finfo(F64).eps / torch.finfo(ACCUMULATION[dtype]).eps
        rest = abs(gain) * rest * (1 + size) ** 2
        self.of_y = self.y + self.slope * size + rest
        self.of_slope = self.slope + self.bend * size + self.corner + rest
        self.of_bend = self.bend + self.third * size + self.corner + rest

    def adjoint(self, function, v, shape):
        leaf = torch.zeros(shape, dtype=F64, device=v.device).requires_grad_()
        return torch.autograd.grad(function(leaf), leaf, v)[0]

    def gradient(self, tall):
        return self.adjoint(self.raise_, tall, self.shape)

    def along(self, d):
        return self.adjoint(self.lower, d.abs(), self.y.shape)


def second(function, inputs, upstream, directions):
    """Gradients in upstream, input and bias of the gradients along ``directions``."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in (upstream, *inputs)]
    wanted = [x for x in leaves if x is not None]
    found = torch.autograd.grad(function(*leaves[1:]), wanted[1:], leaves[0], create_graph=True)
    return torch.autograd.grad(found, wanted, directions, allow_unused=True, materialize_grads=True)


def check(inputs, upstream, function=call, definition=defined, **options):
    """Values, gradients and their gradients of ``function`` against the float64 definition."""
    inputs, (d,) = list(inputs), upstream
    dtype = inputs[0].dtype
    exact = options | {k: options[k].double() for k in ("up_filter", "down_filter")}
    function = functools.partial(function, **options)
    definition = functools.partial(definition, **exact)
    (got,), (d_x, d_b) = run(function, inputs, [d])
    (want,), (want_x, want_b) = run(definition, double(inputs), [d.double()])
    size = Sizes(*double(inputs), dtype, **exact)
    assert got.dtype == d_x.dtype == dtype
    assert_close(got, want, terms=size.terms, scale=size.lower(size.of_y), name="output")
    along = size.along(d.double())
    scale = size.gradient(size.of_slope * along)
    assert_close(d_x, want_x, terms=size.terms, scale=scale, name="d_input")
    planes = d_x.numel() // max(1, d_x.shape[1])
    of_channel = lambda s: s.sum((0, 2, 3))  # noqa: E731
    if d_b is not None:
        assert_close(d_b, want_b, terms=size.terms + planes, scale=of_channel(scale), name="d_bias")
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(x.shape, generator=generator, dtype=F64, device="cpu").to(x)
                  for x in inputs if x is not None]  # fmt: skip
    found = second(function, inputs, d, directions)
    wanted = second(definition, double(inputs), d.double(), double(directions))
    lengths = [x.double().abs() for x in directions]
    total = lengths[0] + (lengths[1][:, None, None] if len(lengths) > 1 else 0)
    raised = size.raise_(total)
    scales = [size.lower(size.of_slope * raised), size.gradient(size.of_bend * raised * along)]
    scales.append(of_channel(scales[1]))
    for a, b, scale, name in zip(found, wanted, scales, ("d_upstream", "d_input", "d_bias"),
                                 strict=False):  # fmt: skip
        terms = size.terms + (planes if name == "d_bias" else 0)
        assert_close(a, b, terms=terms, scale=scale, name=f"second {name}")


@st.composite
def problems(draw):
    N, C, H, W = draw(sizes(2)), draw(sizes(2)), draw(sizes(6)), draw(st.integers(0, 20))
    up, down = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shapes = st.one_of(
        st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 4), st.integers(1, 5))
    )
    f, g = (draw(tensors(draw(shapes), F64, layout="contiguous")).to(
        draw(st.sampled_from([torch.float32, F64]))) for _ in range(2))  # fmt: skip
    padding = [draw(st.integers(-1, 6)) for _ in range(4)]
    for i, n, axis in ((1, W, -1), (3, H, 0)):
        need = f.shape[axis] + g.shape[axis] - 1 - n * up - padding[i - 1]
        padding[i] = max(padding[i], need)
    dtype = draw(st.sampled_from(DTYPES))
    act = draw(st.sampled_from(["lrelu", "lrelu", *ACTIVATIONS]))
    options = {"up_filter": f, "down_filter": g, "up": up, "down": down, "padding": tuple(padding),
               "act": act, "gain": draw(st.sampled_from([1.0, 2**0.5])),
               "clamp": draw(st.sampled_from([None, 0.5, 256.0]))}  # fmt: skip
    out = [
        (n * up + p - f.shape[axis] + 1 - g.shape[axis]) // down + 1
        for n, p, axis in ((H, sum(padding[2:]), 0), (W, sum(padding[:2]), -1))
    ]
    x = draw(tensors((N, C, H, W), dtype))
    b = draw(tensors((C,), dtype)) if draw(st.booleans()) else None
    return [x, b], [draw(tensors((N, C, *out), dtype))], options


@given(problems())
@examples(2)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    check(inputs, upstream, **options)
    assert genkern.last_backend("filtered_act") == backend()


def test_it_is_the_composition_of_its_three_parts():
    x, b = torch.randn(2, 3, 9, 8), torch.randn(3)
    options = {"act": "swish", "gain": 2**0.5, "clamp": 0.75}
    y = genkern.filtered_act(x, b, **FILTERS, padding=(5, 2, 4, 3), **options)
    tall = genkern.upfirdn2d(x + b[:, None, None], UP, up=2, padding=(5, 2, 4, 3), gain=4.0)
    want = genkern.upfirdn2d(genkern.bias_act(tall, **options), DOWN, down=2)
    torch.testing.assert_close(y, want)


def test_sizes_around_the_blocks_of_rows():
    for H in (31, 33, 70):
        for dtype in (torch.float32, torch.bfloat16):
            x, b = torch.randn(1, 2, H, 9, dtype=dtype), torch.randn(2, dtype=dtype)
            options = FILTERS | {"padding": (4, 3, 4, 3), "act": "swish"}
            y = genkern.filtered_act(x, b, **options)
            assert y.shape[2:] == (H, 9)
            check([x, b], [torch.randn_like(y)], **options)


def test_nothing_of_the_large_image_is_kept():
    x, b = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(3)
    y = genkern.filtered_act(x, b, **FILTERS, padding=(4, 3, 4, 3))
    kept = [t.untyped_storage().nbytes() for t in y.grad_fn.saved_tensors if t is not None]
    assert max(kept) == x.numel() * 4


def test_nan_and_inf_reach_the_pixels_of_their_taps_alone():
    x = torch.ones(1, 1, 12, 12)
    x[0, 0, 5, 6] = torch.nan
    y = genkern.filtered_act(x, **FILTERS, padding=(4, 3, 4, 3), act="softplus")
    rows, columns = y[0, 0].isnan().any(1).nonzero(), y[0, 0].isnan().any(0).nonzero()
    assert 1 < len(rows) < 7 and 1 < len(columns) < 7 and y[0, 0, 0, 0].isfinite()


def test_second_derivatives_of_corners_are_zero_and_not_computed():
    for act in ("linear", "relu", "lrelu", "elu"):
        x, d = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(1, 2, 6, 6)
        y = genkern.filtered_act(x, **FILTERS, padding=(4, 3, 4, 3), act=act)
        (g,) = torch.autograd.grad(y, x, d, create_graph=True)
        assert g.requires_grad == (act == "elu")


def test_both_orders_run_kernels():
    x, b = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(2, requires_grad=True)
    with torch.profiler.profile() as profiler:
        y = genkern.filtered_act(x, b, **FILTERS, padding=(4, 3, 4, 3), act="tanh").square().sum()
        found = torch.autograd.grad(y, (x, b), create_graph=True)
        sum(g.square().sum() for g in found).backward()
    names = [event.key for event in profiler.key_averages()]
    assert "aten::convolution" not in names and "aten::tanh" not in names
    assert "genkern::filtered_act_backward_backward" in names


MUTANTS = {
    "the padding has a bias": lambda x, b, **k: defined(
        x, None, **k | {"act": "linear"}) + b[:, None, None],
    "no activation": lambda x, b, **k: defined(x, b, **k | {"act": "linear"}),
    "the filters exchanged": lambda x, b, *, up_filter, down_filter, **k: defined(
        x, b, up_filter=down_filter, down_filter=up_filter, **k),
    "no gain": lambda x, b, **k: defined(x, b, **k | {"gain": 1.0}),
    "another pixel kept": lambda x, b, **k: defined(x.roll(1, 3), b, **k),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    options = FILTERS | {"padding": (4, 3), "act": "lrelu", "gain": 1.5}
    x, b = torch.randn(1, 2, 6, 7), torch.randn(2)
    d = torch.randn_like(call(x, b, **options))
    check([x, b], [d], **options)
    with pytest.raises(AssertionError, match="elements off"):
        check([x, b], [d], definition=MUTANTS[name], **options)
