"""The Gaussian ops: edges, the module, mutants; the rest of their contract is in tests/core."""

import copy
import math
import pickle

import pytest
import torch

import genkern
from genkern import nn
from genkern.reference import gaussian as reference
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


def test_only_mu_logvar_and_the_seed_are_saved():
    saved = []
    mu, logvar = (torch.randn(64, 64, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        genkern.gaussian_kl_rsample(mu, logvar)
    sizes = sorted(t.numel() * t.element_size() for t in saved)
    assert sizes == [8, 64 * 64 * 4, 64 * 64 * 4]


# ---- the module, and tests of the tests ----------------------------------------------------


def test_module_samples_in_training_and_gives_the_mean_in_eval():
    layer = nn.GaussianLatent(free_bits=0.1)
    features = torch.randn(4, 10)
    z, kl = layer(features)
    assert z.shape == (4, 5) and kl.shape == (4,)
    torch.testing.assert_close(kl, genkern.gaussian_kl(*features.chunk(2, 1), free_bits=0.1))
    assert torch.equal(layer.eval()(features)[0], features[:, :5])
    drawn = nn.GaussianLatent(sample_in_eval=True, scale="log_std").eval()
    assert not torch.equal(drawn(features)[0], drawn(features)[0])
    want = genkern.gaussian_kl(*features.chunk(2, 1), scale="log_std")
    torch.testing.assert_close(drawn(features)[1], want)
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
