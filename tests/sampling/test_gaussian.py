"""`genkern.sampling.Gaussian`: its chances, and what the engine draws and says of it."""

import math

import pytest
import torch
from torch import nn

from genkern import sampling

LEVELS = 21
OUTPUT = sampling.Gaussian(LEVELS, inputs=(0.5, -5.0))
# Mean and log-scale: ordinary, tails, a bin that is wide or narrow, below the least log-scale,
# and narrow so far out that its density bends: by 2e-8 in the logarithm.
PARAMS = torch.tensor([
    [0.3, 0.0], [-4.9, 1.0], [4.0, -1.5], [9.0, 0.5], [-30.0, 0.0], [60.0, -0.5], [0.26, -7.0],
    [0.1, -9.0], [0.0, 3.0], [2.0, 11.0], [-1.5e5, 9.21],
], dtype=torch.float64)  # fmt: skip


class Fixed(nn.Module):
    """The same parameters for every pixel of ``colours``."""

    def __init__(self, params: torch.Tensor) -> None:
        super().__init__()
        self.params = nn.Parameter(params.T.reshape(1, -1, 1, 1))

    def forward(self, x):
        return self.params.expand(len(x), -1, *x.shape[2:])


def integrals(mean: float, log_scale: float) -> list[float]:
    """log P of every level: the density over its highest value in the bin, summed by Simpson's
    rule; an outer level to where nothing is left."""
    sigma, found = math.exp(max(log_scale, -7.0)), []
    for v in range(LEVELS):
        low = (-math.inf if v == 0 else 0.5 * v - 5.25 - mean) / sigma
        high = (math.inf if v == LEVELS - 1 else 0.5 * v - 4.75 - mean) / sigma
        peak = min(max(0.0, low), high)
        reach = min(14.0, 45 / abs(peak)) if peak else 14.0
        ends = max(low - peak, -reach), min(high - peak, reach)
        x = torch.linspace(*ends, 40_001, dtype=torch.float64)
        y = (-peak * x - x**2 / 2).exp()
        step = (ends[1] - ends[0]) / 40_000
        total = step / 3 * (y[0] + y[-1] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum())
        found.append(-(peak**2) / 2 - 0.5 * math.log(2 * math.pi) + total.log().item())
    return found


def test_chances_are_integrals_of_the_density():
    for mean, log_scale in PARAMS.tolist():
        params = torch.tensor([mean, log_scale], dtype=torch.float64).view(1, 2, 1, 1)
        expected = torch.tensor(integrals(mean, log_scale), dtype=torch.float64)
        found = OUTPUT.log_prob(params.expand(LEVELS, -1, -1, -1),
                                torch.arange(LEVELS).view(-1, 1, 1, 1))  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
        chances = OUTPUT.probabilities(params[..., 0])
        torch.testing.assert_close(chances[0, :, 0], expected.exp(), rtol=1e-9, atol=1e-300)
        assert chances.sum().item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("params", [PARAMS, PARAMS[-1:]], ids=len)
def test_the_engine_draws_and_tells_what_the_definition_does(params, temperature):
    """All levels, and any noise: 0, 1 and 40 numbers between them, at each of the parameters; and
    the last by themselves, because beside a log p of -1e6 theirs would not show."""
    model, shape = Fixed(params), (len(params), 1, 42)
    noise = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(40)]).expand(1, *shape)
    given = torch.full((1, *shape), -1)
    given[..., 2 : 2 + LEVELS] = torch.arange(LEVELS)
    options = {"shape": shape, "output": OUTPUT, "noise": noise, "temperature": temperature,
               "return_log_prob": True}  # fmt: skip
    for partial in (None, given):
        naive = sampling.sample(model, 1, method="naive", partial=partial, **options)
        found = sampling.sample(model, 1, method="incremental", partial=partial, **options)
        assert torch.equal(found[0], naive[0])
        torch.testing.assert_close(found[1], naive[1], rtol=1e-11, atol=1e-9)


def test_drawn_shares_are_the_chances():
    many, params = 40_000, PARAMS[:3]
    model, shape = Fixed(params), (3, 1, 100)
    drawn = sampling.sample(model, many // 100, shape=shape, output=OUTPUT)
    assert sampling.last_report().method == "incremental"
    for c, (mean, log_scale) in enumerate(params.tolist()):
        chances = torch.tensor(integrals(mean, log_scale), dtype=torch.float64).exp()
        shares = drawn[:, c].flatten().long().bincount(minlength=LEVELS) / many
        error = (chances * (1 - chances) / many).sqrt()
        assert ((shares - chances).abs() <= 4.5 * error + 1e-6).all()


def test_what_is_not_finite_is_an_error_though_nobody_asks_for_log_p():
    for value in (math.nan, math.inf):
        for params in ([[value, 0.0]], [[0.0, value]]):
            with pytest.raises(ValueError, match="must return finite parameters"):
                sampling.sample(Fixed(torch.tensor(params)), 1, shape=(1, 1, 2), output=OUTPUT,
                                method="incremental")  # fmt: skip
