"""gaussian_kl, gaussian_rsample, gaussian_kl_rsample."""

import copy
import math
import pickle

import pytest
import torch
from contract import check_compiled, double, machine_levels, probe, run
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, backend, lay_out, layouts, sizes, tensors
from tolerance import assert_close

import genkern
from genkern import nn, random
from genkern.reference import gaussian as reference

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
        assert (got_grads[i] is None) == (want_grads[i] is None), name
        if got_grads[i] is not None:
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("upstream_layout", LAYOUTS)
def test_layouts_of_inputs_and_upstream_gradients(dtype, layout, upstream_layout):
    make = lambda layout: lay_out(torch.randn(3, 4, 5, 7).to(dtype), layout)  # noqa: E731
    inputs = [make(layout), make(layout), None, None, make(layout)]
    check(fused(None, 0.0), plain(0.0), inputs, [make(upstream_layout), torch.randn(3).to(dtype)])


def test_stride_0_gradient_of_sum():
    mu, logvar = (torch.randn(5, 6, requires_grad=True) for _ in range(2))
    z, kl = genkern.gaussian_kl_rsample(mu, logvar, eps=torch.zeros(5, 6))
    (z.sum() + kl.sum()).backward()
    torch.testing.assert_close(mu.grad, 1 + mu.detach())


def test_long_rows_are_summed_accurately():
    mu = torch.randn(2, 100_003)
    want = reference.kl(mu.double(), mu.double() * 0.5)
    assert_close(genkern.gaussian_kl(mu, mu * 0.5), want, scale=want)


def test_kl_near_the_prior_does_not_cancel():
    logvar = torch.full((1, 1), 1e-4)
    kl = genkern.gaussian_kl(torch.zeros(1, 1), logvar)
    want = reference.kl(torch.zeros(1, 1, dtype=F64), logvar.double())
    assert abs(kl.item() / want.item() - 1) < 1e-5  # the plain formula gives -0.0 in float32


def test_gradients_of_both_orders():
    x = [torch.randn(3, 5, dtype=F64, requires_grad=True) for _ in range(5)]

    def both(mu, logvar, prior_mu, prior_logvar, eps):
        return genkern.gaussian_kl_rsample(
            mu, logvar, prior=(prior_mu, prior_logvar), eps=eps, free_bits=0.05
        )

    assert torch.autograd.gradcheck(both, x)
    assert torch.autograd.gradgradcheck(both, x)
    assert torch.autograd.gradcheck(genkern.gaussian_kl, x[:2])
    assert torch.autograd.gradgradcheck(genkern.gaussian_kl, x[:2])
    seeded = lambda mu, logvar: genkern.gaussian_rsample(  # noqa: E731
        mu, logvar, generator=torch.Generator().manual_seed(3)
    )
    assert torch.autograd.gradcheck(seeded, x[:2])
    assert torch.autograd.gradgradcheck(seeded, x[:2])


