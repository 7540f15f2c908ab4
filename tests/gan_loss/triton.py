"""The GAN-loss Triton kernels, interpreted: losses, gradients, sums, offsets, launches."""

import math

import pytest
import torch

pytest.importorskip("triton")
import numpy as np
from hypothesis import given

import genkern
from genkern.ops.gan_loss import KINDS
from genkern.reference import gan_loss as reference
from genkern.triton_kernels import gan_loss as launchers
from genkern.triton_kernels.core import launch
from tests.core.tolerance import assert_close
from tests.core.triton_kit import few_examples, interpreted, launches, only_program, sparse
from tests.gan_loss.values import check, problems

# numpy, under the interpreter: 0 * inf and overflow to inf are part of what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

FORWARD = launchers.LAUNCHERS["gan_loss_forward"]
BACKWARD = launchers.LAUNCHERS["gan_loss_backward"]
BCE, RABCE = KINDS.index("bce"), KINDS.index("rabce")
NONE, MEAN = 0, 1


@given(problems())
@few_examples
def test_losses_and_gradients_match_the_float64_reference(problem):
    with interpreted("gan_loss"):
        check(*problem)


@pytest.mark.parametrize(
    "kind, n", [*((k, n) for k in KINDS for n in (1023, 1025)), ("rabce", 16384), ("rabce", 16385)]
)
def test_sizes_around_the_tiles_and_the_one_program(kind, n):
    """16,385: the relativistic kind leaves its one program."""
    with interpreted("gan_loss"), launches() as names:
        for reduction in ("none", "mean") if n < 2000 else ("mean",):
            upstream = torch.randn(n) if reduction == "none" else torch.tensor(0.7)
            option = 0.1 if kind in ("bce", "lsgan", "rabce") else 0.0
            check(("d", kind, option, reduction), torch.randn(n), torch.randn(n), upstream)
    assert len(names) == (4 if n < 2000 else 5 if n > 16384 else 2)


def test_sums_keep_small_and_huge_terms():
    big = torch.full((3000,), 3e38)
    assert (
        FORWARD(None, big, None, KINDS.index("wgan"), 1, 0.0, 1.0, 1.0, MEAN).item()
        == big[0].neg().item()
    )
    small = torch.full((3000,), -60.0)
    small[0] = 1.0
    want = reference.softplus(small.double()).mean()
    assert_close(FORWARD(None, small, None, BCE, 2, 0.0, 1.0, 1.0, MEAN).neg(), want, scale=want)


def test_infinite_logits_reduce_to_the_limit():
    inf = math.inf
    logits = torch.tensor([inf, 5.0, -inf])
    d = FORWARD(
        torch.tensor([inf, inf]), torch.tensor([-inf, -inf]), None, BCE, 0, 0.0, 1.0, 0.0, MEAN
    )
    assert d.item() == 0.0
    terms = FORWARD(None, logits, None, BCE, 1, 0.0, 1.0, 1.0, NONE)
    assert terms[0] == 0 and terms[2] == inf
    assert FORWARD(None, torch.tensor([math.nan]), None, BCE, 1, 0.0, 1.0, 1.0, NONE).isnan().all()


@pytest.mark.parametrize("alone", [40, 39])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", ["bce", "lsgan", "rabce"])
def test_an_annealed_smoothing_is_read_by_the_kernels(kind, reduction, alone, monkeypatch):
    """Also where the relativistic kind takes several launches; the number of the host is not."""
    monkeypatch.setattr(launchers, "_LONE_LOGITS", alone)
    n = 40
    upstream = torch.randn(n) if reduction == "none" else torch.tensor(0.7)
    real, fake = torch.randn(n), torch.randn(n)
    annealed = torch.tensor(0.3, dtype=torch.float64)
    options = (KINDS.index(kind), 0)
    got = FORWARD(real, fake, annealed, *options, 9.0, 1.0, 0.0, int(reduction == "mean"))
    want = FORWARD(real, fake, None, *options, 0.3, 1.0, 0.0, int(reduction == "mean"))
    assert torch.equal(got, want)
    with interpreted("gan_loss"):
        check(("d", kind, annealed, reduction), real, fake, upstream)


