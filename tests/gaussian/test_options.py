"""Options of the Gaussian ops: scales, broadcast parameters, KL of elements, density, schedules."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genkern
from genkern.reference import gaussian as reference
from tests.core.helpers import double, run
from tests.core.programs import compilations
from tests.core.samples import Sample
from tests.core.strategies import DTYPES, tensors
from tests.core.tolerance import assert_close
from tests.gaussian.values import magnitudes

F64 = torch.float64
KINDS = ("rows", "elements", "density")  # of the result beside z
SHAPES = [((4, 3, 5), (3, 1)), ((4, 3, 5), ()), ((3, 4, 5), (3, 1, 5)), ((5, 33), (33,))]
SHAPES += [((7, 3), (7, 1)), ((2, 70), (2, 70)), ((0, 3), (1, 3)), ((5,), (1,))]


@st.composite
def option_problems(draw):
    shape, own = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(DTYPES))
    num_samples = draw(st.sampled_from([None, 1, 3]))
    noise = shape if num_samples is None else (num_samples, *shape)

    def make(size):  # one value has no layouts
        return draw(tensors(size, dtype, 2.0, layout=None if size else "contiguous"))

    inputs = [make(shape), make(own), make(own), make(shape), make(noise)]
    if draw(st.booleans()):
        inputs[2:4] = [None, None]
    return (
        inputs,
        draw(st.sampled_from(reference.SCALES)),
        num_samples,
        draw(st.sampled_from(KINDS)),
    )


def fused(scale, num_samples, kind):
    def function(mu, logvar, prior_mu, prior_logvar, eps):
        options = {"scale": scale, "num_samples": num_samples, "eps": eps}
        if kind == "density":
            return genkern.gaussian_rsample_and_log_prob(mu, logvar, **options)
        prior = None if prior_mu is None else (prior_mu, prior_logvar)
        reduction = "none" if kind == "rows" else "elements"
        return genkern.gaussian_kl_rsample(mu, logvar, prior=prior, reduction=reduction, **options)

    return function


def plain(scale, kind):
    def function(*inputs):
        found = reference.forward(*inputs, 0.0, scale, kind == "elements")
        return found[0], found[2 if kind == "density" else 1]

    return function


def check_options(inputs, scale, num_samples, kind, upstream=None):
    """Values and every gradient, each bounded by its formula in absolute values."""
    elements, density = kind == "elements", kind == "density"
    function, definition = fused(scale, num_samples, kind), plain(scale, kind)
    exact = double(inputs)
    if upstream is None:
        upstream = [torch.randn(y.shape).to(inputs[0].dtype) for y in definition(*inputs)]
    got, got_grads = run(function, inputs, upstream)
    want, want_grads = run(definition, exact, double(upstream))
    mu, eps = exact[0], exact[4]
    spread = lambda x: x if x is None else x.expand(mu.shape)  # noqa: E731
    logvars = [x if x is None else reference.to_logvar(x, scale) for x in (exact[1], exact[3])]
    full = [mu, spread(logvars[0]), spread(exact[2]), spread(logvars[1]), eps]
    d_z, second = double(upstream)
    d_kl, d_log_prob = (None, second) if density else (second, None)
    row = lambda d: 0.0 if d is None else d.abs().view(*d.shape, *[1] * (mu.ndim - 1))  # noqa: E731
    # What one element adds to a row, and one row to the gradient of an element.
    alone = [x if x is None else x.flatten()[:, None] for x in full[:4]]
    of_elements = magnitudes([*alone, torch.zeros(mu.numel(), 1)], [None, None])[0][1].view(
        mu.shape
    )
    (sizes_z, _), sizes = magnitudes(full, [d_z, None if elements else d_kl])
    if elements and d_kl is not None:
        flat = [None, d_kl.flatten()]
        more = magnitudes([*alone, torch.zeros(mu.numel(), 1)], flat)[1]
        sizes = [a + b.view(mu.shape) for a, b in zip(sizes[:4], more[:4], strict=True)] + [
            sizes[4]
        ]
    log_q = eps.square() + full[1].abs() + 2.0
    terms = max(1, math.prod(mu.shape[1:]))
    if density:
        size = log_q.sum(tuple(range(1 - mu.ndim, 0))) if mu.ndim > 1 else log_q
    else:
        size = of_elements if elements else reference.sum_rows(of_elements)
    assert_close(got[0], want[0], scale=sizes_z, name="z")
    assert_close(got[1], want[1], terms=1 if elements else terms, scale=size, name=kind)
    of_density = row(d_log_prob)
    drawn = eps.ndim > mu.ndim and d_log_prob is not None
    sizes = [*sizes]
    sizes[1] = sizes[1] + (of_density.sum(0) if drawn else of_density)
    sizes[4] = sizes[4] + of_density * eps.abs()
    check_gradients(inputs, exact, scale, num_samples, sizes, got_grads, want_grads)


def check_gradients(inputs, exact, scale, num_samples, sizes, got_grads, want_grads):
    mu, eps = exact[0], exact[4]
    for i, name in enumerate(("mu", "logvar", "prior_mu", "prior_logvar", "eps")):
        if want_grads[i] is None or got_grads[i] is None:
            assert got_grads[i] is None or not got_grads[i].any(), name
            continue
        own, scales = inputs[i].shape, sizes[i] + torch.zeros_like(eps if i == 4 else mu)
        if i in (1, 3) and scale != "logvar":
            s = exact[i].clone().requires_grad_()
            (slope,) = torch.autograd.grad(reference.to_logvar(s, scale).sum(), s)
            scales = scales * slope
        count = max(1, scales.numel() // max(1, inputs[i].numel())) * (num_samples or 1)
        scales = scales.sum_to_size(own) if own else scales.sum()
        assert_close(got_grads[i], want_grads[i], terms=count, scale=scales, name=f"d_{name}")


def sample(name, shape, own, scale, num_samples, kind):
    noise = shape if num_samples is None else (num_samples, *shape)
    prior = [None, None] if kind == "density" else [own, shape]
    make = lambda normal, size: None if size is None else normal(*size)  # noqa: E731
    return Sample(
        name, fused(scale, num_samples, kind), plain(scale, kind),
        lambda normal: [make(normal, size) for size in (shape, own, *prior, noise)],
        lambda inputs, upstream: check_options(inputs, scale, num_samples, kind, upstream),
    )  # fmt: skip


@given(option_problems())
def test_options_match_the_float64_reference(problem):
    check_options(*problem)


@pytest.mark.parametrize("dtype, digits", [(torch.float32, 6), (torch.float64, 14)])
def test_kl_does_not_cancel_around_a_logvar_of_0(dtype, digits):
    near = [sign * 10.0**-power for power in (18, 12, 8, 6, 3, 1) for sign in (1, -1)]
    logvar = torch.tensor([*near, 0.499, 0.5, 0.501, -0.5, 3.0, -20.0, 80.0], dtype=dtype)[:, None]
    found = genkern.gaussian_kl(torch.zeros_like(logvar), logvar)
    with mpmath.workdps(50):
        exact = [float((mpmath.expm1(v) - v) / 2) for v in map(mpmath.mpf, logvar[:, 0].tolist())]
    exact = torch.tensor(exact, dtype=F64)
    torch.testing.assert_close(found.double(), exact, rtol=10.0**-digits, atol=0)


@pytest.mark.parametrize("dtype, digits", [(torch.float32, 3e-6), (F64, 1e-14)])
def test_a_softplus_scale_is_exact_in_its_tails(dtype, digits):
    """KL and gradient against 50 digits: sigma = log(1 + e^s) from e^-90 to 1e4."""
    points = [-90.0, -41.0, -39.0, -21.0, -19.0, -3.0, 0.0, 0.5, 3.0, 40.0, 1e4]
    s = torch.tensor(points, dtype=dtype)[:, None].requires_grad_()
    kl = genkern.gaussian_kl(torch.zeros_like(s), s, scale="softplus")
    (gradient,) = torch.autograd.grad(kl.sum(), s)
    with mpmath.workdps(50):
        for point, value, slope in zip(
            points, kl.tolist(), gradient.flatten().tolist(), strict=True
        ):
            x = mpmath.mpf(float(torch.tensor(point, dtype=dtype)))
            sigma = mpmath.log1p(mpmath.exp(x))
            want = (sigma**2 - 1) / 2 - mpmath.log(sigma)
            steep = (sigma - 1 / sigma) / (1 + mpmath.exp(-x))
            assert abs(value - want) <= digits * max(abs(want), 1e-2), point
            assert abs(slope - steep) <= digits * abs(steep), point


def elements_by_loops(kl, floor, by):
    """max with the floor, of the group that each element belongs to, written out."""
    N, D = kl.shape
    found = kl.clone()
    for n in range(N):
        for d in range(D):
            if by == "dimension" and sum(kl[m, d] for m in range(N)) / N < floor:
                found[n, d] = floor
            if by == "row" and sum(kl[n, e] for e in range(D)) < floor:
                found[n, d] = floor / D
    return found


@pytest.mark.parametrize("by, floor", [("dimension", 0.6), ("row", 3.0)])
@pytest.mark.parametrize("annealed", [False, True])
def test_free_bits_of_groups(by, floor, annealed):
    mu, logvar = (torch.randn(6, 5, dtype=F64, requires_grad=True) for _ in range(2))
    bits = torch.tensor(floor) if annealed else floor
    kl = lambda r: genkern.gaussian_kl(  # noqa: E731
        mu, logvar, free_bits=bits, free_bits_by=by, reduction=r
    )
    want = elements_by_loops(reference.kl_elements(mu, logvar), floor, by)
    below = (want.detach() == floor) if by == "dimension" else (want.detach() == floor / 5)
    assert 0 < below.sum() < 30
    for reduction, value in (
        ("elements", want),
        ("none", want.sum(1)),
        ("mean", want.sum(1).mean()),
    ):
        torch.testing.assert_close(kl(reduction), value, rtol=1e-6, atol=0)
    d_mu, wanted = (torch.autograd.grad(x.sum(), mu)[0] for x in (kl("none"), want))
    torch.testing.assert_close(d_mu, wanted)
    assert not d_mu[below].any() and d_mu[~below].all()


def test_beta_and_capacity():
    mu, logvar = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    rows = genkern.gaussian_kl(mu, logvar)
    for kind in (float, torch.tensor):
        got = genkern.gaussian_kl(mu, logvar, capacity=kind(4.0), beta=kind(3.0), reduction="sum")
        want = 3.0 * (rows - 4.0).abs().sum()
        torch.testing.assert_close(got, want)
        found = torch.autograd.grad(got, mu)
        torch.testing.assert_close(found, torch.autograd.grad(want, mu, retain_graph=True))


def test_schedules_of_beta_and_capacity_do_not_compile_again_at_each_step():
    mu, logvar = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    steps = [0.01 * step for step in range(20)]
    kl = lambda m, v: genkern.gaussian_kl(m, logvar, beta=v, capacity=v, free_bits=v)  # noqa: E731
    assert compilations(kl, mu, steps) <= 2
    assert compilations(kl, mu, [torch.tensor(s) for s in steps]) == 1


@pytest.mark.parametrize("num_samples", [None, 2])
def test_results_have_the_memory_format_of_mu(num_samples):
    features = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    mu, logvar = features.chunk(2, 1)
    eps = torch.randn(2, 3, 4, 5) if num_samples is None else torch.randn(num_samples, 2, 3, 4, 5)
    z, kl = genkern.gaussian_kl_rsample(
        mu, logvar, eps=eps, num_samples=num_samples, reduction="elements"
    )
    torch.testing.assert_close(z, reference.rsample(mu, logvar, eps))
    for image in (kl, *([z] if num_samples is None else z)):
        assert image.is_contiguous(memory_format=torch.channels_last)


def test_log_prob_is_the_density_and_its_gradient_the_total_one():
    mu, logvar = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    z, log_prob = genkern.gaussian_rsample_and_log_prob(mu, logvar, num_samples=3)
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    want = q.log_prob(z).sum(-1)
    torch.testing.assert_close(log_prob, want)
    weight = torch.randn(3, 6)
    found = torch.autograd.grad((weight * log_prob).sum(), (mu, logvar), retain_graph=True)
    wanted = torch.autograd.grad((weight * want).sum(), (mu, logvar))
    assert not found[0].any() and wanted[0].abs().max() < 1e-5  # both paths cancel
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-5)
