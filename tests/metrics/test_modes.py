"""Modes found, good samples, histogram."""

import math

import pytest
import torch

from genkern.metrics import modes

CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_samples_of_the_mixture_are_good_as_often_as_chi_squared_says():
    torch.manual_seed(0)
    N = 200_000
    chosen = torch.randint(3, (N,))
    found = modes(CENTRES[chosen] + 0.5 * torch.randn(N, 2), CENTRES, std=0.5)
    expected = 1 - math.exp(-4.5)  # P(chi^2_2 <= 9)
    assert abs(found.good - expected) < 4 * math.sqrt(expected * (1 - expected) / N)
    assert found.found == 3
    assert found.kl < 1e-4
    assert int(found.counts.sum()) == round(found.good * N)


def test_counts_by_hand():
    samples = torch.tensor([[0.0, 3.0], [0.0, 3.0001], [10.0, -1.0], [9.0, 0.0], [5.0, 5.0]])
    found = modes(samples, CENTRES, std=1.0)
    assert found.counts.tolist() == [1, 2, 0]
    assert (found.found, found.good) == (2, 0.6)
    expected = sum(p * math.log(3 * p) for p in (1 / 3, 2 / 3))
    assert found.kl == pytest.approx(expected, abs=1e-12)
    assert str(found) == f"2 of 3 modes, 60.0% good, KL {expected:.3f}"
    wider = modes(samples, CENTRES, std=1.0, radius=3.001)
    assert wider.counts.tolist() == [2, 2, 0]


def test_the_nearest_mode_is_in_standard_deviations():
    """4 from the narrow mode is 40 of its deviations; 6 from the wide one, 2."""
    found = modes(torch.tensor([[4.0, 0.0]]), CENTRES, std=torch.tensor([0.1, 3.0, 0.1]))
    assert found.counts.tolist() == [0, 1, 0]


def test_the_histogram_is_compared_with_the_weights():
    samples = CENTRES[[0, 0, 1, 2]]
    assert modes(samples, CENTRES, std=1.0, weights=[2, 1, 1]).kl == 0.0
    assert modes(samples, CENTRES, std=1.0, weights=[1, 1, 0]).kl == math.inf
    assert modes(CENTRES[[1, 1]], CENTRES, std=1.0).kl == pytest.approx(math.log(3))


def test_nothing_good_and_nothing_finite():
    samples = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [0.0, -100.0]])
    found = modes(samples, CENTRES, std=1.0)
    assert (found.found, found.good, found.kl) == (0, 0.0, math.inf)
    assert modes(torch.cat([samples, CENTRES]), CENTRES, std=1.0).good == 0.5


def test_distances_do_not_cancel_and_images_and_numbers_are_items():
    """Far from the origin a product of matrices in float32 has no digit of these distances."""
    far = CENTRES.double() + 1e6
    found = modes(far + 0.002, far, std=0.001, radius=3.0)
    assert found.counts.tolist() == [1, 1, 1]
    assert modes(far + 0.003, far, std=0.001, radius=3.0).found == 0
    images = CENTRES.view(3, 1, 2, 1)
    assert modes(images.to(torch.uint8), images, std=1.0).found == 3
    assert modes(torch.tensor([1, 2, 9]), torch.tensor([1.5, 5.0]), std=0.2).counts.tolist() == [
        2,
        0,
    ]


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"samples": [1.0]}, TypeError, "modes: samples must be a tensor of real numbers"),
        ({"samples": torch.zeros(0, 2)}, ValueError, "modes: samples must have at least one item"),
        ({"samples": torch.zeros(4, 3)}, ValueError, r"of the centres = \(2,\); got \(4, 3\)"),
        ({"std": 0.0}, ValueError, "modes: std must be above 0; got 0.0"),
        ({"std": torch.ones(2)}, ValueError, r"modes: std must have shape \(3,\); got \(2,\)"),
        ({"radius": -1.0}, ValueError, "modes: radius must"),
        ({"radius": "3"}, TypeError, "modes: radius must"),
        ({"weights": [1, -1, 1]}, ValueError, "modes: weights must be at least 0"),
    ],
)
def test_errors_are_sentences_with_values(changed, error, text):
    given = {"samples": CENTRES, "centres": CENTRES, "std": 1.0, **changed}
    with pytest.raises(error, match=text):
        modes(given.pop("samples"), given.pop("centres"), **given)
