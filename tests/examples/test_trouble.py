"""What goes wrong between two players, as the commands of examples.adversarial.trouble count it."""

import math

import pytest
import torch

from examples import data
from examples.adversarial.trouble import collapse, dirac, mixtures, optimum, saturation
from examples.data.synthetic import mixture


def test_dirac_wgan_leaves_on_a_spiral_and_r1_comes_home():
    """Both players of a WGAN move at a right angle to their distance: it grows by 1 + lr^2."""
    path = dirac.play(dirac.GAMES["WGAN"], 50, 0.1)
    expected = math.sqrt(2.0) * (1 + 0.01) ** 25
    assert path[-1].norm().item() == pytest.approx(expected, rel=1e-12)
    oscillating = dirac.play(dirac.GAMES["GAN, non-saturating"], 300, 0.1).norm(dim=1)
    calm = dirac.play(dirac.GAMES["GAN with R1"], 300, 0.1).norm(dim=1)
    assert oscillating[-1] > 0.5
    assert calm[-1] < 1e-3


def test_the_best_discriminator_is_p_over_p_plus_q():
    p, q = torch.tensor(optimum.P), torch.tensor(optimum.Q)
    found, loss = optimum.optimum(p, q)
    assert (found - p / (p + q)).abs().max() < 1e-3
    expected = 2 * math.log(2) - 2 * optimum.divergence(p, q)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_the_saturating_gradient_vanishes_as_the_discriminator_grows_sure():
    first, last = saturation.measure([0, 40])
    assert 0.5 < first.non_saturating / first.saturating < 2
    assert last.probability < 0.1 * first.probability
    assert last.non_saturating > 10 * last.saturating


def test_mixtures_are_counted_about_their_own_centres():
    found = mixtures.run("gan", "ring8", 0, steps=2, options={"hidden": 8})
    assert found.samples.shape == (mixtures.SAMPLES, 2) and found.steps == 2
    assert found.modes.found <= 8
    for name in ("ring8", "grid25"):
        centres, std = mixture(name)
        points = data.load(name).splits["test"]
        counted = mixtures.modes(points, centres, std=std)
        assert counted.found == len(centres)
        assert counted.good == pytest.approx(1 - math.exp(-4.5), abs=0.005)
    told = mixtures.line("GAN", 3, found)
    assert f"seed 3: {found.modes.found} of 8 modes, {found.modes.good:.1%} good" in told
    assert "2 steps" in told
    whole = mixtures.Run(mixtures.modes(centres, centres, std=std), centres, 0.0, 2)
    assert "all modes in 1 of 2 seeds; good 0." in mixtures.summary("GAN", [found, whole])
    assert "% to 100.0%; KL" in mixtures.summary("GAN", [found, whole])


def test_collapse_is_counted_on_the_modes_that_have_a_hundredth_of_the_samples():
    alone, calm = collapse.play(0.0, 4, 2), collapse.play(1.0, 4, 2)
    assert [shot.step for shot in alone] == [2, 4]
    assert not torch.equal(alone[0].samples, calm[0].samples)
    torch.testing.assert_close(collapse.play(0.0, 2, 1)[0].samples, alone[0].samples)
    centres, std = mixture("ring8")
    at = torch.cat([torch.zeros(9_850, dtype=torch.int64), torch.ones(100), torch.full((50,), 2)])
    samples = centres[at.long()]
    counted = collapse.Shot(1, mixtures.modes(samples, centres, std=std), samples)
    assert counted.covered == 2 and counted.modes.found == 3