def test_second_derivative_through_inputs_that_share_a_parent():
    def curvature(function):
        x = torch.linspace(-1, 1, 6, dtype=F64).view(2, 3).requires_grad_()
        mu = x.square()
        z, kl = function(mu, mu.sin(), None, None, torch.ones(2, 3, dtype=F64))
        (first,) = torch.autograd.grad(z.sum() + kl.sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(curvature(fused(None, 0.0)), curvature(plain(0.0)))


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


# ---- edges ---------------------------------------------------------------------------------


def test_non_finite_values_propagate():
    inf, nan = math.inf, math.nan
    logvar = torch.tensor([[0.0], [-inf], [inf], [nan], [1e4], [-1e4], [-40.0]])
    kl = genkern.gaussian_kl(torch.zeros(7, 1), logvar)
    torch.testing.assert_close(
        kl, torch.tensor([0.0, inf, inf, nan, inf, 4999.5, 19.5]), equal_nan=True
    )
    z = genkern.gaussian_rsample(torch.ones(7, 1), logvar, eps=torch.ones(7, 1))
    assert z.flatten()[[0, 1, 2, 5]].tolist() == [2.0, 1.0, inf, 1.0] and z[3].isnan()
    mu = torch.tensor([[nan], [inf], [1.0]])
    assert genkern.gaussian_kl(mu, torch.zeros(3, 1)).isnan().tolist() == [True, False, False]
    assert genkern.gaussian_kl(mu, torch.zeros(3, 1), free_bits=0.1)[0].isnan()


def test_fp16_is_finite_where_the_true_value_is():
    logvar = torch.tensor([[11.5]], dtype=torch.float16, requires_grad=True)  # e^11.5 > 65504
    kl = genkern.gaussian_kl(torch.zeros(1, 1, dtype=torch.float16), logvar)
    kl.sum().backward()
    want = 0.5 * (math.exp(11.5) - 1 - 11.5)
    assert abs(kl.item() / want - 1) < 1e-3 and abs(logvar.grad.item() / want - 1) < 1e-3


def test_only_the_gradients_that_are_needed():
    mu, logvar = torch.randn(2, 3), torch.randn(2, 3, requires_grad=True)
    z, kl = genkern.gaussian_kl_rsample(mu, logvar)
    (z.sum() + kl.sum()).backward()
    assert mu.grad is None and logvar.grad is not None
    assert genkern.gaussian_kl(mu, mu).grad_fn is None
    with torch.no_grad():
        assert genkern.gaussian_rsample(mu, logvar).grad_fn is None


def test_only_mu_logvar_and_the_seed_are_saved():
    saved = []
    mu, logvar = (torch.randn(64, 64, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        genkern.gaussian_kl_rsample(mu, logvar)
    sizes = sorted(t.numel() * t.element_size() for t in saved)
    assert sizes == [8, 64 * 64 * 4, 64 * 64 * 4]


def test_inputs_are_not_written():
    inputs = [torch.randn(4, 5) for _ in range(5)]
    before = [x.clone() for x in inputs]
    run(fused(None, 0.1), inputs, [torch.randn(4, 5), torch.randn(4)])
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_autocast_computes_in_float32():
    mu, logvar = (torch.randn(3, 4).bfloat16().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, kl = genkern.gaussian_kl_rsample(mu, logvar, eps=torch.ones(3, 4, dtype=torch.bfloat16))
    assert z.dtype == kl.dtype == torch.float32
    (z.sum() + kl.sum()).backward()
    assert mu.grad.dtype == torch.bfloat16
    assert_close(kl.detach(), reference.kl(mu.detach().double(), logvar.detach().double()), scale=9)


@pytest.mark.parametrize("level", machine_levels())
def test_thread_count_does_not_change_a_bit(level):
    code = """
mu = torch.randn(37, 1031, requires_grad=True)
logvar = torch.randn(37, 1031, requires_grad=True)
long = torch.randn(1, 50021, requires_grad=True)
z, kl = genkern.gaussian_kl_rsample(mu, logvar, num_samples=2)
row = genkern.gaussian_kl(long, long * 0.3)
(z.square().sum() + kl.square().sum() + row.sum()).backward()
print(digest(z, kl, row, mu.grad, logvar.grad, long.grad))
"""
    one, two = (probe(code, level=level, threads=t) for t in (1, 2))
    assert one == two


@pytest.mark.parametrize("level", machine_levels())
def test_every_level_matches_the_float64_reference(level):
    code = """
import sys
sys.path.insert(0, "tests")
from test_gaussian import check, fused, plain
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for shape in ((5, 33), (3, 1), (2, 1100)):
        x = [torch.randn(shape).to(dtype) for _ in range(6)]
        check(fused(None, 0.0), plain(0.0), x[:5], [x[5], torch.randn(shape[0]).to(dtype)])
print("checked")
"""
    assert probe(code, level=level) == "checked\n"


def test_opcheck():
    mu, logvar, eps = (torch.randn(3, 4) for _ in range(3))
    none = (None,) * 2
    forward = torch.ops.genkern.gaussian_forward.default
    backward = torch.ops.genkern.gaussian_backward.default
    torch.library.opcheck(forward, (mu, logvar, *none, eps, None, None, 0.1, True))
    torch.library.opcheck(forward, (mu, logvar, mu, mu, None, torch.tensor([3]), 2, 0.0, True))
    torch.library.opcheck(forward, (mu, logvar, *none, None, None, None, 0.0, True))
    rest = (mu, logvar, mu, mu, eps, None, None, 0.0)
    torch.library.opcheck(backward, (eps, torch.randn(3), *rest, True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic):
    eps = torch.randn(3, 4)
    function = lambda mu, logvar: genkern.gaussian_kl_rsample(mu * 2, logvar, eps=eps)  # noqa: E731
    check_compiled(function, [torch.randn(3, 4), torch.randn(3, 4)], dynamic=dynamic)
    compiled = torch.compile(genkern.gaussian_rsample, fullgraph=True, backend="aot_eager")
    assert compiled(eps, eps).shape == eps.shape


def test_functorch_and_export_run_the_reference():
    mu = torch.randn(4, 3)
    got = torch.func.vmap(lambda m: genkern.gaussian_kl(m[None], m[None])[0])(mu)
    torch.testing.assert_close(got, genkern.gaussian_kl(mu, mu))
    genkern.gaussian_kl(mu, mu)
    assert genkern.last_backend("gaussian") == "cpu"

    class Model(torch.nn.Module):
        def forward(self, mu):
            return genkern.gaussian_kl(mu, mu)

    exported = torch.export.export(Model(), (mu,)).module()
    torch.testing.assert_close(exported(mu), genkern.gaussian_kl(mu, mu))


def test_use_backend_reference_gives_the_same_sample():
    mu, logvar = torch.randn(3, 5), torch.randn(3, 5)
    torch.manual_seed(3)
    fast = genkern.gaussian_rsample(mu, logvar)
    torch.manual_seed(3)
    with genkern.use_backend("reference"):
        slow = genkern.gaussian_rsample(mu, logvar)
        assert genkern.last_backend("gaussian") == "reference"
    torch.testing.assert_close(fast, slow)


# ---- errors --------------------------------------------------------------------------------

X = torch.ones(2, 3)
ERRORS = [
    (lambda: genkern.gaussian_kl([1.0], X), TypeError,
     "gaussian_kl: mu must be a Tensor; got list"),
    (lambda: genkern.gaussian_kl(X.int(), X), TypeError,
     "gaussian_kl: mu must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: genkern.gaussian_kl(X, X.double()), RuntimeError,
     "gaussian_kl: logvar must be float32 like mu; got float64"),
    (lambda: genkern.gaussian_kl(X, torch.ones(2, 4)), ValueError,
     r"gaussian_kl: logvar must have shape mu.shape = \(2, 3\); got \(2, 4\)"),
    (lambda: genkern.gaussian_kl(X, X.to("meta")), RuntimeError,
     "gaussian_kl: logvar must be on cpu like mu; got meta"),
    (lambda: genkern.gaussian_kl(X.sum(), X.sum()), ValueError, "mu must have a batch dimension"),
    (lambda: genkern.gaussian_kl(X, X, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: genkern.gaussian_kl(X, X, free_bits=-1), ValueError,
     "gaussian_kl: free_bits must be at least 0; got -1"),
    (lambda: genkern.gaussian_kl(X, X, prior=X), TypeError,
     r"prior must be a pair \(mu, logvar\)"),
    (lambda: genkern.gaussian_kl(X, X, prior=(X, X[:1])), ValueError,
     r"prior\[1\] must have shape"),
    (lambda: genkern.gaussian_rsample(X, X, eps=torch.ones(3)), ValueError,
     r"gaussian_rsample: eps must have shape mu.shape = \(2, 3\); got \(3,\)"),
    (lambda: genkern.gaussian_rsample(X, X, num_samples=2.0), TypeError,
     "gaussian_rsample: num_samples must be an integer; got float"),
    (lambda: genkern.gaussian_kl_rsample(X, X, num_samples=-1), ValueError,
     "gaussian_kl_rsample: num_samples must be at least 0; got -1"),
    (lambda: genkern.gaussian_kl(X, X, reducton="sum"), TypeError, "reducton"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, text", ERRORS)
def test_errors_name_op_argument_and_value(call, error, text):
    with pytest.raises(error, match=text):
        call()


# ---- the module, and tests of the tests ----------------------------------------------------


def test_module_samples_in_training_and_gives_the_mean_in_eval():
    layer = nn.GaussianLatent(free_bits=0.1)
    features = torch.randn(4, 10)
    z, kl = layer(features)
    assert z.shape == (4, 5) and kl.shape == (4,)
    torch.testing.assert_close(kl, genkern.gaussian_kl(*features.chunk(2, 1), free_bits=0.1))
    assert torch.equal(layer.eval()(features)[0], features[:, :5])
    assert not layer.state_dict() and "free_bits=0.1" in repr(layer)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert clone.free_bits == 0.1


def mutant_kl(change):
    def kl(mu, logvar, prior_mu, prior_logvar, free_bits):
        return change(mu, logvar)

    return kl


MUTANTS = {
    "sign of logvar": lambda mu, logvar: 0.5 * (mu**2 + (-logvar).expm1() + logvar).sum(1),
    "missing half": lambda mu, logvar: (mu**2 + logvar.expm1() - logvar).sum(1),
    "mean, not sum": lambda mu, logvar: 0.5 * (mu**2 + logvar.expm1() - logvar).mean(1),
    "no mean term": lambda mu, logvar: 0.5 * (logvar.expm1() - logvar).sum(1),
    "last element dropped": lambda mu, logvar: reference.kl(mu[:, :-1], logvar[:, :-1]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_mutants(name):
    inputs = [torch.randn(4, 7), torch.randn(4, 7), None, None, torch.randn(4, 7)]
    upstream = [torch.randn(4, 7), torch.randn(4)]
    check(fused(None, 0.0), plain(0.0), inputs, upstream)
    with pytest.raises(AssertionError):
        check(fused(None, 0.0), plain(0.0, mutant_kl(MUTANTS[name])), inputs, upstream)
