"""spectral_norm and spectral_norm_step: values, gradients, known singular values."""

import functools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

import genkern
from genkern.reference import spectral_norm as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64


def vectors(shape, dim, dtype, seed=3):
    """Of any length: nothing but the quotient assumes that they are unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    rows = shape[dim]
    columns = torch.Size(shape).numel() // max(1, rows)
    draw = lambda n: torch.rand(n, generator=generator, dtype=F64, device="cpu") + 0.1  # noqa: E731
    place = torch.get_default_device()
    return tuple(x.to(place, dtype) for x in (draw(rows), draw(columns)))


def scaled(weight, *, u, v, dim=0):
    return genkern.spectral_norm([weight], [u], [v], dim=dim)[0]


def defined(weight, *, u, v, dim=0):
    return reference.forward(weight, u.to(weight), v.to(weight), dim)


def check(inputs, upstream, function=scaled, definition=defined, *, u, v, dim=0):
    """Values and gradients against the float64 definition."""
    (w,), (d,) = inputs, upstream
    options = {"u": u.to(w.dtype), "v": v.to(w.dtype), "dim": dim}
    exact = options | {"u": options["u"].double(), "v": options["v"].double()}
    (got,), (d_w,) = run(functools.partial(function, **options), inputs, upstream)
    (want,), (want_d,) = run(functools.partial(definition, **exact), double(inputs),
                             double(upstream))  # fmt: skip
    matrix = functools.partial(reference.matrix, dim=dim)
    size = exact["u"].abs() @ (matrix(w.double().abs()) @ exact["v"].abs())
    sigma = (exact["u"] @ (matrix(w.double()) @ exact["v"])).abs()
    terms, off = max(1, w.numel()), size / sigma  # how much of sigma is cancelled
    assert got.dtype == d_w.dtype == w.dtype
    assert_close(got, want, terms=terms, scale=want.abs() * (1 + off), name="output")
    along = (d.double() * want).abs().sum() / sigma
    outer = along * exact["u"].abs()[:, None] * exact["v"].abs()[None, :] / 1.0
    shape = (w.shape[dim], *w.movedim(dim, 0).shape[1:])
    outer = outer.reshape(shape).movedim(0, dim)
    scale = (d.double().abs() / sigma + outer) * (1 + off)
    assert_close(d_w, want_d, terms=terms, scale=scale, name="d_weight")


@st.composite
def problems(draw):
    rest = draw(st.sampled_from([(1,), (7,), (3, 5), (2, 3, 2), (1, 1030)]))
    shape = (draw(sizes(5).filter(bool)), *rest)
    dim, dtype = draw(st.integers(0, len(rest))), draw(st.sampled_from(DTYPES))
    w = draw(tensors(shape, dtype)).abs()  # of one sign, so that sigma does not cancel
    u, v = vectors(shape, dim, dtype)
    return [w], [draw(tensors(shape, dtype))], {"u": u, "v": v, "dim": dim}


@given(problems())
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    check(inputs, upstream, **options)
    assert genkern.last_backend("spectral_norm") == backend()


def test_steps_match_the_float64_reference():
    for shape, dim in (((5, 7), 0), ((3, 4, 2, 2), 1), ((2, 3000), 0), ((1, 1), 0), ((40, 3), 0)):
        for dtype in DTYPES:
            w = torch.randn(shape).to(dtype)
            u, v = vectors(shape, dim, dtype)
            for steps in (0, 1, 3):
                (a,), (b,) = genkern.spectral_norm_step([w], [u], [v], dim=dim, steps=steps)
                exact = reference.step(*double([w, u, v]), dim, steps)
                for got, want in zip((a, b), exact, strict=True):
                    # A step turns a vector by what rounding turns the last one by, at most.
                    assert got.dtype == dtype
                    assert_close(got, want, terms=w.numel() * (1 + steps), scale=1.0)


@pytest.mark.parametrize("dtype, within", [(F64, 1e-12), (torch.float32, 1e-6)])
def test_known_singular_values_after_fifty_steps(dtype, within):
    """diag(3, 2, 1, ...) between orthogonal matrices: (2 / 3)^100 is below 1e-17."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=F64))[0] for n in (6, 9))
    values = torch.zeros(6, 9, dtype=F64)
    values.diagonal().copy_(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.25, 0.0]))
    w = (left @ values @ right).to(dtype)
    u, v = vectors(w.shape, 0, dtype)
    u, v = genkern.spectral_norm_step([w], [u], [v], steps=50)
    (scaled,) = genkern.spectral_norm([w], u, v)
    assert abs((w[0, 0] / scaled[0, 0]).item() / 3.0 - 1) < within
    assert (scaled * 3.0 - w).abs().max() < 4 * within
    assert abs(torch.linalg.matrix_norm(scaled.double(), 2).item() - 1) < 4 * within


@pytest.mark.parametrize(
    "layer, shape",
    [(nn.Conv2d(3, 5, 3), (2, 3, 6, 6)), (nn.ConvTranspose2d(4, 3, 2), (2, 4, 3, 3)),
     (nn.Linear(7, 4), (5, 7)), (nn.Embedding(6, 3), None)],
)  # fmt: skip
def test_training_steps_are_those_of_torch(layer, shape):
    """The same vectors, sigma, output and gradient as torch's parametrisation, step for step."""
    torch.manual_seed(0)
    ours = genkern.nn.SpectralNorm(layer.double())
    theirs = type(layer)(
        **{
            k: getattr(layer, k)
            for k in layer.__constants__
            if k
            in (
                "in_channels",
                "out_channels",
                "kernel_size",
                "in_features",
                "out_features",
                "num_embeddings",
                "embedding_dim",
            )
        }
    )
    theirs.double().load_state_dict(layer.state_dict())
    nn.utils.parametrizations.spectral_norm(theirs)
    state = theirs.parametrizations.weight[0]
    u, v = ours._vectors("u")[0], ours._vectors("v")[0]
    state._u.copy_(u), state._v.copy_(v)
    x = torch.tensor([0, 3]) if shape is None else torch.randn(shape, dtype=F64)
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        y, z = ours(x), theirs(x)
        torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
        (d,) = torch.autograd.grad(y.square().sum(), layer.weight)
        (e,) = torch.autograd.grad(z.square().sum(), theirs.parametrizations.weight.original)
        torch.testing.assert_close(d, e, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours._vectors("u")[0], state._u, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours._vectors("v")[0], state._v, rtol=1e-12, atol=1e-12)


MUTANTS = {
    "sigma squared": lambda w, *, u, v, dim: w / (defined(w, u=u, v=v, dim=dim) / w).pow(-2),
    "sigma has no gradient": lambda w, *, u, v, dim: (
        w / (u @ (reference.matrix(w, dim).detach() @ v))
    ),
    "rows and columns exchanged": lambda w, *, u, v, dim: defined(w.mT, u=u, v=v, dim=dim).mT,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    w, d = torch.rand(4, 4), torch.randn(4, 4)
    u, v = vectors((4, 4), 0, torch.float32)
    check([w], [d], u=u, v=v, dim=0)
    with pytest.raises(AssertionError, match="elements off"):
        check([w], [d], definition=MUTANTS[name], u=u, v=v, dim=0)
