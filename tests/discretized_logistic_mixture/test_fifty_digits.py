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


def errors_on_the_grid(levels, step, dtype=torch.float32):
    """Of the nats beyond the rounding of their own size, and relative ones of the gradients."""
    rows, want = exact_grid(levels, step)
    params = torch.stack([torch.zeros(len(rows)), rows[:, 0], rows[:, 1]], 1).to(dtype)
    params = params[:, :, None, None].requires_grad_()
    got = nll(params, rows[:, 2].long().view(-1, 1, 1, 1), levels=levels)
    (grad,) = torch.autograd.grad(got.sum(), params)
    nats = ((got.double() + want[:, 0]).abs() - 4e-7 * want[:, 0].abs()).clamp(min=0)
    assert torch.equal(grad[:, 0], torch.zeros_like(grad[:, 0]))  # of one component
    grad = grad[:, 1:, 0, 0].double()
    tiny = 1e-33  # t |z| times what is below the normal range
    want = want[:, 1:]
    # The slope of the scale passes through 0: there, 1e-4 of a hundredth of what cancels.
    z = reference.on_the_grid(rows[:, 2], levels) - rows[:, 0]
    size = torch.stack(
        [want[:, 0].abs(), want.abs()[:, 1].maximum(0.01 * (z * want[:, 0]).abs())], 1
    )
    off = ((grad + want).abs() - tiny).clamp(min=0) / size.clamp(min=tiny)
    return nats.max().item(), off.amax(0).tolist()


@pytest.mark.parametrize("levels, step", [(256, 1), (2, 1), (16, 1), (65536, 997)])
def test_every_bin_is_within_1e_5_nats_of_fifty_digits_and_gradients_within_1e_4(levels, step):
    nats, (d_mean, d_log_scale) = errors_on_the_grid(levels, step)
    assert nats < 1e-5 and d_mean < 1e-4 and d_log_scale < 1e-4, (nats, d_mean, d_log_scale)


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