def test_numbers_of_the_host_and_of_the_device_are_float64():
    zeros, annealed = torch.zeros(3, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    want = torch.full((3,), 0.5 * (1 - 0.1) ** 2, dtype=torch.float64)
    lsgan = KINDS.index("lsgan")
    for options in ((annealed, lsgan, 0, 0.0), (None, lsgan, 0, 0.1)):
        assert_close(FORWARD(zeros, zeros, *options, 1.0, 0.0, NONE), want)


def test_a_generator_does_not_smooth():
    x, annealed = torch.randn(9), torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(FORWARD(None, x, annealed, BCE, 1, 0.0, 1.0, 1.0, MEAN),
                       FORWARD(None, x, None, BCE, 1, 0.0, 1.0, 1.0, MEAN))  # fmt: skip


def test_repeated_sums_have_the_same_bits_and_leave_the_counter_at_zero():
    x, counter = torch.randn(20_000), torch.zeros(1, dtype=torch.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "counters", lambda tensor, count: counter)
        first, second = (FORWARD(x, x, None, BCE, 0, 0.0, 1.0, 0.0, MEAN) for _ in range(2))
    assert torch.equal(first, second) and counter.item() == 0


def test_the_order_in_which_programs_finish_does_not_matter():
    """Partial sums are added by place: any program may be the last."""
    x = torch.randn(5000)
    expected = FORWARD(x, x, None, BCE, 0, 0.0, 1.0, 0.0, MEAN)
    out, partial = torch.empty(()), torch.empty(5, 2, dtype=torch.float64)
    done = torch.zeros(1, dtype=torch.int32)
    numbers = launchers._numbers(x.numel(), x.numel())
    for i in (3, 0, 4, 2, 1):
        with only_program(i, 5):
            launchers.gan_loss_sum_kernel[(1,)](
                x, x, None, None, None, out, partial, done, *numbers,
                *launchers._sides(BCE, 0, 1.0, 0.0), *launchers._weights(5000, 5000, MEAN),
                TERM="cross_entropy", SLOPE=False, SHIFT=None, PAIR=False,
                DTYPE=launchers.accumulator(x.dtype), MAX_PROGRAMS=1024, B=1024,
            )  # fmt: skip
    assert torch.equal(out, expected)


def test_offsets_beyond_2_to_the_31():
    n = 2**31 + 5 * 1024
    fake, out = sparse(n, np.float16), sparse(n, np.float16)
    fake[-1024:] = torch.randn(1024).half()
    options = {"SHIFT": None, "DTYPE": launchers.accumulator(fake.dtype), "B": 1024}
    with only_program(n // 1024 - 1, n // 1024):
        launchers.gan_loss_terms_kernel[(1,)](
            None, fake, None, None, out, *launchers._numbers(0, n), *launchers._sides(BCE, 1, 0.0),
            TERM="cross_entropy", **options,
        )  # fmt: skip
    want = reference.softplus(-fake[-1024:].double())
    assert_close(out[-1024:], want, scale=want)


def test_one_launch_forward_and_one_backward():
    x = torch.randn(40, requires_grad=True)
    for loss in (genkern.gan_d_loss, genkern.gan_g_loss):
        for kind in ("bce", "rabce"):
            arguments = (x, x * 2) if kind == "rabce" or loss is genkern.gan_d_loss else (x,)
            with interpreted("gan_loss"), launches() as names:
                value = loss(*arguments, kind=kind)
                assert len(names) == 1
                value.backward()
            assert len(names) == 2


def test_no_launch_for_empty_logits():
    empty = torch.ones(0, 3)
    with launches() as names:
        assert FORWARD(empty, empty, None, BCE, 0, 0.0, 1.0, 0.0, MEAN).isnan()
        assert FORWARD(None, empty, None, BCE, 1, 0.0, 1.0, 1.0, 2).item() == 0.0
        assert FORWARD(empty, empty, None, BCE, 0, 0.0, 1.0, 0.0, NONE).shape == (0, 3)
        d_real, d_fake = BACKWARD(
            torch.ones(()), empty, empty, None, BCE, 0, 0.0, 1.0, 0.0, MEAN, True, True
        )
    assert not names and d_real.shape == d_fake.shape == (0, 3)


def test_unsupported_arguments_are_named():
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="gan_loss_forward: real must be on cpu like fake; got"):
        FORWARD(x.to("meta"), x, None, BCE, 0, 0.0, 1.0, 0.0, MEAN)
    with pytest.raises(
        RuntimeError, match="gan_loss_backward: upstream_0 must be on cpu like fake"
    ):
        BACKWARD(torch.ones((), device="meta"), x, x, None, BCE, 0, 0.0, 1.0, 0.0, MEAN, True, True)
    with pytest.raises(RuntimeError, match=r"fake must be one of float32, .* got int64"):
        FORWARD(None, x.long(), None, BCE, 1, 0.0, 1.0, 1.0, MEAN)
