"""The three uses: equal to the public way, and the free energy of the exact solution."""

import itertools
import math

import pytest
import torch

from examples.fast_sampling import agreement, codes, ising, latent
from examples.fast_sampling.public import public
from examples.model import DataSpec
from genkern.nn import MaskedConv2d
from tests.examples.test_examples import make


@pytest.mark.parametrize("mask_type", ["A", "B", "rows", "rows_above", "left", "left_before"])
def test_multiplied_masks_are_the_same_layer(mask_type):
    kernel = (1, 3) if mask_type.startswith("left") else 3
    colours = 1 if mask_type in ("rows", "rows_above", "left_before") else 3
    options = {"mask_type": mask_type, "data_channels": colours}
    layer = torch.nn.Sequential(MaskedConv2d(3, 6, kernel, **options))
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(public(layer)(x), layer(x))


def test_codes_are_those_of_the_public_way():
    found = codes.compare(side=6, codes=7, hidden=8, layers=2, batch=3, forwards=1)
    assert found["different"] == 0 and found["method"] == "incremental"


@pytest.mark.parametrize("beta", [0.1, 0.44, 0.9])
@pytest.mark.parametrize("rows, cols", [(3, 3), (4, 3), (4, 4)])
def test_exact_log_partition_is_the_sum_over_all_states(rows, cols, beta):
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=rows * cols))).double()
    total = (-beta * ising.energy(every.view(-1, 1, rows, cols))).logsumexp(0).item()
    assert ising.exact_log_partition(beta, rows, cols) == pytest.approx(total, rel=1e-12)


def test_a_trained_network_has_the_exact_free_energy_within_its_error():
    L, beta = 4, 0.3
    model, _ = ising.train(L=L, beta=beta, hidden=8, layers=1, batch=128, steps=50)
    found = ising.estimate(model, beta, L, 4, 512)
    exact = -ising.exact_log_partition(beta, L, L) / (beta * L * L)
    assert abs(found.free_energy - exact) < 4 * found.error < 0.01
    assert found.effective > 0.5
    untrained = ising.estimate(ising.Network(8, 1), beta, L, 4, 512)
    assert untrained.effective < found.effective - 0.1
    assert ising.different(model, 16, L) == 0


def test_the_latent_is_the_one_that_crops_decode():
    found = latent.compare(channels=4, hidden=8, side=5, batch=2, repeats=1)
    assert found["different"] == 0
    assert math.isfinite(found["speedup"])


def test_samples_agree_with_the_likelihood_and_what_is_no_sample_does_not():
    model = make("pixel_cnn", DataSpec((1, 3, 4), 5)).eval()
    generator = torch.Generator().manual_seed(0)
    found = agreement.agreement(model, model.sample(2000, generator))
    assert abs(found.difference[0]) < 1.5 * found.difference[1]
    cold = agreement.agreement(model, model.sample(2000, generator, temperature=0.6))
    assert abs(cold.difference[0]) > 2 * cold.difference[1]
