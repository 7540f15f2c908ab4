"""The Gaussian Triton kernels, interpreted: values, gradients, noise, offsets, launches."""

import pytest
import torch

pytest.importorskip("triton")
import numpy as np
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

import genkern
from genkern import random
from genkern.reference import gaussian as reference
from genkern.triton_kernels import gaussian as launchers
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import philox_words
from tests.core.helpers import run
from tests.core.tolerance import assert_close
from tests.core.triton_kit import few_examples, interpreted, launches, only_program, sparse
from tests.gaussian.test_options import check_options, option_problems
from tests.gaussian.values import check, fused, plain, problems

F64 = torch.float64
# numpy, under the interpreter: 0 * inf and overflow to inf are part of what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

FORWARD = launchers.LAUNCHERS["gaussian_forward"]
BACKWARD = launchers.LAUNCHERS["gaussian_backward"]


@given(problems())
@few_examples
def test_values_and_every_gradient_match_the_float64_reference(problem):
    inputs, upstream, num_samples, free_bits = problem
    if free_bits:  # on the kink itself two precisions may fall on different sides
        flat = [None if x is None else x.double().flatten()[:, None] for x in inputs[:4]]
        if (reference.kl(*flat) - free_bits).abs().lt(1e-5).any():
            return
    with interpreted("gaussian"):
        check(fused(num_samples, free_bits), plain(free_bits), inputs, upstream)


@given(option_problems())
@few_examples
def test_options_match_the_float64_reference(problem):
    with interpreted("gaussian"):
        check_options(*problem)


# Row lengths of every tile, on both sides of its limits; 9000 is split over programs.
ROWS = [(5, 1), (3, 31), (3, 64), (2, 65), (2, 256), (2, 257), (2, 1025), (1, 9000), (1, 9001)]


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("num_samples", [None, 2])
def test_every_tile_and_the_split_of_long_rows(shape, num_samples):
    noise = shape if num_samples is None else (num_samples, *shape)
    inputs = [torch.randn(s) for s in (shape, shape, shape, shape, noise)]
    with interpreted("gaussian"):
        check(
            fused(num_samples, 0.0), plain(0.0), inputs, [torch.randn(noise), torch.randn(shape[0])]
        )


@pytest.mark.parametrize("free_bits", [0.0, 0.25, 4.0])
@pytest.mark.parametrize("prior", [False, True])
def test_annealed_free_bits_are_read_by_the_kernels(free_bits, prior):
    inputs = [torch.randn(3, 50) for _ in range(5)]
    inputs[2:4] = inputs[2:4] if prior else [None, None]
    annealed = torch.tensor(free_bits, dtype=torch.float64)
    upstream = [torch.randn(3, 50), torch.randn(3)]
    with interpreted("gaussian"):
        got = run(fused(None, annealed), inputs, upstream)
        want = run(fused(None, free_bits), inputs, upstream)
    for one, other in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("needed, kind", [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (1, 3), (4, 3)])
def test_only_the_gradients_that_are_needed(needed, kind):
    inputs = [torch.randn(3, 50) for _ in range(5)]
    upstream = (torch.randn(3, 50), torch.randn(3))
    call = (*upstream, *inputs, None, None, None, 0.25, 0, kind)
    want = BACKWARD(*call, *(True,) * 5)
    got = BACKWARD(*call, *(i == needed for i in range(5)))
    assert [d.numel() > 0 for d in got] == [i == needed for i in range(5)]
    assert torch.equal(got[needed], want[needed])
    with launches() as names:
        assert not any(d.numel() for d in BACKWARD(*call, *(False,) * 5))
    assert not names


def test_split_rows_leave_the_counters_at_zero():
    mu = torch.randn(2, 9000)
    counters = torch.zeros(2, dtype=torch.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "counters", lambda tensor, count: counters)
        first, second = (FORWARD(mu, mu, *(None,) * 6, 0.0, 0, 1)[1] for _ in range(2))
    assert torch.equal(first, second) and counters.tolist() == [0, 0]


# ---- noise ---------------------------------------------------------------------------------


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([(3, 5), (2, 40), (1, 300), (2, 1030)]),
    st.sampled_from([None, 3]),
)
@few_examples
def test_noise_is_the_stream_of_the_cpu(seed, shape, num_samples):
    """Float64 turns words into normals without rounding that could hide a wrong word."""
    zeros, key = torch.zeros(shape, dtype=F64), torch.tensor([seed])
    options = (None, None, None, key, None, num_samples, 0.0, 0, 0)
    z = FORWARD(zeros, zeros, *options)[0]
    want = torch.ops.genkern.gaussian_forward(zeros, zeros, *options)[0]
    assert_close(z, want, scale=1.0)
    z = FORWARD(zeros.float(), zeros.float(), *options)[0]
    # Few ulp, except that sqrt(-2 log u) loses relative accuracy as u tends to 1.
    assert_close(z, want, scale=0.125)


