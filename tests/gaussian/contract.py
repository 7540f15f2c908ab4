"""The Gaussian ops: edges, threads, levels, compilers, errors, the module, mutants."""

import copy
import math
import pickle

import pytest
import torch

import genkern
from genkern import nn
from genkern.reference import gaussian as reference
from tests.core.helpers import check_compiled, machine_levels, probe, run
from tests.core.tolerance import assert_close
from tests.gaussian.values import check, fused, plain

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
sys.path.insert(0, ".")
from tests.gaussian.values import check, fused, plain
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


# ---- errors, for test_errors.py ------------------------------------------------------------

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
