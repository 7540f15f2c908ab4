"""upfirdn2d: values, gradients, and their gradients."""

import functools

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given

import genkern
from genkern.reference import upfirdn2d as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
BLUR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def defined(input, *, filter, up=1, down=1, padding=0, gain=1.0):
    """The definition behind the public arguments."""
    sides = list(padding) if isinstance(padding, (list, tuple)) else [padding, padding]
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    image = input if input.ndim == 4 else input[None]
    y = reference.forward(image, filter.to(input.dtype), up, down, tuple(sides), gain)
    return y if input.ndim == 4 else y[0]


def call(input, *, filter, **options):
    return genkern.upfirdn2d(input, filter, **options)


def check(inputs, upstream, function=call, definition=defined, **options):
    """Values, the gradient and the gradient's gradient of ``function`` against the definition."""
    (x,), (d,) = inputs, upstream
    filter = options["filter"]
    exact = options | {"filter": filter.double()}
    absolute = exact | {"filter": exact["filter"].abs(), "gain": abs(options.get("gain", 1.0))}
    terms = filter.numel() ** (2 if filter.ndim == 1 else 1)
    call, want_call = (functools.partial(f, **o)
                       for f, o in ((function, options), (definition, exact)))  # fmt: skip
    size = functools.partial(defined, **absolute)
    (got,), (d_x,) = run(call, inputs, upstream)
    (want,), (want_d,) = run(want_call, double(inputs), double(upstream))
    _, (scale,) = run(size, double(inputs), [d.double().abs()])
    assert got.dtype == d_x.dtype == x.dtype
    assert_close(got, want, terms=terms, scale=size(x.double().abs()), name="output")
    assert_close(d_x, want_d, terms=terms, scale=scale, name="d_input")
    leaf, up = x.detach().requires_grad_(), d.detach().requires_grad_()
    (g,) = torch.autograd.grad(call(leaf), leaf, up, create_graph=True)
    (second,) = torch.autograd.grad(g, up, x)
    assert second.dtype == x.dtype
    assert_close(second, want, terms=terms, scale=size(x.double().abs()), name="second d_upstream")


