"""gaussian_kl, gaussian_rsample, gaussian_kl_rsample."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import genkern
from genkern import random
from genkern.reference import gaussian as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, lay_out, layouts, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64


@st.composite
def problems(draw):
    shape = draw(st.one_of(st.tuples(sizes(9), sizes(70)), st.tuples(sizes(5), sizes(4), sizes(9))))
    dtype = draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1.0, 1e-3, 6.0]))
    num_samples = draw(st.sampled_from([None, None, 0, 1, 3]))
    make = tensors(shape, dtype, scale)
    prior = draw(st.booleans())
    noise = shape if num_samples is None else (num_samples, *shape)
    inputs = [draw(make), draw(make)]
    inputs += [draw(make), draw(make)] if prior else [None, None]
    inputs.append(draw(tensors(noise, dtype)))
    upstream = [draw(tensors(noise, dtype)), draw(tensors(shape[:1], dtype))]
    dropped = draw(st.sampled_from([None, 0, 1]))
    if dropped is not None:
        upstream[dropped] = None
    free_bits = draw(st.sampled_from([0.0, 0.0, 0.25]))
    return inputs, upstream, num_samples, free_bits


def fused(num_samples, free_bits):
    def function(mu, logvar, prior_mu, prior_logvar, eps):
        prior = None if prior_mu is None else (prior_mu, prior_logvar)
        return genkern.gaussian_kl_rsample(
            mu, logvar, prior=prior, free_bits=free_bits, num_samples=num_samples, eps=eps
        )

    return function


def plain(free_bits, kl=reference.kl):
    def function(mu, logvar, prior_mu, prior_logvar, eps):
        return reference.rsample(mu, logvar, eps), kl(mu, logvar, prior_mu, prior_logvar, free_bits)

    return function


def magnitudes(inputs, upstream):
    """Sizes of what is summed in z, kl and each gradient: their formulas in absolute values.

    Rounding D = l - l2 moves e^D by |D| eps e^D, hence the factors 1 + |D|.
    """
    mu, logvar, prior_mu, prior_logvar, eps = double(inputs)
    d_z, d_kl = (torch.zeros(()) if g is None else g for g in double(upstream))
    l2 = torch.zeros(()) if prior_logvar is None else prior_logvar
    d = mu.abs() + (0.0 if prior_mu is None else prior_mu.abs())
    delta, w, noise = logvar - l2, torch.exp(-l2), torch.exp(0.5 * logvar) * eps.abs()
    ratio = (torch.exp(delta) + 1.0) * (1.0 + logvar.abs() + l2.abs())
    g = d_kl.abs().view(-1, *[1] * (mu.ndim - 1)) if d_kl.ndim else d_kl
    flow = lambda t: t.sum(0) if eps.ndim > mu.ndim and t.ndim == eps.ndim else t  # noqa: E731
    kl = (d.square() * w + ratio).flatten(1).sum(1) if mu.ndim > 1 else d.square() * w + ratio
    grads = (
        flow(d_z.abs()) + g * d * w,
        flow(d_z.abs() * noise) + g * ratio,
        g * d * w,
        g * (d.square() * w + ratio),
        d_z.abs() * torch.exp(0.5 * logvar),
    )
    return (mu.abs() + noise, kl), grads


def check(function, definition, inputs, upstream):
    """Values and every gradient of ``function`` against the float64 definition."""
    got, got_grads = run(function, inputs, upstream)
    want, want_grads = run(definition, double(inputs), double(upstream))
    scales, grad_scales = magnitudes(inputs, upstream)
    mu, eps = inputs[0], inputs[4]
    terms = max(1, math.prod(mu.shape[1:]))
    assert_close(got[0], want[0], scale=scales[0], name="z")
    assert_close(got[1], want[1], terms=terms, scale=scales[1], name="kl")
    names = ("mu", "logvar", "prior_mu", "prior_logvar", "eps")
    samples = eps.shape[0] if eps.ndim > mu.ndim else 1
    for i, name in enumerate(names):
        if got_grads[i] is None:
            assert want_grads[i] is None, name
        elif want_grads[i] is None:  # what nothing depends on
            assert not got_grads[i].any(), name
        else:
            assert got_grads[i].dtype == inputs[i].dtype
            scale = grad_scales[i]
            assert_close(got_grads[i], want_grads[i], terms=samples, scale=scale, name=f"d_{name}")


@given(problems())
def test_values_and_every_gradient_match_the_float64_reference(problem):
    inputs, upstream, num_samples, free_bits = problem
    # On the floor itself the two precisions may fall on different sides of the kink.
    mu, logvar, prior_mu, prior_logvar, _ = double(inputs)
    kl = reference.kl(
        *(None if x is None else x.flatten()[:, None] for x in (mu, logvar, prior_mu, prior_logvar))
    )
    if free_bits and (kl - free_bits).abs().lt(1e-5).any():
        return
    check(fused(num_samples, free_bits), plain(free_bits), inputs, upstream)
    assert genkern.last_backend("gaussian") == backend()


def test_long_rows_are_summed_accurately():
    mu = torch.randn(2, 100_003)
    want = reference.kl(mu.double(), mu.double() * 0.5)
    assert_close(genkern.gaussian_kl(mu, mu * 0.5), want, scale=want)


def test_kl_near_the_prior_does_not_cancel():
    logvar = torch.full((1, 1), 1e-4)
    kl = genkern.gaussian_kl(torch.zeros(1, 1), logvar)
    want = reference.kl(torch.zeros(1, 1, dtype=F64), logvar.double())
    assert abs(kl.item() / want.item() - 1) < 1e-5  # the plain formula gives -0.0 in float32


@pytest.mark.parametrize("prior", [False, True])
def test_elements_at_their_floor_keep_the_gradient_that_a_clamp_keeps(prior):
    mu = torch.tensor([[1.0, 1 - 2**-20, 1 + 2**-20]])  # KL 1/2, a little less, a little more
    inputs = [mu, torch.zeros(1, 3), *([torch.zeros(1, 3)] * 2 if prior else [None, None])]
    leaves = [None if x is None else x.clone().requires_grad_() for x in inputs]
    given = None if not prior else (leaves[2], leaves[3])
    kl = genkern.gaussian_kl(leaves[0], leaves[1], prior=given, free_bits=0.5)
    (d_mu,) = torch.autograd.grad(kl.sum(), leaves[0])
    exact = [None if x is None else x.double().requires_grad_() for x in inputs]
    (want,) = torch.autograd.grad(reference.kl(*exact, 0.5).sum(), exact[0])
    assert want[0, 0] == 1 and want[0, 1] == 0
    assert torch.equal(d_mu.double(), want)


def test_the_gradient_of_the_noise_is_that_of_its_own_sample():
    mu, logvar, eps = torch.zeros(2, 40), torch.full((2, 40), 2.0), torch.randn(3, 2, 40)
    eps.requires_grad_()
    z, kl = genkern.gaussian_kl_rsample(mu, logvar.requires_grad_(), num_samples=3, eps=eps)
    upstream = torch.randn(3, 2, 40)
    (d_eps,) = torch.autograd.grad(z, eps, upstream, retain_graph=True)
    torch.testing.assert_close(d_eps, upstream * math.e)
    (d_eps,) = torch.autograd.grad(kl.sum(), eps, allow_unused=True, materialize_grads=True)
    assert torch.equal(d_eps, torch.zeros(3, 2, 40))


# ---- noise ---------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(0, 300), st.sampled_from([None, 2]), layouts)
@example(3, 1030, 2, "contiguous")
def test_noise_is_the_philox_stream_in_logical_order(n, d, num_samples, layout):
    mu, logvar = lay_out(torch.zeros(n, d), layout), torch.zeros(n, d)
    z = genkern.gaussian_rsample(
        mu, logvar, num_samples=num_samples, generator=torch.Generator().manual_seed(7)
    )
    seed = random.draw_seed(mu.device, torch.Generator().manual_seed(7))
    want = random.philox_normal(seed, tuple(z.shape), F64)
    # Two ulp, except that sqrt(-2 log u) loses relative accuracy as u tends to 1.
    assert_close(z, want, scale=0.125)


def test_philox_known_answers():
    # Random123's published vectors: counter and key 0, and all ones.
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert random.philox_words(torch.tensor([0]), 4).tolist() == words


def test_normals_have_the_moments_of_a_standard_normal():
    z = genkern.gaussian_rsample(torch.zeros(1, 400_000), torch.zeros(1, 400_000)).double()
    n = z.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean().item() - moment) < 5 * math.sqrt(variance / n)
    lagged = (z[:, 1:] * z[:, :-1]).mean().item()
    assert abs(lagged) < 5 / math.sqrt(n)
    grid = torch.linspace(-3, 3, 61, dtype=F64)
    empirical = torch.searchsorted(z[0].sort().values, grid).double() / n
    assert (empirical - torch.special.ndtr(grid)).abs().max() < 2.0 / math.sqrt(n)


def test_seeds_generators_and_the_global_generator():
    mu, logvar = torch.randn(4, 9), torch.randn(4, 9)
    draw = lambda: genkern.gaussian_rsample(mu, logvar)  # noqa: E731
    torch.manual_seed(1)
    first, second = draw(), draw()
    torch.manual_seed(1)
    assert torch.equal(draw(), first) and not torch.equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_backward_regenerates_the_noise(dtype):
    mu = torch.full((2, 500), 3.0, dtype=dtype)
    logvar = torch.full((2, 500), -8.0, dtype=dtype, requires_grad=True)
    z = genkern.gaussian_rsample(mu, logvar, generator=torch.Generator().manual_seed(2))
    z.sum().backward()
    seed = random.draw_seed(mu.device, torch.Generator().manual_seed(2))
    eps = random.philox_normal(seed, (2, 500), F64)
    assert_close(logvar.grad, 0.5 * math.exp(-4.0) * eps, scale=0.1)


def test_checkpointing_repeats_the_noise():
    mu, logvar = (torch.randn(3, 8, requires_grad=True) for _ in range(2))
    grads = []
    for wrap in (False, True):
        torch.manual_seed(5)
        call = genkern.gaussian_rsample
        z = (
            torch.utils.checkpoint.checkpoint(call, mu, logvar, use_reentrant=False)
            if wrap
            else call(mu, logvar)
        )
        grads.append(torch.autograd.grad(z.square().sum(), (mu, logvar)))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_priors_give_the_limit_and_never_nan(dtype):
    """The distance is scaled before it is squared: e^-logvar alone may be beyond float32."""
    cases = [(0.0, -89.0, 0.0, -89.0), (0.0, -80.0, 0.0, -89.0), (1e-20, -89.0, 0.0, -89.0)]
    if dtype not in (torch.float16,):  # whose range ends at 65504
        cases += [(1e25, 120.0, 0.0, 120.0), (0.0, -200.0, 0.0, -200.0)]
    for case in cases:
        inputs = [torch.tensor([[x]], dtype=dtype).requires_grad_() for x in case]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        kl = genkern.gaussian_kl(inputs[0], inputs[1], prior=(inputs[2], inputs[3]))
        want = reference.kl(*exact)
        got = torch.autograd.grad(kl.sum(), inputs)
        wanted = torch.autograd.grad(want.sum(), exact)
        rounded = [w.to(dtype) for w in (want, *wanted)]
        torch.testing.assert_close([kl, *got], rounded, rtol=0.02, atol=0.0)