@triton.jit
def words_kernel(p_seed, p_out, first: tl.int64, C: tl.constexpr):
    o_block = first + tl.arange(0, C)
    words = philox_words(tl.load(p_seed), o_block)
    for i in tl.static_range(4):
        tl.store(p_out + 4 * tl.arange(0, C) + i, words[i].to(tl.int64))


@pytest.mark.parametrize("first", [0, 2**32 - 32, 2**50])
def test_words_are_bit_equal(first):
    for seed in (0, -1, 123456789012345678, -(2**63)):
        key, out = torch.tensor([seed]), torch.zeros(256, dtype=torch.int64)
        words_kernel[(1,)](key, out, first, C=64)
        assert torch.equal(out, words_from(key, first, 256))


def words_from(seed, block, count):
    """Words of the stream from a block far into it, by the reference's own rounds."""
    with pytest.MonkeyPatch.context() as patch:
        arange = torch.arange
        patch.setattr(torch, "arange", lambda n, **kwargs: arange(n, **kwargs) + block)
        return random.philox_words(seed, count)


def normals_of(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "philox_words", lambda seed, count: words)
        return random.philox_normal(torch.tensor([0]), (words.numel(),), F64)


def test_half_precision_backward_regenerates_the_noise():
    mu = torch.full((2, 70), 3.0, dtype=torch.float16)
    logvar = torch.full((2, 70), -8.0, dtype=torch.float16)
    seed = torch.tensor([77])
    _, d_logvar, *_ = BACKWARD(
        torch.ones_like(mu), None, mu, logvar, None, None, None, seed, None, None, 0.0, 0, 0,
        True, True, False, False, False,
    )  # fmt: skip
    eps = random.philox_normal(seed, (2, 70), F64)
    assert_close(d_logvar, 0.5 * np.exp(-4.0) * eps, scale=0.1)


# ---- sizes and launches --------------------------------------------------------------------


@pytest.mark.parametrize("D", [64, 4096])
def test_offsets_beyond_2_to_the_31(D):
    """The program that holds element 2^31 + 7 D of a matrix of 2^31 + 8 D elements."""
    row = 2**31 // D + 7
    mu = sparse((row + 1) * D, np.float16).view(-1, D)
    z, mu[row] = sparse(mu.numel(), np.float16).view(-1, D), torch.randn(D).half()
    seed, N = torch.tensor([5]), row + 1
    options = launchers._options(N, D, 1, mu.dtype)
    programs = -(-N // options["BR"])
    with only_program(programs - 1, programs):
        launchers.gaussian_forward_kernel[(1,)](
            mu, mu, None, None, None, seed, None, z, None, None, None, None, N, D, 1, 1,
            -(-D // 4 // options["BC"]) * options["BC"], 0.0, SCALE=0, ELEMENTS=False,
            MAX_SPLITS=1, **options,
        )  # fmt: skip
    first = row * D // 4
    eps, logvar = normals_of(words_from(seed, first, D)), mu[row].double()
    assert_close(z[row], logvar + (0.5 * logvar).exp() * eps, scale=8.0)


def test_one_launch_forward_and_one_backward():
    mu = torch.randn(3, 40, requires_grad=True)
    with interpreted("gaussian"), launches() as forward:
        z, kl = genkern.gaussian_kl_rsample(mu, mu * 0.5, num_samples=2)
        with launches() as backward:
            (z.sum() + kl.sum()).backward()
    assert len(forward) - len(backward) == 1 and len(backward) == 1


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 0, 4)])
def test_no_launch_for_empty_sizes(shape):
    mu = torch.ones(shape)
    with launches() as names:
        for kind, rows in ((1, shape[:1]), (3, (2, *shape[:1]))):
            call = (mu, mu, None, None, None, torch.tensor([1]), None, 2, 0.0, 0, kind)
            z, second = FORWARD(*call)
            grads = BACKWARD(z, second, *call, True, True, False, False, False)
            assert z.shape == (2, *shape) and torch.equal(second, torch.zeros(rows))
            assert grads[0].shape == grads[1].shape == shape
    assert not names


def test_unsupported_arguments_are_named():
    x = torch.ones(2, 3)
    call = lambda *args: FORWARD(*args, *(None,) * (8 - len(args)), 0.0, 0, 1)  # noqa: E731
    with pytest.raises(RuntimeError, match="gaussian_forward: logvar must be on cpu like mu; got"):
        call(x, x.to("meta"))
    with pytest.raises(RuntimeError, match="seed must be on meta like mu; got cpu"):
        call(x.to("meta"), x.to("meta"), None, None, None, torch.tensor([1]))
    with pytest.raises(RuntimeError, match=r"logvar must be float32 like mu; got fl"):
        call(x, x.double())
    with pytest.raises(RuntimeError, match=r"mu must be one of float32, .* got int32"):
        call(x.int(), x.int())
