"""The GAN losses: the module, mutants; the rest of their contract is in tests/core."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from genkern import nn
from genkern.reference import gan_loss as reference
from tests.gan_loss.values import check

# ---- the module, and tests of the tests ------------------------------------------------------


def test_module_holds_the_options():
    real, fake = torch.randn(6), torch.randn(6)
    module = nn.GANLoss("rabce", label_smoothing=0.1, saturating=True, reduction="sum")
    for m in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        want = reference.d_loss(real, fake, "rabce", 0.1, "sum")
        torch.testing.assert_close(m.discriminator(real, fake), want)
        want = reference.g_loss(fake, real, "rabce", True, "sum")
        torch.testing.assert_close(m.generator(fake, real), want)
        assert not m.state_dict()
    assert "kind='rabce'" in repr(module) and "saturating=True" in repr(module)


class Mutant:
    """The reference with one function changed."""

    def __init__(self, d_terms=reference.d_terms, reduce=reference.reduce):
        self.d_terms, self.reduce = d_terms, reduce

    def d_loss(self, real, fake, kind, option, reduction):
        of_real, of_fake = self.d_terms(real, fake, kind, option)
        return self.reduce(of_real, reduction) + self.reduce(of_fake, reduction)


def unshifted(real, fake, kind, option):
    terms = reference.d_terms(real, fake, "bce", option)
    return tuple(0.5 * t for t in terms)


def detached(real, fake, kind, option):
    u, v = real - fake.detach().mean(), fake - real.detach().mean()
    target = 1.0 - option
    return 0.5 * reference.cross_entropy(u, target), 0.5 * reference.cross_entropy(v, 0.0)


MUTANTS = {
    "real and fake swapped": ("bce", Mutant(lambda r, f, *o: reference.d_terms(f, r, *o))),
    "no smoothing": ("bce", Mutant(lambda r, f, k, s: reference.d_terms(r, f, k, 0.0))),
    "two-sided smoothing": ("bce", Mutant(lambda r, f, k, s: (
        reference.cross_entropy(r, 1 - s), reference.cross_entropy(f, s)))),
    "switch of F.softplus": ("bce", Mutant(lambda r, f, k, s: (
        F.softplus(-r), F.softplus(f, threshold=2)))),
    "missing half": ("lsgan", Mutant(lambda r, f, k, s: ((r - 1 + s) ** 2, f**2))),
    "margin 0": ("hinge", Mutant(lambda r, f, k, s: (torch.relu(-r), torch.relu(f)))),
    "means not subtracted": ("rabce", Mutant(unshifted)),
    "no gradient through the means": ("rabce", Mutant(detached)),
    "sum, not mean": ("bce", Mutant(reduce=lambda t, reduction: t.sum())),
    "last logit dropped": ("bce", Mutant(reduce=lambda t, reduction: t[:-1].mean())),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_mutants(name):
    kind, mutant = MUTANTS[name]
    real, fake, upstream = torch.randn(37), 2 * torch.randn(37), torch.tensor(0.7)
    option = 0.1 if kind in ("bce", "lsgan", "rabce") else 0.0
    if name == "switch of F.softplus":
        option = 0.0
    check(("d", kind, option, "mean"), real, fake, upstream)
    with pytest.raises(AssertionError):
        check(("d", kind, option, "mean"), real, fake, upstream, ref=mutant)