def result_sizes(H, W, filter, up, down, padding):
    left, right, top, bottom = padding
    return ((H * up + top + bottom - filter.shape[0]) // down + 1,
            (W * up + left + right - filter.shape[-1]) // down + 1)  # fmt: skip


@st.composite
def problems(draw, widest=70, longest=24):
    N, C, H, W = (
        draw(sizes(2)),
        draw(sizes(2)),
        draw(sizes(8)),
        draw(st.one_of(sizes(9), st.integers(0, widest))),
    )
    up, down = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    taps = draw(
        st.one_of(
            st.tuples(st.integers(1, longest)), st.tuples(st.integers(1, 5), st.integers(1, 7))
        )
    )
    filter = draw(tensors(taps, draw(st.sampled_from([torch.float32, F64])), layout="contiguous"))
    if draw(st.booleans()):
        up, down, filter = *draw(st.sampled_from([(1, 1), (2, 1), (1, 2)])), BLUR
    padding = [draw(st.integers(-2, 7)) for _ in range(4)]
    padding[1] += max(0, filter.shape[-1] - W * up - sum(padding[:2]))
    padding[3] += max(0, filter.shape[0] - H * up - sum(padding[2:]))
    dtype = draw(st.sampled_from(DTYPES))
    options = {"filter": filter, "up": up, "down": down, "padding": tuple(padding)}
    options["gain"] = draw(st.sampled_from([1.0, 4.0, -0.5]))
    shape = (N, C, *result_sizes(H, W, filter, up, down, padding))
    return [draw(tensors((N, C, H, W), dtype))], [draw(tensors(shape, dtype))], options


@given(problems())
@examples(2)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    check(inputs, upstream, **options)
    assert genkern.last_backend("upfirdn2d") == backend()


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (3, 2), (2, 5), (4, 3)])
def test_every_row_is_that_of_scipy(up, down):
    """Padding of taps - 1 before, and of taps - up behind, gives the full convolution."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 33))
    for taps in (1, 4, 7):
        f = rng.standard_normal(taps)
        behind = taps - up
        rows = genkern.upfirdn2d(torch.from_numpy(x), torch.from_numpy(f)[None], up=up, down=down,
                                 padding=(taps - 1, behind, 0, 0))  # fmt: skip
        want = scipy.signal.upfirdn(f, x, up, down, axis=3)
        np.testing.assert_allclose(rows[:, :, ::1][..., 0, :], want[..., 0, :], rtol=0, atol=1e-12)
        both = genkern.upfirdn2d(torch.from_numpy(x), torch.from_numpy(f), up=up, down=down,
                                 padding=(taps - 1, behind) * 2)  # fmt: skip
        np.testing.assert_allclose(both, scipy.signal.upfirdn(f, want, up, down, axis=2),
                                   rtol=0, atol=1e-12)  # fmt: skip


def test_sizes_around_the_blocks_of_rows():
    for H in (63, 65, 130):
        for up, down in ((2, 1), (1, 2)):
            sizes = result_sizes(H, 9, BLUR, up, down, (2, 1, 2, 1))
            for dtype in (torch.float32, torch.bfloat16):
                check([torch.randn(1, 2, H, 9, dtype=dtype)],
                      [torch.randn(1, 2, *sizes, dtype=dtype)],
                      filter=BLUR, up=up, down=down, padding=(2, 1, 2, 1))  # fmt: skip


def test_integers_are_exact():
    x, f = torch.randint(-8, 8, (2, 3, 9, 21)).float(), torch.randint(-4, 5, (4,)).float()
    for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):
        options = {"up": up, "down": down, "padding": (2, 1)}
        assert torch.equal(genkern.upfirdn2d(x, f, **options), defined(x, filter=f, **options))


def test_a_constant_image_stays_constant_when_it_grows():
    y = genkern.upfirdn2d(torch.ones(1, 1, 9, 9), BLUR, up=2, padding=(2, 1, 2, 1), gain=4)
    assert torch.equal(y[..., 2:-2, 2:-2], torch.ones(1, 1, 14, 14))


def test_nan_and_inf_reach_the_pixels_of_their_taps_alone():
    x = torch.ones(1, 1, 8, 20)
    x[0, 0, 3, 10] = torch.nan
    for up, down in ((1, 1), (2, 1), (1, 2)):
        y = genkern.upfirdn2d(x, BLUR, up=up, down=down, padding=(2, 1))
        ones = torch.ones_like(BLUR)
        met = defined(torch.nan_to_num(x, nan=1e6), filter=ones, up=up, down=down, padding=(2, 1))
        assert torch.equal(y.isnan(), met >= 1e6)


def test_the_backward_pass_keeps_the_shape_alone_and_any_order_runs_the_kernels():
    x = torch.randn(2, 3, 6, 6, dtype=F64, requires_grad=True)
    y = genkern.upfirdn2d(x, BLUR, up=2, padding=(2, 1))
    storages = [t.untyped_storage().nbytes() for t in y.grad_fn.saved_tensors]
    assert storages == [F64.itemsize, 4 * F64.itemsize]
    with torch.profiler.profile() as profiler:
        total = y.square().sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(total, x, create_graph=True)
            total = g.square().sum()
    names = [event.key for event in profiler.key_averages()]
    assert "aten::convolution" not in names and "genkern::upfirdn2d_forward" in names


class Critic(torch.nn.Module):
    """A blur before each convolution of stride 2, and a skip that is halved."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(2, 4, 3, 2)
        self.last = torch.nn.Conv2d(4, 1, 1)
        self.skip = torch.nn.Conv2d(2, 4, 1, bias=False)
        self.function = function

    def forward(self, x):
        f = BLUR.to(x)
        h = self.first(self.function(x, filter=f, padding=(2, 2)))
        h = h + self.skip(self.function(x, filter=f, down=2, padding=1, gain=2.0))
        h = self.function(torch.tanh(h), filter=f, up=2, padding=(2, 1), gain=4.0)
        return torch.tanh(self.last(h)).sum((1, 2, 3))


def test_gradient_penalties_equal_pure_pytorch():
    found = []
    for function in (call, defined):
        critic = Critic(function).double()
        x = torch.linspace(-1, 1, 2 * 2 * 64, dtype=F64).view(2, 2, 8, 8).sin().requires_grad_()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        r1 = g.square().sum((1, 2, 3)).mean()
        gp = (g.flatten(1).norm(dim=1) - 1).square().mean()
        weights = list(critic.parameters())
        found.append((r1, gp, *torch.autograd.grad(r1 + gp, weights, allow_unused=True,
                                                   materialize_grads=True)))  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


MUTANTS = {
    "correlation": lambda x, *, filter, **k: defined(x, filter=filter.flip(0), **k),
    "repeated and not zeros": lambda x, *, up, **k: defined(
        x.repeat_interleave(up, 2).repeat_interleave(up, 3), **k),
    "another pixel kept": lambda x, **k: defined(x.roll(1, 3), **k),
    "no gain": lambda x, **k: defined(x, **k | {"gain": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    options = {"filter": torch.tensor([1.0, 2.0, 4.0, 8.0]), "up": 2, "down": 3, "padding": (3, 2)}
    options["gain"] = 0.25
    x = torch.randn(1, 2, 8, 9)
    y = torch.randn_like(call(x, **options))
    check([x], [y], **options)
    with pytest.raises(AssertionError, match="elements off"):
        check([x], [y], definition=MUTANTS[name], **options)
