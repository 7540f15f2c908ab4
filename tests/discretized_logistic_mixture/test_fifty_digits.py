"""discretized_logistic_mixture_nll against an evaluation with 50 digits."""

import functools

import mpmath
import pytest
import torch

from genkern.reference import discretized_logistic_mixture as reference
from tests.discretized_logistic_mixture.values import F64, integers, nll


def exact(mean, log_scale, v, levels):
    """log P, d log P / dm and d log P / ds of one discretized logistic, to 50 digits."""
    with mpmath.workdps(50):
        sigmoid = lambda z: 1 / (1 + mpmath.exp(-z))  # noqa: E731
        slope = lambda z: sigmoid(z) * sigmoid(-z)  # noqa: E731
        t, h = mpmath.exp(-mpmath.mpf(log_scale)), mpmath.mpf(1) / (levels - 1)
        z = mpmath.mpf(2 * v) / (levels - 1) - 1 - mpmath.mpf(mean)
        p, q = t * (z + h), t * (z - h)
        lower, upper = v == 0, v == levels - 1
        if p + q > 0:  # by symmetry on the left, where no difference is of numbers near 1
            p, q, lower, upper = -q, -p, upper, lower
        sign = 1 if z > 0 else -1
        low = mpmath.mpf(0) if lower else sigmoid(q)
        high = mpmath.mpf(1) if upper else sigmoid(p)
        d_low, d_high = (0 if lower else slope(q)), (0 if upper else slope(p))
        d_mean = sign * t * (d_high - d_low) / (high - low)
        moved = (0 if upper else p * d_high) - (0 if lower else q * d_low)
        return mpmath.log(high - low), d_mean, -moved / (high - low)


@functools.cache
def exact_grid(levels, step):
    """Every `step`-th value of one component at log-scales -7 ... 3 and some means."""
    values = sorted({*range(0, levels, step), 1, levels - 2, levels - 1})
    rows = [
        (float(torch.tensor(m)), float(s), v)
        for s in range(-7, 4)
        for m in (-0.37, 0.0, 0.9981, 1.4)
        for v in values
    ]
    found = [[float(y) for y in exact(m, s, v, levels)] for m, s, v in rows]
    return torch.tensor(rows, dtype=F64), torch.tensor(found, dtype=F64)


# Each of the two terms of d log P / ds, t |z| (pull) and what widens the bin, is a product without
# a difference. To first order, in units of eps: t 2, h t and z 1 1/2, 1 - e^-y 3 and its
# argument 4, the two denominators 5, products and the quotient 2 1/2.
ROUNDINGS = 18


def terms_of_the_scale(rows, want, levels):
    """|A| + |B| of d log P / ds = A - B, A = |z d log P / dm|; in the bins at the ends A stands
    alone. Nothing can be known of the difference beyond the rounding of its terms: it passes
    through 0 where |z| is about 1.54 scales."""
    A = ((reference.on_the_grid(rows[:, 2], levels) - rows[:, 0]) * want[:, 1]).abs()
    inner = (rows[:, 2] > 0) & (rows[:, 2] < levels - 1)
    return torch.where(inner, A + (A - want[:, 2]).abs(), 0.0)


def off(d_mean, d_log_scale, rows, want, levels):
    """Errors of the gradients of log P over what they may be: 1e-4 of themselves and, of the
    scale's, the roundings of its terms. The first alone is enough where the terms are less than
    46 times their difference; where they are 1,700 times, half an ulp of one term is 1e-4 of it."""
    tiny = 1e-33  # t |z| times what is below the normal range
    rounded = ROUNDINGS * torch.finfo(torch.float32).eps * terms_of_the_scale(rows, want, levels)
    limits = 1e-4 * want[:, 1].abs() + tiny, 1e-4 * want[:, 2].abs() + rounded + tiny
    errors = (d_mean.double() - want[:, 1]).abs(), (d_log_scale.double() - want[:, 2]).abs()
    return [(e / limit).max().item() for e, limit in zip(errors, limits, strict=True)]


def errors_on_the_grid(levels, step, dtype=torch.float32):
    """Of the nats beyond the rounding of their own size, and of the gradients over their limits."""
    rows, want = exact_grid(levels, step)
    params = torch.stack([torch.zeros(len(rows)), rows[:, 0], rows[:, 1]], 1).to(dtype)
    params = params[:, :, None, None].requires_grad_()
    got = nll(params, rows[:, 2].long().view(-1, 1, 1, 1), levels=levels)
    (grad,) = torch.autograd.grad(got.sum(), params)
    nats = ((got.double() + want[:, 0]).abs() - 4e-7 * want[:, 0].abs()).clamp(min=0)
    assert torch.equal(grad[:, 0], torch.zeros_like(grad[:, 0]))  # of one component
    return nats.max().item(), off(*-grad[:, 1:, 0, 0].T, rows, want, levels)


