"""log p of what `genkern.sampling.sample` draws, and what outputs say of all levels."""

import pytest
import torch
from torch import nn

from genkern import sampling
from tests.sampling.nets import OUTPUTS, N, drawn, make

METHODS = [method for method in sampling.METHODS if method != "auto"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("row", [None, 0, 1])
def test_log_prob_is_minus_the_nll_of_the_model(kind, method, row):
    """Whatever the temperature and what is given: nothing, where drawing tells it as it goes; the
    first row, which it does not pass over; or the second."""
    case = make(kind)
    partial = torch.full((N, *case.shape), -1)
    if row is not None:
        partial[:, :, row] = 1
    options = {"temperature": 0.7, "partial": partial}
    found, log_prob = drawn(case, method=method, return_log_prob=True, **options)
    params = case.model(case.output.to_inputs(found, torch.float64))
    levels = case.output.levels
    if kind == "gaussian":
        expected = gaussian_log_prob(case, params, found)
    elif kind.startswith("mixture"):
        expected = mixture_log_prob(case, params, found)
    elif kind.startswith("bernoulli"):
        spread = nn.functional.binary_cross_entropy_with_logits(
            params, found.double(), reduction="none"
        )
        expected = -spread.flatten(1).sum(1)
    else:
        logits = params.view(N, case.shape[0], levels, *case.shape[1:]).transpose(1, 2)
        expected = -nn.functional.cross_entropy(logits, found.long(), reduction="none")
        expected = expected.flatten(1).sum(1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-10, atol=1e-10)


def mixture_log_prob(case, params, found):
    from genkern.reference import discretized_logistic_mixture as reference

    return -reference.nll(params, found, case.output.levels)


def gaussian_log_prob(case, params, found):
    """By logarithms of the tail on the bin's side: far away its chance is below 1e-308."""
    mean, log_scale = params.chunk(2, 1)
    value, half = case.output.to_inputs(found, torch.float64), case.output.scale / 2
    high = ((value + half - mean) / log_scale.exp()).where(
        found < case.output.levels - 1, torch.full((), torch.inf).double()
    )
    low = ((value - half - mean) / log_scale.exp()).where(
        found > 0, torch.full((), -torch.inf).double()
    )
    high, low = torch.where(low > 0, -low, high), torch.where(low > 0, -high, low)
    above, below = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return (above + torch.log1p(-(below - above).exp())).flatten(1).sum(1)


@pytest.mark.parametrize("kind", OUTPUTS)
@torch.no_grad()
def test_probabilities_of_all_levels_sum_to_one_and_are_those_of_the_likelihood(kind):
    case = make(kind)
    found, log_prob = drawn(case, return_log_prob=True)
    C, levels = case.shape[0], case.output.levels
    params = case.model(case.output.to_inputs(found, torch.float64)).flatten(2)
    values, total = found.flatten(2).long(), torch.zeros(N, dtype=torch.float64)
    for c in range(C):
        of = case.output.at(params, c)
        chances = case.output.probabilities(of, None if case.output.by_colour else values[:, :c])
        assert chances.shape == (N, levels, values.shape[2])
        torch.testing.assert_close(chances.sum(1), torch.ones_like(chances[:, 0]))
        total += chances.gather(1, values[:, c : c + 1]).log().flatten(1).sum(1)
    torch.testing.assert_close(total, log_prob, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inputs_in_half_precision_are_rounded_once_and_log_p_is_in_single(dtype):
    values = torch.arange(256)[None, None, None]
    categorical = sampling.Categorical(256)
    expected = categorical.to_inputs(values, torch.float32).to(dtype)
    assert torch.equal(categorical.to_inputs(values, dtype), expected)
    for output in (categorical, sampling.LogisticMixture(256, 2), sampling.Bernoulli()):
        params = torch.randn(1, output.channels(1), 2, 2)
        found = output.log_prob(params.to(dtype), torch.ones(1, 1, 2, 2, dtype=torch.int64))
        exact = output.log_prob(
            params.to(dtype).double(), torch.ones(1, 1, 2, 2, dtype=torch.int64)
        )
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
