"""The Triton kernels of the discretized logistic mixture, interpreted: nats, gradients, samples."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from genkern import random
from genkern.reference import discretized_logistic_mixture as reference
from genkern.triton_kernels import discretized_logistic_mixture as launchers
from tests.core.triton_kit import few_examples, interpreted, last_programs, launches, sparse
from tests.discretized_logistic_mixture import test_fifty_digits
from tests.discretized_logistic_mixture.test_fifty_digits import exact_grid, off
from tests.discretized_logistic_mixture.values import (
    STEM,
    check,
    integers,
    near_a_boundary,
    nll,
    problems,
    sample,
    shaped,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@few_examples
def test_nats_and_gradients_match_the_float64_reference(problem):
    log_scales = reference.unpack(problem[0][0].double(), problem[2].shape[1])[2]
    if (log_scales + 7).abs().lt(1e-3).logical_and(log_scales != -7).any():
        return
    with interpreted(STEM):
        check(*problem)


def test_gradients_of_bins_are_within_1e_4_of_fifty_digits():
    """In one image, because the interpreter takes its time for each program."""
    rows, want = exact_grid(256, 37)
    params = torch.stack([torch.zeros(len(rows)), rows[:, 0], rows[:, 1]])[None, :, None]
    params = params.float().requires_grad_()
    with interpreted(STEM):
        nats = nll(params, rows[:, 2].long()[None, None, None])
        (grad,) = torch.autograd.grad(nats, params)
    assert abs(nats.item() / -want[:, 0].sum().item() - 1) < 1e-6
    assert max(off(*-grad[0, 1:, 0], rows, want, 256)) <= 1


def test_several_programs_of_an_image_and_views():
    for colours, width, step in ((1, 90, 2), (3, 45, 1)):
        params = shaped(torch.randn(1, reference.PARAMETERS[colours] * 2, 3, width), colours)
        target = integers((1, colours, 3, width), 256, torch.uint8)
        params = params if step > 1 else params.to(memory_format=torch.channels_last)
        with interpreted(STEM):
            check([params[..., ::step]], [torch.randn(1)], target[..., ::step])


@pytest.mark.parametrize("colours, levels, temperature", [(1, 1000, 0.0), (3, 256, 1.0)])
def test_samples_are_those_of_the_reference_and_of_the_cpu(colours, levels, temperature):
    params = shaped(torch.randn(3, reference.PARAMETERS[colours] * 3, 3, 47), colours)
    options = {"levels": levels, "data_channels": colours, "temperature": temperature}

    def draw():
        return sample(params, generator=torch.Generator().manual_seed(9), **options)

    seed = random.draw_seed(params.device, torch.Generator().manual_seed(9))
    noise = random.philox_uniform(seed, (3, 1 + colours, 3, 47), torch.float32)
    with interpreted(STEM):
        found = draw()
        assert torch.equal(found, sample(params, noise=noise, **options))
    exact = params.double(), noise.double(), levels, colours, temperature
    close = near_a_boundary(*exact)
    assert close.float().mean() < 0.2
    for other in (draw(), reference.sample(*exact)):
        assert torch.equal(torch.where(close, 0, found.long()), torch.where(close, 0, other.long()))


def test_offsets_beyond_32_bits():
    """Each image is a program; the last one lies beyond 2^31 parameters, and beyond 2^31 samples
    of its noise none does."""
    channels, side, levels = 30, (8, 16), 256
    N = 2**31 // (channels * 128) + 1

    def far(planes, dtype, values):
        batch = sparse(N * planes * 128, dtype).view(N, planes, *side)
        batch[-1] = values
        return batch

    params = far(channels, np.float16, shaped(torch.randn(1, channels, *side), 3)[0])
    target = far(3, np.uint8, integers((3, *side), levels))
    noise = far(4, np.float32, torch.rand(4, *side))
    forward, backward = launchers.LAUNCHERS.values()
    options = (levels, 3, 1.0, False)
    upstream = torch.full((N,), 2.0, dtype=torch.float16)
    with last_programs():
        nats, _, saved = forward(params, target, None, None, *options, True)
        _, found, _ = forward(params, None, noise, None, *options, False)
        d = backward(upstream, None, params, target, None, None, saved, *options, True)
    assert params.numel() > 2**31
    one, at, given = params[-1:].clone(), target[-1:].clone(), noise[-1:].clone()
    want, _, want_saved = forward(one, at, None, None, *options, True)
    assert torch.equal(nats[-1:], want) and torch.equal(saved[-1:], want_saved)
    assert torch.equal(found[-1:], forward(one, None, given, None, *options, False)[1])
    tail = want_saved[0, 3 * 1024 :]  # of the last program
    assert torch.equal(d[-1].flatten()[3 * 1024 :], (2 * tail).half())


def test_a_target_that_is_no_level_makes_its_image_nan():
    params, target = torch.randn(3, 30, 2, 3), torch.zeros(3, 3, 2, 3, dtype=torch.int64)
    target[1, 2, 1, 1], target[2, 0, 0, 0] = 16, -1
    with interpreted(STEM):
        assert nll(params, target, levels=16).isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("dtype, relative", [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_three_wide_colours_keep_their_nats(dtype, relative):
    with interpreted(STEM):
        test_fifty_digits.test_three_wide_colours_keep_their_nats(dtype, relative)


def test_one_launch_forward_and_one_backward():
    params = torch.randn(1, 10, 3, 5, requires_grad=True)
    target = torch.zeros(1, 3, 3, 5, dtype=torch.uint8)
    with interpreted(STEM), launches() as names:
        nll(params, target).sum().backward()
        genkern.discretized_logistic_mixture_sample(params)
    assert names == ["mixture_nll_kernel", "mixture_scale_kernel", "mixture_sample_kernel"]


@pytest.mark.parametrize("shape", [(0, 30, 3, 4), (2, 30, 0, 4)])
def test_no_launch_for_empty_sizes(shape):
    params = torch.ones(shape, requires_grad=True)
    target = torch.zeros(shape[0], 3, *shape[2:], dtype=torch.uint8)
    with interpreted(STEM), launches() as names:
        nats = nll(params, target)
        nats.sum().backward()
        assert sample(params).shape == target.shape
    assert not names and torch.equal(nats, torch.zeros(shape[0])) and params.grad.shape == shape


def test_unsupported_arguments_are_named():
    forward = launchers.LAUNCHERS[f"{STEM}_forward"]
    params, target = torch.ones(1, 3, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    options = (256, 1, 1.0, False, False)
    with pytest.raises(RuntimeError, match="target must be on cpu like params; got meta"):
        forward(params, target.to("meta"), None, None, *options)
    with pytest.raises(RuntimeError, match=r"params must be one of float32, .* got int32"):
        forward(params.int(), target, None, None, *options)