GRIDS = [(256, 1), *((levels, 1) for levels in range(2, 11)), (16, 1), (65536, 997)]


@pytest.mark.parametrize("levels, step", GRIDS)
def test_every_bin_is_within_1e_5_nats_of_fifty_digits_and_gradients_within_1e_4(levels, step):
    nats, (d_mean, d_log_scale) = errors_on_the_grid(levels, step)
    assert nats < 1e-5 and d_mean <= 1 and d_log_scale <= 1, (nats, d_mean, d_log_scale)


def test_a_slope_of_the_width_that_is_slightly_wrong_is_seen():
    """By 2e-5 of itself, the sum of both terms apart; the wrong one of a density is, too."""
    rows, want = exact_grid(256, 1)
    B = terms_of_the_scale(rows, want, 256) / 2 - want[:, 2] / 2  # A - B is the slope
    B = torch.where((rows[:, 2] > 0) & (rows[:, 2] < 255), B, 0.0)
    assert off(want[:, 1], want[:, 2], rows, want, 256) == [0, 0]
    assert off(want[:, 1], want[:, 2] - 2e-5 * B, rows, want, 256)[1] > 2
    scaled = (reference.on_the_grid(rows[:, 2], 256) - rows[:, 0]) * torch.exp(-rows[:, 1])
    density = torch.where(B > 0, scaled * torch.tanh(scaled / 2) - 1, want[:, 2])
    assert off(want[:, 1], density, rows, want, 256)[1] > 1


def exact_pixel(params, target, levels):
    """-log P of one RGB pixel, to 50 digits; params (10, K)."""
    with mpmath.workdps(50):
        number = lambda t: mpmath.mpf(t.item())  # noqa: E731
        x = [mpmath.mpf(2 * v) / (levels - 1) - 1 for v in target]
        weights, joint = [], []
        for row in params.T:
            k = [mpmath.tanh(number(row[i])) for i in (3, 6, 9)]
            means = [number(row[1]), number(row[4]) + k[0] * x[0]]
            means.append(number(row[7]) + k[1] * x[0] + k[2] * x[1])
            weights.append(mpmath.exp(number(row[0])))
            parts = [exact(means[c], row[2 + 3 * c].item(), target[c], levels)[0] for c in range(3)]
            joint.append(weights[-1] * mpmath.exp(mpmath.fsum(parts)))
        return float(mpmath.log(mpmath.fsum(weights)) - mpmath.log(mpmath.fsum(joint)))


def test_mixtures_of_coupled_colours_are_within_1e_5_nats_of_fifty_digits():
    N, K = 120, 3
    target = integers((N, 3, 1, 1), 256, torch.int32)
    x = reference.on_the_grid(target.double(), 256)[:, :, 0, 0]
    params = torch.randn(N, 10, K)
    params[:, [2, 5, 8]] = torch.rand(N, 3, K) * 10 - 7
    # A mean of the last component lies near each target, as after training.
    k = params[:, [3, 6, 9], -1].tanh()
    near = torch.stack([x[:, 0], x[:, 1] - k[:, 0] * x[:, 0],
                        x[:, 2] - k[:, 1] * x[:, 0] - k[:, 2] * x[:, 1]], 1)  # fmt: skip
    scale = params[:, [2, 5, 8], -1].exp()
    params[:, [1, 4, 7], -1] = (near + 2 * scale * torch.randn(N, 3)).float()
    got = nll(params.view(N, 10 * K, 1, 1), target)
    want = [exact_pixel(params[n], target[n].flatten().tolist(), 256) for n in range(N)]
    want = torch.tensor(want, dtype=F64)
    error = ((got.double() - want).abs() - 4e-7 * want.abs()) / 3
    assert error.max() < 1e-5, error.max()


@pytest.mark.parametrize("dtype, relative", [(torch.float32, 1e-6), (F64, 1e-13)])
def test_three_wide_colours_keep_their_nats(dtype, relative):
    """The product of their probabilities is beyond the range of float32, its logarithm is not."""
    for log_scale in (15.0, 22.0, 30.0, 80.0):
        params = torch.zeros(10, 1, dtype=dtype)
        params[[2, 5, 8]] = log_scale
        leaf = params.view(1, 10, 1, 1).clone().requires_grad_()
        nats = nll(leaf, torch.full((1, 3, 1, 1), 100))
        assert abs(nats.item() / exact_pixel(params, [100] * 3, 256) - 1) < relative, log_scale
        (grad,) = torch.autograd.grad(nats, leaf)
        assert (grad[0, [2, 5, 8]] - 1).abs().max() < relative, log_scale
