"""Provisional: the reference. Replaced by the slice's owner."""

from genkern.reference import gan_loss as reference


def gan_d_loss(real_logits, fake_logits, *, kind="bce", label_smoothing=0.0, reduction="mean"):
    r, f = reference.d_terms(real_logits, fake_logits, kind, label_smoothing)
    return r.mean() + f.mean()


def gan_g_loss(fake_logits, real_logits=None, *, kind="bce", saturating=False, reduction="mean"):
    f, r = reference.g_terms(fake_logits, real_logits, kind, saturating)
    return f.mean() + (0.0 if r is None else r.mean())
