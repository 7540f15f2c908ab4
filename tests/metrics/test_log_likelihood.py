"""Estimates of log p(x) against closed forms and quadrature."""

import itertools
import math

import pytest
import torch

from genkern.metrics import AIS, active_units, log_likelihood, posterior_gap
from tests.metrics.models import Folded, Linear, normal

SHORT = AIS(temperatures=30, leapfrogs=2)
NORMAL = 1.959964


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def calibrated(found, exact: torch.Tensor) -> bool:
    """The errors of the items are as large as their intervals say: neither more nor less."""
    errors = NORMAL * (found.items - exact) / found.item_half_widths
    return 0.7 < errors.square().mean().sqrt().item() < 1.4


def agrees(found, exact: torch.Tensor, widths: float = 2.0) -> bool:
    return abs(found.value - exact.mean().item()) <= widths * found.half_width


SHORTEST = AIS(temperatures=4, leapfrogs=1, pilots=1)
METHODS = {
    "iwae": {"num_samples": 2000},
    "ais": {"num_samples": 40, "ais": SHORT},
    "ais from the prior": {"num_samples": 60, "ais": AIS(60, 2, start="prior")},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", [Linear(), Linear(width=1.4)], ids=["narrow q", "wide q"])
def test_of_a_linear_gaussian_model_it_is_the_closed_form(model, method):
    x = model.items(60)
    options = METHODS[method] | {"method": method.partition(" ")[0]}
    found = log_likelihood(model, x, generator=noise(), **options)
    exact = model.exact(x)
    assert agrees(found, exact) and found.half_width < 0.03
    assert calibrated(found, exact)
    spread = NORMAL * found.items.std().item() / 60**0.5
    assert found.half_width_over_items == pytest.approx(spread)


@pytest.mark.parametrize("method", METHODS)
def test_of_an_enumerated_model_it_is_the_quadrature(method):
    model, options = Folded(), METHODS[method] | {"method": method.partition(" ")[0]}
    exact = model.exact(model.bits)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    found = log_likelihood(model, model.bits, generator=noise(), **options)
    assert agrees(found, exact, 2.5) and found.half_width < 0.05


def test_annealing_from_the_prior_owes_nothing_to_the_encoder():
    """One that sees a part of one mode of two makes IWAE too small, and few samples count."""
    model = Folded(one_sided=True)
    exact = model.exact(model.bits)
    wrong = log_likelihood(model, model.bits, num_samples=500, generator=noise())
    assert wrong.value < exact.mean().item() - 0.5
    assert wrong.effective_samples.median() < 50
    options = METHODS["ais from the prior"] | {"method": "ais"}
    found = log_likelihood(model, model.bits, generator=noise(), **options)
    assert agrees(found, exact, 2.5)


def test_bounds_rise_with_samples_to_the_exact_value():
    """Means over many repeats of ELBO, IWAE-2, ..., IWAE-256."""
    model = Linear(width=0.8)
    x = model.items(20)
    repeats, exact = x.repeat_interleave(100, 0), model.exact(x).mean().item()
    elbo = log_likelihood(model, repeats, num_samples=1, method="elbo", generator=noise())
    values = [elbo.value]
    for count in (2, 16, 256):
        found = log_likelihood(model, repeats, num_samples=count, generator=noise(count))
        values.append(found.value)
    assert all(low < high for low, high in itertools.pairwise(values))
    assert values[-1] == pytest.approx(exact, abs=0.02)


def test_annealing_is_unbiased_with_few_temperatures():
    """E[w] = p(x) holds for any path: bad ones have a larger variance only."""
    model = Linear(width=1.2)
    x = model.items(5)
    few = AIS(temperatures=2, leapfrogs=1)
    found = log_likelihood(model, x, num_samples=6000, method="ais", ais=few, generator=noise())
    assert agrees(found, model.exact(x)) and found.half_width < 0.03


def test_annealing_tightens_with_temperatures():
    """Effective samples, and the value of single chains."""
    model = Linear()
    x = model.items(30)
    found = [
        log_likelihood(
            model, x, num_samples=10, method="ais", generator=noise(), ais=AIS(T, 2, "prior")
        )
        for T in (4, 12, 36)
    ]
    effective = [each.effective_samples.mean() for each in found]
    assert effective[0] < effective[1] < effective[2]
    assert 0.5 < found[-1].acceptance < 0.9


def test_the_gap_is_the_divergence_of_q_from_the_posterior():
    model = Linear(width=1.5)
    x = model.items(50)
    found = posterior_gap(
        model, x, num_samples=1000, elbo_samples=1000, generator=noise(), method="iwae"
    )
    exact = model.gap(x)
    assert agrees(found, exact) and calibrated(found, exact)
    assert found.value > 10 * found.half_width
    assert found.method == "iwae - elbo"


def test_units_that_nothing_depends_on_are_not_active():
    model = Linear(latent=3, dead=1, dims=5)
    x = model.items(400)
    found = active_units(model, x, generator=noise())
    exact = model.means(x).var(0)
    assert found.count == 2 and found.variances.shape == (3,)
    torch.testing.assert_close(found.variances, exact, rtol=0.05, atol=0.005)
    assert active_units(model, x, threshold=2.0, generator=noise()).count == 0


@pytest.mark.parametrize("method", ["elbo", "iwae", "ais"])
def test_a_generator_repeats_a_call_and_leaves_the_others_as_they_were(method):
    model = Linear()
    x, state = model.items(6), torch.get_rng_state()
    options = {"num_samples": 8, "method": method, "ais": SHORTEST if method == "ais" else None}
    first = log_likelihood(model, x, generator=noise(), **options)
    again, other = (log_likelihood(model, x, generator=noise(s), **options) for s in (0, 1))
    assert torch.equal(first.items, again.items) and not torch.equal(first.items, other.items)
    assert torch.equal(torch.get_rng_state(), state)
    log_likelihood(model, x, **options)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method, count", [("iwae", 300), ("ais", 100)])
def test_chunks_cut_memory_and_not_the_estimate(method, count):
    """A call sees no more latent vectors than it may, and all samples are drawn, once."""
    seen = []

    class Watched(Linear):
        def log_joint(self, x, z):
            seen.append(z[..., 0].numel())
            return super().log_joint(x, z)

    model = Watched()
    x = model.items(7)
    options = {"num_samples": count, "method": method, "ais": SHORTEST if method == "ais" else None}
    found = log_likelihood(model, x, generator=noise(), chunk_size=128, **options)
    assert max(seen) <= 128
    if method == "iwae":
        assert sum(seen) == 7 * count
    assert len(found.items) == 7 and agrees(found, model.exact(x), 2.5)


def test_one_sample_has_no_interval():
    model = Linear()
    found = log_likelihood(model, model.items(3), num_samples=1)
    assert math.isinf(found.half_width) and found.effective_samples.eq(1).all()
    with pytest.raises(ValueError, match="of the same items; got 3 and 2"):
        found - log_likelihood(model, model.items(2), num_samples=1)


class Elements(Linear):
    def encode(self, x):
        return super().encode(x).base_dist


class Summed(Linear):
    def log_joint(self, x, z):
        return super().log_joint(x, z).sum(0)


class Alone(Linear):
    def encode(self, x):
        return torch.zeros(len(x), 2)


class Narrow(Linear):
    def encode(self, x):
        return normal(torch.zeros(2), torch.ones(2))


class NoPrior:
    encode, log_joint = Folded().encode, Folded().log_joint


@pytest.mark.parametrize(
    "model, options, error, text",
    [
        (object(), {}, TypeError, "got object, which lacks encode and log_joint"),
        (Alone(), {}, TypeError, "with rsample and log_prob, .* got Tensor"),
        (Elements(), {}, ValueError, r"\(S, N\) = \(4, 3\); got \(4, 3, 2\): wrap it in"),
        (Narrow(), {}, ValueError, r"= \(4, 3, \.\.\.\); got \(4, 2\)"),
        (Summed(), {}, ValueError, r"model.log_joint\(x, z\) must have shape .* got \(3,\)"),
        (Linear(), {"num_samples": 0}, ValueError, "num_samples must be at least 1; got 0"),
        (Linear(), {"num_samples": 2.0}, TypeError, "num_samples must be an integer"),
        (Linear(), {"method": "iwea"}, ValueError, "did you mean 'iwae'"),
        (Linear(), {"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
        (Linear(), {"generator": 3}, TypeError, "generator must be a torch.Generator; got int"),
        (Linear(), {"ais": AIS()}, ValueError, "ais must be None where method is 'iwae'"),
        (Linear(), {"method": "ais", "ais": 3}, TypeError, "ais must be an AIS; got int"),
    ],
)
def test_errors_name_the_argument(model, options, error, text):
    with pytest.raises(error, match="log_likelihood: .*" + text):
        log_likelihood(model, torch.zeros(3, 4).double(), **{"num_samples": 4, **options})


def test_options_of_annealing_are_checked():
    with pytest.raises(ValueError, match="AIS: temperatures must be at least 1; got 0"):
        AIS(temperatures=0)
    with pytest.raises(ValueError, match="AIS: start must be one of 'posterior', 'prior'"):
        AIS(start="encoder")
    with pytest.raises(ValueError, match="AIS: acceptance must be in"):
        AIS(acceptance=1.0)
    with pytest.raises(TypeError, match=r"where model has no prior\(\); got 'prior' and NoPrior"):
        log_likelihood(
            NoPrior(), Folded.bits, num_samples=2, method="ais", ais=AIS(2, start="prior")
        )
    with pytest.raises(ValueError, match="at least two items; got 1"):
        active_units(Linear(), torch.zeros(1, 4).double())
    with pytest.raises(ValueError, match="at least one item"):
        log_likelihood(Linear(), torch.zeros(0, 4).double(), num_samples=2)
