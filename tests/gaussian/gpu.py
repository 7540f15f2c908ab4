"""What `make gpu` asks of the Gaussian ops."""

import torch

import genkern
from benchmarks import gaussian as cases
from genkern import random
from genkern.reference import gaussian as reference
from tests.core.tolerance import assert_close
from tests.gaussian.test_options import check_options
from tests.gaussian.values import check, fused, plain
from tests.gpu.kit import F64, Large, both, captured, raises


def _kl_rsample(dtype):
    """A prior, samples, free bits, given noise: every gradient."""
    shape, noise = (7, 130), (2, 7, 130)
    inputs = [torch.randn(s).to(dtype) for s in (shape, shape, shape, shape, noise)]
    upstream = [torch.randn(noise).to(dtype), torch.randn(7).to(dtype)]
    check(fused(2, 0.0), plain(0.0), inputs, upstream)


def _kl(dtype):
    """The KL alone, of few long rows, which several programs share."""
    inputs = [torch.randn(2, 20_000).to(dtype) for _ in range(2)]
    inputs += [None, None, torch.zeros(2, 20_000, dtype=dtype)]
    check(fused(None, 0.0), plain(0.0), inputs, [None, torch.randn(2).to(dtype)])


def _rsample(dtype):
    inputs = [torch.randn(65, 33).to(dtype) for _ in range(5)]
    inputs[2:4] = [None, None]
    check(fused(None, 0.0), plain(0.0), inputs, [torch.randn(65, 33).to(dtype), None])


def _rsample_and_log_prob(dtype):
    """One softplus scale of each channel."""
    shape = (7, 5, 33)
    inputs = [torch.randn(s).to(dtype) for s in (shape, (5, 1), shape, shape, (2, *shape))]
    check_options([*inputs[:2], None, None, inputs[4]], "softplus", 2, "density")


CALLS = {
    "gaussian_kl_rsample": _kl_rsample,
    "gaussian_kl": _kl,
    "gaussian_rsample": _rsample,
    "gaussian_rsample_and_log_prob": _rsample_and_log_prob,
}


def headlines():
    """The timed cases that fill a GPU."""
    return [cases.both_case(8192, 2048), cases.kl_case(8192, 2048), cases.sample_case(8192, 2048)]


def _noise(shape, dtype):
    """In float64 the words become normals without rounding that could hide a wrong word."""
    zeros, seed = torch.zeros(shape, dtype=dtype), torch.tensor([123456789012345678])
    forward = torch.ops.genkern.gaussian_forward.default
    z, *_ = forward(zeros, zeros, None, None, None, seed, None, None, 0.0, 0, 0)
    want = random.philox_normal(seed.cpu(), shape, F64).cpu()
    assert_close(z.cpu(), want, scale=0.125 if dtype == torch.float32 else 1.0)


def noise_is_the_stream_of_the_cpu():
    for dtype in (torch.float64, torch.float32):
        for shape in ((3, 5), (7, 1000), (1, 100_001)):
            _noise(shape, dtype)


def annealed_free_bits_are_read_on_the_device():
    mu, logvar = torch.randn(9, 40), torch.randn(9, 40)
    for bits in (0.0, 0.25):
        got = genkern.gaussian_kl(mu, logvar, free_bits=torch.tensor(bits))
        assert torch.equal(got, genkern.gaussian_kl(mu, logvar, free_bits=bits))


def replays_of_a_graph_draw_different_noise_and_its_gradient():
    """In half precision the backward kernel draws the noise again, from the seed of the replay."""
    mu, logvar = (torch.zeros(64, 33, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))

    def call():
        z = genkern.gaussian_rsample(mu, logvar)
        return z.detach(), *torch.autograd.grad(z.sum(), logvar)

    graph, (z, d_logvar) = captured(call)
    draws = []
    for _ in range(2):
        graph.replay()
        draws.append(z.clone())
        torch.testing.assert_close(d_logvar, z / 2)
    assert not torch.equal(*draws)
    assert all((z.float().std() - 1).abs() < 0.1 for z in draws)


def batches_around_the_limit_of_the_other_grid_axes():
    for N in (65_535, 65_536, 65_537):
        x = [torch.randn(N, 3, dtype=F64) for _ in range(3)]
        both(
            lambda *t: genkern.gaussian_kl_rsample(t[0], t[1], eps=t[2]),
            lambda *t: (reference.rsample(*t), reference.kl(t[0], t[1])),
            x, [x[0], x[1][:, 0]], terms=3, scale=8.0,
        )  # fmt: skip


def tensors_on_different_devices_are_named():
    x = torch.ones(2, 3)
    text = "logvar must be on cuda:0 like mu; got cpu"
    raises(RuntimeError, text, lambda: genkern.gaussian_kl(x, x.cpu()))


CHECKS = [
    noise_is_the_stream_of_the_cpu,
    annealed_free_bits_are_read_on_the_device,
    replays_of_a_graph_draw_different_noise_and_its_gradient,
    batches_around_the_limit_of_the_other_grid_axes,
    tensors_on_different_devices_are_named,
]

# Sums of parts that several programs form: the order is that of the parts, whoever ends last.
STEPS = {
    "split rows": (
        lambda mu, logvar, eps: genkern.gaussian_kl_rsample(mu, logvar, eps=eps),
        [(2, 100_000)] * 3,
    ),
}

D = 4096
LARGE = {
    "kl_rsample": Large(
        lambda mu, logvar: genkern.gaussian_kl_rsample(mu, logvar, eps=mu.detach()),
        lambda mu, logvar: (
            reference.rsample(mu, logvar, mu.detach()),
            reference.kl(mu, logvar),
        ),
        [(2**19 + 3, D)] * 2, [], [(1, 64.0), (D, 4.0 * D), (1, 64.0), (1, 64.0)], 48,
    ).check,
}  # fmt: skip
