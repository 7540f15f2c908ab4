"""GAN losses on logits: the real and the fake terms in one call, forward and backward."""

import torch

from genkern import checks, library
from genkern.reference import differentiable_backward
from genkern.reference import gan_loss as reference
_forward = library.define(
    "gan_loss_forward(Tensor? real, Tensor fake, int kind, int mode, float target, "
    "int reduction) -> Tensor",
    lambda real, fake, kind, mode, target, reduction: fake.new_empty(
        () if reduction else fake.shape
    ),
)
_backward = library.define(
    "gan_loss_backward(Tensor d_loss, Tensor? real, Tensor fake, int kind, int mode, "
    "float target, int reduction, bool needs_real, bool needs_fake) -> (Tensor, Tensor)",
    lambda d_loss, real, fake, kind, mode, target, reduction, needs_real, needs_fake: (
        fake.new_empty(real.shape if needs_real else (0,)),
        fake.new_empty(fake.shape if needs_fake else (0,)),
    ),
)


def gan_d_loss(real_logits, fake_logits, *, kind="bce", label_smoothing=0.0, reduction="mean"):
    r, f = reference.d_terms(real_logits, fake_logits, kind, label_smoothing)
    return r.mean() + f.mean()


def gan_g_loss(fake_logits, real_logits=None, *, kind="bce", saturating=False, reduction="mean"):
    f, r = reference.g_terms(fake_logits, real_logits, kind, saturating)
    return f.mean() + (0.0 if r is None else r.mean())
