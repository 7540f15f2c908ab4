"""What `make gpu` asks of the GAN losses."""

from functools import partial

import torch

import genkern
from benchmarks import gan_loss as cases
from genkern.reference import gan_loss as reference
from tests.core.tolerance import assert_close
from tests.gan_loss.values import D_CASES, G_CASES, check
from tests.gpu.kit import F64, both, raises, require_memory


def _discriminator(dtype):
    """Every kind and reduction; 40,000 logits take the relativistic kind several launches."""
    # The interpreter, which stands in for a GPU on the CPU, would take minutes for these.
    for n in (100,) if torch.get_default_device().type == "cpu" else (1000, 40_000):
        for kind, smoothing in D_CASES:
            for reduction in ("none", "mean", "sum"):
                upstream = torch.randn(n if reduction == "none" else ()).to(dtype)
                real, fake = (torch.randn(n).to(dtype) for _ in range(2))
                check(("d", kind, smoothing, reduction), real, fake, upstream)


def _generator(dtype):
    for kind, saturating in G_CASES:
        for reduction in ("none", "mean", "sum"):
            upstream = torch.randn(100 if reduction == "none" else ()).to(dtype)
            real = torch.randn(90 if reduction != "none" else 100).to(dtype)
            case = ("g", kind, saturating, reduction)
            check(case, real if kind == "rabce" else None, torch.randn(100).to(dtype), upstream)


CALLS = {"gan_d_loss": _discriminator, "gan_g_loss": _generator}


def headlines():
    """The timed cases that fill a GPU."""
    return [cases.d_case(2**25), cases.g_case(2**25)]


def an_annealed_smoothing_is_read_on_the_device():
    real, fake = torch.randn(5000), torch.randn(5000)
    for smoothing in (0.0, 0.1):
        got = genkern.gan_d_loss(real, fake, label_smoothing=torch.tensor(smoothing).double())
        assert torch.equal(got, genkern.gan_d_loss(real, fake, label_smoothing=smoothing))


def batches_around_the_limit_of_the_other_grid_axes():
    for N in (65_535, 65_536, 65_537):
        x = [torch.randn(N, 3, dtype=F64) for _ in range(2)]
        both(genkern.gan_d_loss, reference.d_loss, x, [torch.ones((), dtype=F64)])


def tensors_on_different_devices_are_named():
    x = torch.ones(2, 3)
    text = "must be on cuda:0 like real_logits; got cpu"
    raises(RuntimeError, text, lambda: genkern.gan_d_loss(x, x.cpu()))


CHECKS = [
    an_annealed_smoothing_is_read_on_the_device,
    batches_around_the_limit_of_the_other_grid_axes,
    tensors_on_different_devices_are_named,
]

STEPS = {
    "one launch": (genkern.gan_d_loss, [(200_000,), (150_000,)]),
    "three launches": (partial(genkern.gan_d_loss, kind="rabce"), [(40_000,)] * 2),
}


def beyond_2_to_the_31_logits(n: int = 2**31 + 4099) -> None:
    require_memory(32)
    logits = torch.zeros(n, dtype=torch.bfloat16)
    logits[-1] = 3.0
    logits.requires_grad_()
    loss = genkern.gan_g_loss(logits, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    last = -logits[-2:].detach().double()
    want, want_grad = reference.softplus(last), -torch.sigmoid(last)
    for found, wanted in ((loss.detach(), want), (grad, want_grad)):
        assert_close(found[-2:], wanted, scale=wanted.abs())
        assert (found[:-1] == found[0]).all()
    total = genkern.gan_d_loss(logits[-5:], logits, kind="wgan", reduction="sum")
    assert total.item() == 0.0


LARGE = {"logits": beyond_2_to_the_31_logits}
