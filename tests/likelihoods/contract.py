"""The likelihoods: masks, edges, the optimal variance; their contract is in tests/core."""

import math
from functools import partial

import pytest
import torch

import genkern
from tests.core.helpers import run
from tests.core.strategies import DTYPES, backend
from tests.likelihoods.values import F64, INF, KINDS, NAN, events, fused, integers, masked


def logvar_loss(mean, target, mask, logvar):
    return genkern.gaussian_nll(mean, logvar, target, mask=mask, reduction="sum")


def test_the_optimal_logvar_is_the_optimum_and_stops_no_gradient():
    mean, target = torch.randn(6, 4, dtype=F64, requires_grad=True), torch.randn(6, 4, dtype=F64)
    mask = masked((6, 4))
    for m in (None, mask):
        best = genkern.gaussian_optimal_logvar(mean, target, mask=m)
        loss = partial(logvar_loss, mean, target, m)
        count = 24 if m is None else mask.sum()
        torch.testing.assert_close(loss(best), count / 2 * (best + 1 + math.log(2 * math.pi)))
        assert loss(best) < min(loss(best + 0.01), loss(best - 0.01))
        through, stopped = (torch.autograd.grad(loss(at), mean)[0] for at in (best, best.detach()))
        torch.testing.assert_close(through, stopped)
    assert genkern.gaussian_optimal_logvar(mean.half(), target.half()).dtype == torch.float32
    mean, target = mean.detach().clone(), target.clone()
    mean[~mask], target[~mask] = NAN, INF
    assert genkern.gaussian_optimal_logvar(mean, target, mask=mask).isfinite()


# ---- masks and edges -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("D", [5, 40, 1100])
def test_nothing_leaks_past_the_mask(kind, D):
    mask = masked((3, D))
    inputs = [torch.randn(3, D), torch.randn(3, D), events(torch.randn(3, D))]
    target = integers((3, D), 16)
    inputs[1] = None if kind in ("bernoulli", "continuous") else inputs[1]
    inputs[2] = None if kind == "logistic" else inputs[2]
    spoilt, bad = [t if t is None else t.clone() for t in inputs], target.clone()
    for t in spoilt:
        if t is not None:
            t[~mask] = NAN
    bad[~mask] = -5
    options = {"mask": mask, "target": target}
    clean = run(fused(kind, **options), inputs, [torch.randn(3).fill_(0.5)])
    got = run(fused(kind, mask=mask, target=bad), spoilt, [torch.randn(3).fill_(0.5)])
    assert torch.equal(got[0][0], clean[0][0])
    for one, other in zip(got[1], clean[1], strict=True):
        assert one is None or (torch.equal(one, other) and not one[~mask].any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits_give_the_limit_and_never_nan(dtype):
    a = torch.tensor([-INF, -1e4, -90.0, -0.0, 0.0, 90.0, 1e4, INF], dtype=dtype)[:, None]
    for x in (0.0, 0.25, 1.0):
        for continuous in (False, True):
            logits, target = a.clone().requires_grad_(), torch.full_like(a, x)
            nats = genkern.bernoulli_nll(logits, target, continuous=continuous)
            (d,) = torch.autograd.grad(nats.sum(), logits)
            assert not nats.isnan().any() and not d.isnan().any()
            ends = (0.0, 0.0) if not continuous else (-INF, -INF)
            want = (ends[0] if x == 0 else INF, ends[1] if x == 1 else INF)
            assert (nats[0].item(), nats[-1].item()) == want
            assert torch.equal(d[[0, -1], 0], torch.tensor([0 - x, 1 - x], dtype=dtype))
            assert d[3] == d[4] == 0.5 - x  # on both sides of 0
    nan = torch.full((1, 1), NAN, dtype=dtype)
    assert genkern.bernoulli_nll(nan, nan * 0 + 0.5).isnan().all()
    assert genkern.bernoulli_nll(nan, nan, continuous=True).isnan().all()


def test_infinite_and_huge_values_of_the_others():
    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    nll = genkern.gaussian_nll
    assert nll(none, torch.full((1, 1), INF), one).item() == INF
    assert nll(one * 1e30, 0.0, none).item() == INF  # beyond float32
    assert nll(one * 1e30, 80.0, none).item() == pytest.approx(0.5e60 * math.exp(-80), rel=1e-5)
    assert nll(one, torch.full((1, 1), -INF), one).item() == -INF
    assert nll(one * NAN, none, one).isnan()
    logistic = genkern.discretized_logistic_nll
    v = torch.full((1, 1), 255)
    assert logistic(one * 1e30, none, v).item() == 0 == logistic(one * INF, none, v).item()
    assert logistic(one * INF, none, v - 9).item() == INF
    assert logistic(one * NAN, none, v).isnan()


@pytest.mark.parametrize("value", [-1, 16, 300])
def test_a_target_that_is_no_level_is_an_error(value):
    mean, target = torch.randn(2, 50), torch.zeros(2, 50, dtype=torch.int32)
    target[1, 49] = value
    for name in (backend(), "reference"):
        with genkern.use_backend(name), pytest.raises(ValueError, match=rf"got {value}$"):
            genkern.discretized_logistic_nll(mean, mean, target, levels=16)


def test_empty_items_and_batches():
    for shape in ((0, 3), (3, 0), (0,), (2, 0, 4)):
        a = torch.ones(shape, requires_grad=True)
        one = torch.ones(1, requires_grad=True)
        nats = genkern.gaussian_nll(a, one, a.detach())
        assert torch.equal(nats, torch.zeros(shape[0]))
        d, d_one = torch.autograd.grad(nats.sum(), (a, one))
        assert d.shape == shape and torch.equal(d_one, torch.zeros(1))
        assert genkern.bernoulli_nll(a, a.detach()).shape == shape[:1]
