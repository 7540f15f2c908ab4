"""bernoulli_nll, gaussian_nll, discretized_logistic_nll and gaussian_optimal_logvar."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

import genkern
from genkern.reference import likelihoods as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import assert_close
from tests.likelihoods.sides import check_second, fused, number, plain, sizes_of

F64 = torch.float64
STEM = "likelihoods"
KINDS = ("bernoulli", "continuous", "gaussian", "logistic")
INF, NAN = math.inf, math.nan


def check(case, inputs, upstream, ref=reference):
    """Nats and gradients of the fused op against the float64 reference."""
    kind, options = case
    got, got_grads = run(fused(kind, **options), inputs, upstream)
    want, want_grads = run(plain(kind, **options, ref=ref), double(inputs), double(upstream))
    location, scale, real = double(inputs)
    if scale is None:
        scale = number(options.get("fixed", 0.0), location)
    target = options["target"].to(location.device) if kind == "logistic" else real
    parts = sizes_of(kind, location, scale, target, options.get("levels", 16))
    nats, *slopes = (p if p is None else p.expand(location.shape) for p in parts)
    batch = got[0].ndim
    g = upstream[0].double().abs().view(*got[0].shape, *(1,) * (location.ndim - batch))
    terms = max(1, location.shape[batch:].numel())
    flat = nats.flatten(batch).sum(batch) if nats.ndim > batch else nats
    assert got[0].dtype == inputs[0].dtype
    assert_close(got[0], want[0], terms=terms, scale=flat, name="nats")
    names = ("d_location", "d_scale", "d_target")
    for name, found, wanted, slope, tensor in zip(
        names, got_grads, want_grads, slopes, inputs, strict=True
    ):
        if tensor is None:
            continue
        size = (g * slope).sum_to_size(tensor.shape)
        summed = location.numel() // max(1, tensor.numel())
        assert found.dtype == tensor.dtype
        assert_close(found, wanted, terms=summed, scale=size, name=name)
    check_second(case, inputs, upstream[0], ref)


def integers(shape, levels, dtype=torch.int64):
    """Drawn targets, the first and the last level among them."""
    generator = torch.Generator().manual_seed(len(shape) + levels)
    values = torch.randint(0, levels, shape, generator=generator, device="cpu").flatten()
    values[::7], values[3::11] = 0, levels - 1
    return values.view(shape).to(torch.get_default_device(), dtype)


def events(tensor):
    """Normal numbers as targets in [0, 1], both ends among them."""
    return tensor.clamp(-1, 1) * 0.5 + 0.5


def masked(shape):
    generator = torch.Generator().manual_seed(7)
    mask = torch.rand(shape, generator=generator, device="cpu") < 0.7
    return mask.to(torch.get_default_device())


@st.composite
def problems(draw):
    kind, dtype = draw(st.sampled_from(KINDS)), draw(st.sampled_from(DTYPES))
    N, rest = draw(sizes(4)), draw(st.sampled_from([(), (1,), (3,), (2, 5, 3), (70,)]))
    if draw(st.booleans()):
        rest = (draw(sizes(70)), *rest[1:])
    samples = draw(st.sampled_from([None, None, 3])) if rest else None
    shape = (N, *rest)
    whole = shape if samples is None else (samples, *shape)
    spread = draw(st.sampled_from([1.0, 1e-3, 20.0]))
    options = {}
    if draw(st.booleans()):
        options["mask"] = masked(
            draw(st.sampled_from([shape, (N, *(1,) * len(rest)), rest or (1,)]))
        )
    location, scale = draw(tensors(whole, dtype, spread)), None
    if kind in ("bernoulli", "continuous"):
        target = events(draw(tensors(shape, dtype)))
        return (kind, options), [location, None, target], [draw(tensors(whole[: -len(rest) or None],
                                                                       dtype))]  # fmt: skip
    if kind == "gaussian":
        form = draw(st.sampled_from([None, (1,), whole, rest or (1,), (N, *(1,) * len(rest))]))
        options["fixed"] = 0.3
        scale = None if form is None else draw(tensors(form, dtype, 2.0))
        target = draw(tensors(shape, dtype, spread))
    else:
        levels = draw(st.sampled_from([2, 3, 16, 256, 1000]))
        kinds = [torch.int32, torch.int64] + ([torch.uint8] if levels <= 256 else [])
        options |= {"levels": levels}
        options["target"] = integers(shape, levels, draw(st.sampled_from(kinds)))
        scale, target = draw(tensors(draw(st.sampled_from([whole, (1,)])), dtype, 2.0)), None
    upstream = draw(tensors(whole[: -len(rest) or None], dtype))
    return (kind, options), [location, scale, target], [upstream]


def near_the_clamp(case, inputs):
    """Log-scales where two precisions fall on different sides of -7."""
    if case[0] != "logistic":
        return False
    return bool((inputs[1].double() + 7).abs().lt(1e-3).any())


@given(problems())
@examples(1.5)
def test_nats_and_gradients_match_the_float64_reference(problem):
    if near_the_clamp(*problem[:2]):
        return
    check(*problem)
    assert genkern.last_backend(STEM) == backend()


def test_rows_of_many_lengths():
    """Around the blocks, the chunks of short rows and the segments of long ones."""
    for N, D in ((70, 15), (3, 63), (3, 65), (2, 1023), (2, 1025), (1, 9001)):
        up, a, b = torch.randn(N), torch.randn(N, D), torch.randn(N, D)
        check(("bernoulli", {}), [3 * a, None, events(b)], [up])
        check(("continuous", {"mask": masked((N, D))}), [3 * a, None, events(b)], [up])
        check(("gaussian", {}), [a, b, torch.randn(N, D)], [up])
        check(("gaussian", {}), [a, torch.randn(1), b], [up])
        check(
            ("logistic", {"target": integers((N, D), 256), "levels": 256}), [a, b - 2, None], [up]
        )


def test_samples_share_their_target():
    """(S, N, D) with a target (N, D) is S calls; the gradients of the target add up."""
    for D in (7, 1500):
        a, x = torch.randn(5, 3, D), events(torch.randn(3, D))
        options, up = {"mask": masked((3, D))}, torch.randn(5, 3)
        check(("bernoulli", options), [a, None, x], [up])
        check(("gaussian", options), [a, torch.randn(5, 3, D), x], [up])
        check(("gaussian", options), [a, torch.randn(1), x], [up])
        options["target"] = integers((3, D), 16, torch.uint8)
        check(("logistic", options), [a, torch.randn(5, 3, D), None], [up])


# ---- what they are ---------------------------------------------------------------------------


def test_they_are_what_people_write():
    a, x, s = torch.randn(4, 3, 5), torch.rand(4, 3, 5), torch.randn(4, 3, 5)
    bce = F.binary_cross_entropy_with_logits(a, x, reduction="none")
    torch.testing.assert_close(genkern.bernoulli_nll(a, x), bce.sum((1, 2)))
    continuous = torch.distributions.ContinuousBernoulli(logits=a.double())
    torch.testing.assert_close(
        genkern.bernoulli_nll(a, x, continuous=True).double(),
        -continuous.log_prob(x.double()).sum((1, 2)), rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    normal = -torch.distributions.Normal(a, (0.5 * s).exp()).log_prob(x).sum((1, 2))
    torch.testing.assert_close(genkern.gaussian_nll(a, s, x), normal)
    unit = F.gaussian_nll_loss(a, x, torch.ones(4, 3, 5), full=True, reduction="sum")
    torch.testing.assert_close(genkern.gaussian_nll(a, 0.0, x, reduction="sum"), unit)
    v = torch.randint(0, 2, (4, 3, 5))
    torch.testing.assert_close(  # two levels are an event
        genkern.discretized_logistic_nll(a, s, v, levels=2),
        genkern.bernoulli_nll(a * (-s).exp(), v.float()),
    )
    torch.testing.assert_close(genkern.gaussian_nll(a, s, x, reduction="mean"), normal.mean())


def test_the_probabilities_of_all_levels_sum_to_one():
    for levels in (2, 3, 16, 256, 1000):
        v = torch.arange(levels)[:, None]
        for log_scale in (-9.0, -4.0, 0.0, 4.0):
            mean, s = torch.full((levels, 1), 0.3), torch.full((1,), log_scale)
            nats = genkern.discretized_logistic_nll(mean, s, v, levels=levels)
            assert abs(torch.exp(-nats.double()).sum().item() - 1) < 2e-6


def test_the_continuous_density_integrates_to_one():
    x = torch.linspace(0, 1, 2001, dtype=F64)[:, None]
    for a in (-30.0, -1.0, -1e-3, 0.0, 1e-6, 0.999, 1.001, 30.0):
        nats = genkern.bernoulli_nll(torch.full_like(x, a), x, continuous=True)
        assert torch.trapezoid(torch.exp(-nats), x[:, 0]).item() == pytest.approx(1, abs=1e-4)


MUTANTS = {
    "target and its rest swapped": ("bernoulli", "bernoulli",
                                    lambda a, x, c: reference.bernoulli(a, 1 - x, c)),
    "no normaliser": ("continuous", "bernoulli", lambda a, x, c: reference.bernoulli(a, x, False)),
    "no log 2 pi": ("gaussian", "gaussian",
                    lambda m, s, x: reference.gaussian(m, s, x) - 0.9189385),
    "log-scale of the variance": ("gaussian", "gaussian",
                                  lambda m, s, x: reference.gaussian(m, 2 * s, x)),
    "one level less": ("logistic", "discretized_logistic",
                       lambda m, s, v, n: reference.discretized_logistic(m, s, v, n + 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name, monkeypatch):
    kind, function, wrong = MUTANTS[name]
    inputs = [torch.randn(3, 7), torch.randn(3, 7), events(torch.randn(3, 7))]
    inputs[1] = None if kind in ("bernoulli", "continuous") else inputs[1]
    inputs[2] = None if kind == "logistic" else inputs[2]
    options = {"target": integers((3, 7), 15).clamp(1, 13)}

    class Mutant:
        per_item = staticmethod(reference.per_item)
        bernoulli = staticmethod(reference.bernoulli)
        gaussian = staticmethod(reference.gaussian)
        discretized_logistic = staticmethod(reference.discretized_logistic)

    check((kind, options), inputs, [torch.randn(3)], ref=Mutant)
    monkeypatch.setattr(Mutant, function, staticmethod(wrong))
    with pytest.raises(AssertionError, match="elements off"):
        check((kind, options), inputs, [torch.randn(3)], ref=Mutant)
