"""gan_d_loss, gan_g_loss, nn.GANLoss."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import genkern
from genkern.ops.gan_loss import KINDS
from genkern.reference import gan_loss as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
D_CASES = [(k, s) for k in KINDS for s in ((0.0, 0.1, 1.0) if k in "bce lsgan rabce" else (0.0,))]
G_CASES = [(k, s) for k in KINDS for s in ((False, True) if k in ("bce", "rabce") else (False,))]
REDUCTIONS = ("none", "mean", "sum")


# ---- one definition of a problem, of both sides, and of how far they may be apart ------------


def fused(side, kind, option, reduction):
    if side == "d":
        return lambda real, fake: genkern.gan_d_loss(
            real, fake, kind=kind, label_smoothing=option, reduction=reduction
        )
    return lambda real, fake: genkern.gan_g_loss(
        fake, real, kind=kind, saturating=option, reduction=reduction
    )


def plain(side, kind, option, reduction, ref=reference):
    if side == "d":
        return lambda real, fake: ref.d_loss(real, fake, kind, option, reduction)
    return lambda real, fake: ref.g_loss(fake, real, kind, option, reduction)


def magnitudes(side, kind, option, reduction, real, fake, upstream):
    """Sizes of what is summed in the loss and in each gradient: the formulas in absolute values.

    Where a logit is used as it is, a cross-entropy and its slope keep their relative accuracy
    down to the smallest; a shifted logit is off by eps times the size of what was subtracted,
    and a smoothed target by eps.
    """
    sizes = [None if x is None else x.abs() for x in (real, fake)]
    means = [None if x is None else x.mean() for x in sizes]
    smoothed = side == "d" and option not in (0.0, 1.0)
    values, slopes = [], []
    for i, x in enumerate((real, fake)):
        if x is None:
            values.append(torch.zeros((), dtype=F64))
            slopes.append(None)
            continue
        if kind == "rabce":
            value = slope = 1 + sizes[i] + means[1 - i]
        elif kind == "bce":
            target = (1 - option if i == 0 else 0.0) if side == "d" else float(not option)
            value = reference.cross_entropy(x, target)
            value = value + sizes[i] if smoothed else value
            slope = target * torch.sigmoid(-x) + (1 - target) * torch.sigmoid(x)
        elif kind == "lsgan":
            value, slope = (sizes[i] + 1).square(), sizes[i] + 1
        else:
            value, slope = 1 + sizes[i], torch.ones_like(x)
        values.append(reference.reduce(value, reduction))
        slopes.append(slope)
    g = upstream.abs()
    weight = [g / x.numel() if reduction == "mean" and x is not None else g for x in (real, fake)]
    grads = []
    for i, slope in enumerate(slopes):
        if slope is None:
            grads.append(None)
            continue
        scale = weight[i] * slope
        if kind == "rabce":
            scale = scale + (weight[1 - i] * slopes[1 - i]).sum() / max(slope.numel(), 1)
        grads.append(scale)
    return values[0] + values[1], grads


def check(case, real, fake, upstream, ref=reference):
    """Loss and gradients of the fused op against the float64 reference."""
    got, got_grads = run(fused(*case), [real, fake], [upstream])
    want, want_grads = run(plain(*case, ref=ref), double([real, fake]), double([upstream]))
    scale, grad_scales = magnitudes(*case, *double([real, fake]), upstream.double())
    assert got[0].dtype == fake.dtype
    assert_close(got[0], want[0], scale=scale, name="loss")
    for i, name in enumerate(("d_real", "d_fake")):
        assert (got_grads[i] is None) == (want_grads[i] is None), name
        if got_grads[i] is not None:
            assert got_grads[i].dtype == fake.dtype
            assert_close(got_grads[i], want_grads[i], scale=grad_scales[i], name=name)


def cases():
    return st.one_of(
        st.tuples(st.just("d"), st.sampled_from(D_CASES)),
        st.tuples(st.just("g"), st.sampled_from(G_CASES)),
    ).flatmap(lambda c: st.tuples(st.just((c[0], *c[1])), st.sampled_from(REDUCTIONS)))


@st.composite
def problems(draw):
    (side, kind, option), reduction = draw(cases())
    rest = draw(st.sampled_from([(), (1,), (3,), (1, 5, 3)]))
    shape = (draw(st.one_of(sizes(9), sizes(300))), *rest)
    real_shape = shape if reduction == "none" else (draw(sizes(70)), *rest)
    dtype = draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1.0, 1e-3, 30.0]))
    fake = draw(tensors(shape, dtype, scale))
    real = None
    if side == "d" or kind == "rabce":
        real = draw(tensors(real_shape, dtype, scale))
    upstream = draw(tensors(shape, dtype)) if reduction == "none" else torch.tensor(0.7).to(dtype)
    return (side, kind, option, reduction), real, fake, upstream


@given(problems())
def test_losses_and_gradients_match_the_float64_reference(problem):
    check(*problem)
    assert genkern.last_backend("gan_loss") == backend()


def test_bce_is_the_loss_that_people_write():
    real, fake = torch.randn(64), torch.randn(32)
    bce = F.binary_cross_entropy_with_logits
    want = bce(real, torch.ones(64)) + bce(fake, torch.zeros(32))
    torch.testing.assert_close(genkern.gan_d_loss(real, fake), want)
    smooth = bce(real, torch.full((64,), 0.9)) + bce(fake, torch.zeros(32))
    torch.testing.assert_close(genkern.gan_d_loss(real, fake, label_smoothing=0.1), smooth)
    torch.testing.assert_close(genkern.gan_g_loss(fake), bce(fake, torch.ones(32)))


# ---- values at the edges ---------------------------------------------------------------------

INF, NAN = math.inf, math.nan
EXTREMES = [-INF, -1e4, -200.0, -90.0, -20.0, -0.0, 0.0, 20.0, 90.0, 200.0, 1e4, INF, NAN]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, option", [c for c in D_CASES if c[0] != "rabce"])
def test_extreme_logits_give_the_limit_and_never_nan(kind, option, dtype):
    real = torch.tensor(EXTREMES, dtype=dtype)
    fake = torch.zeros_like(real)
    upstream = torch.ones_like(real)
    check(("d", kind, option, "none"), real, fake, upstream)
    check(("d", kind, 0.0, "none"), fake, real, upstream)
    loss = genkern.gan_d_loss(real, fake, kind=kind, label_smoothing=option, reduction="none")
    assert loss[:-1].isnan().logical_not().all() and loss[-1].isnan()


@pytest.mark.parametrize("kind", ["bce", "hinge", "lsgan"])
def test_infinite_logits_reduce_to_the_limit(kind):
    right, wrong = torch.full((40,), INF), torch.full((40,), -INF)
    zero = 0.0 if kind != "lsgan" else INF
    assert genkern.gan_d_loss(right, wrong, kind=kind).item() == zero
    assert genkern.gan_d_loss(wrong, right, kind=kind).item() == INF
    right[17] = NAN
    assert genkern.gan_d_loss(right, wrong, kind=kind).isnan()


def test_small_terms_are_not_lost_in_a_sum():
    real = torch.full((1000,), 25.0)
    got = genkern.gan_d_loss(real, -real)
    assert got.item() == pytest.approx(2 * math.log1p(math.exp(-25.0)), rel=1e-6)


def test_means_of_huge_logits_do_not_overflow():
    logits = torch.full((999,), 3e38)
    assert genkern.gan_d_loss(-logits, -logits).item() == pytest.approx(3e38, rel=1e-6)
    assert genkern.gan_d_loss(logits, logits, kind="wgan").item() == 0.0
    assert genkern.gan_d_loss(logits, logits, kind="rabce").item() == pytest.approx(math.log(2))


def test_second_derivative_is_finite_at_large_logits():
    x = torch.tensor([-200.0, -95.0, 0.0, 95.0, 200.0], requires_grad=True)
    loss = genkern.gan_d_loss(x, x, reduction="sum")
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    s = torch.sigmoid(x.detach())
    torch.testing.assert_close(second, 2 * s * (1 - s))


# 121 and 65537: one chunk more than there is room for without heap memory, small blocks and not.
@pytest.mark.parametrize("n", [0, 1, 121, 4095, 4097, 65_537, 100_003])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_around_the_chunks_of_the_sum(kind, n):
    real, fake = torch.randn(n), torch.randn(2 * n + 1)
    for reduction in ("mean", "sum"):
        check(("d", kind, 0.0, reduction), real, fake, torch.tensor(1.3))
    check(("g", kind, False, "mean"), real if kind == "rabce" else None, fake, torch.tensor(1.3))


def test_the_hinge_has_no_slope_at_its_kink():
    one = torch.tensor([1.0, 1 - 2**-20, 1 + 2**-20], requires_grad=True)
    genkern.gan_d_loss(one, -one.detach(), kind="hinge", reduction="sum").backward()
    assert one.grad.tolist() == [0, -1, 0]  # as torch.relu(1 - x)
    minus = -one.detach().requires_grad_()
    (grad,) = torch.autograd.grad(genkern.gan_d_loss(-minus, minus, kind="hinge"), minus)
    assert grad[0] == 0


def test_scalars_and_empty_logits():
    assert genkern.gan_d_loss(torch.tensor(0.0), torch.tensor(0.0)).item() == pytest.approx(
        2 * math.log(2)
    )
    assert genkern.gan_g_loss(torch.tensor(1.0), reduction="none").shape == ()
    empty = torch.empty(0, 3, requires_grad=True)
    assert genkern.gan_d_loss(empty, empty).isnan()
    assert genkern.gan_d_loss(empty, empty, reduction="sum").item() == 0.0
    assert genkern.gan_d_loss(empty, empty, reduction="none").shape == (0, 3)
    (grad,) = torch.autograd.grad(genkern.gan_g_loss(empty), empty)
    assert grad.shape == (0, 3)


# ---- lists of scales -------------------------------------------------------------------------


def test_losses_of_the_scales_are_added():
    real = [torch.randn(2, 1, n, n, requires_grad=True) for n in (4, 7)]
    fake = tuple(torch.randn(3, 1, n, n, requires_grad=True) for n in (4, 7))
    got = genkern.gan_d_loss(real, fake, kind="rabce")
    want = sum(genkern.gan_d_loss(r, f, kind="rabce") for r, f in zip(real, fake, strict=True))
    torch.testing.assert_close(got, want)
    got_grads = torch.autograd.grad(got, [*real, *fake])
    torch.testing.assert_close(got_grads, torch.autograd.grad(want, [*real, *fake]))
    torch.testing.assert_close(
        genkern.gan_g_loss(fake), genkern.gan_g_loss(fake[0]) + genkern.gan_g_loss(fake[1])
    )
