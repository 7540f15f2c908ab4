"""The GAN losses: autocast, threads, levels, compilers, errors, the module, mutants."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern import nn
from genkern.reference import gan_loss as reference
from tests.core.helpers import check_compiled, machine_levels, probe
from tests.core.strategies import DTYPES
from tests.core.tolerance import assert_close
from tests.gan_loss.values import D_CASES, F64, G_CASES, NAN, REDUCTIONS, check, fused

# ---- autocast, compile, threads, levels ------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast_computes_in_float32(dtype, reduction):
    real, fake = (torch.randn(3, 4).to(dtype).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = genkern.gan_d_loss(real, fake, reduction=reduction)
        mixed = genkern.gan_d_loss(real, fake.float(), reduction=reduction)
        generator = genkern.gan_g_loss(fake, reduction=reduction)
    assert loss.dtype == mixed.dtype == generator.dtype == torch.float32
    assert torch.equal(loss, mixed)
    want = reference.d_loss(real.detach().double(), fake.detach().double(), reduction=reduction)
    assert_close(loss.detach(), want, scale=want)
    loss.sum().backward()
    assert real.grad.dtype == fake.grad.dtype == dtype
    assert genkern.gan_d_loss(real, fake).dtype == dtype


def test_autocast_keeps_float64():
    real = torch.randn(3, dtype=F64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert genkern.gan_d_loss(real, real).dtype == F64


@pytest.mark.parametrize("level", machine_levels())
def test_thread_count_does_not_change_a_bit(level):
    code = """
real = torch.randn(300_007, requires_grad=True)
fake = torch.randn(200_003, requires_grad=True)
results = []
for kind in ("bce", "hinge", "lsgan", "wgan", "rabce"):
    loss = genkern.gan_d_loss(real, fake, kind=kind)
    results += [loss.view(1), *torch.autograd.grad(loss, (real, fake))]
print(digest(*results))
"""
    one, two = (probe(code, level=level, threads=t) for t in (1, 2))
    assert one == two


@pytest.mark.parametrize("level", machine_levels())
def test_every_level_matches_the_float64_reference(level):
    code = """
import sys
sys.path.insert(0, ".")
from tests.gan_loss.values import D_CASES, G_CASES, REDUCTIONS, check
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for shape in ((5, 33), (1,)):
        real, fake, up = ((4 * torch.randn(shape)).to(dtype) for _ in range(3))
        for reduction in ("none", "mean"):
            upstream = up if reduction == "none" else torch.tensor(1.0, dtype=dtype)
            for case in D_CASES:
                check(("d", *case, reduction), real, fake, upstream)
            for case in G_CASES:
                check(("g", *case, reduction), real if case[0] == "rabce" else None, fake, upstream)
print("checked")
"""
    assert probe(code, level=level) == "checked\n"


def test_opcheck():
    real, fake = torch.randn(3, 4), torch.randn(3, 4)
    forward = torch.ops.genkern.gan_loss_forward.default
    backward = torch.ops.genkern.gan_loss_backward.default
    for reduction in range(3):
        torch.library.opcheck(forward, (real, fake, 4, 0, 0.1, reduction))
        torch.library.opcheck(forward, (None, fake, 0, 1, 0.0, reduction))
        upstream = real if reduction == 0 else torch.ones(())
        torch.library.opcheck(backward, (upstream, real, fake, 0, 0, 0.1, reduction, True, True))
        torch.library.opcheck(backward, (upstream, None, fake, 0, 1, 0.0, reduction, False, True))


@pytest.mark.parametrize("kind, dynamic", [("bce", False), ("bce", True), ("rabce", True)])
def test_compiles_to_one_graph(kind, dynamic):
    def both(real, fake):
        d = genkern.gan_d_loss(real * 2, fake, kind=kind, label_smoothing=0.1)
        return d, genkern.gan_g_loss(fake, real if kind == "rabce" else None, kind=kind)

    check_compiled(both, [torch.randn(6), torch.randn(6)], dynamic=dynamic)


def test_compiles_to_one_graph_under_autocast():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(real, fake):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return genkern.gan_d_loss(real, fake)

    x = torch.randn(5).bfloat16()
    assert loss(x, x).dtype == torch.float32


def test_functorch_and_export_run_the_reference():
    x = torch.randn(4, 3)
    got = torch.func.vmap(lambda a: genkern.gan_d_loss(a, a))(x)
    torch.testing.assert_close(got, torch.stack([genkern.gan_d_loss(a, a) for a in x]))
    hessian = torch.func.hessian(lambda a: genkern.gan_g_loss(a, reduction="sum"))(x[0])
    s = torch.sigmoid(x[0])
    torch.testing.assert_close(hessian, torch.diag(s * (1 - s)))

    class Model(torch.nn.Module):
        def forward(self, x):
            return genkern.gan_d_loss(x, x)

    exported = torch.export.export(Model(), (x,)).module()
    torch.testing.assert_close(exported(x), genkern.gan_d_loss(x, x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_use_backend_reference_gives_the_same_loss(dtype):
    real, fake = torch.randn(9).to(dtype), torch.randn(9).to(dtype)
    for side, kind, option in [("d", *c) for c in D_CASES] + [("g", *c) for c in G_CASES]:
        function = fused(side, kind, option, "mean")
        inputs = (real if side == "d" or kind == "rabce" else None, fake)
        fast = function(*inputs)
        with genkern.use_backend("reference"):
            slow = function(*inputs)
            assert genkern.last_backend("gan_loss") == "reference"
        torch.testing.assert_close(fast, slow)


def test_meta_tensors_have_the_shapes_of_real_ones():
    x = torch.randn(2, 3, device="meta", requires_grad=True)
    assert genkern.gan_d_loss(x, x).shape == ()
    loss = genkern.gan_d_loss(x, x, reduction="none")
    assert loss.shape == (2, 3)
    assert torch.autograd.grad(loss.sum(), x)[0].shape == (2, 3)


# ---- errors, for test_errors.py ------------------------------------------------------------

X = torch.ones(3)
ERRORS = [
    (lambda: genkern.gan_d_loss(X.long(), X), TypeError,
     "gan_d_loss: real_logits must be one of float32, float64, bfloat16, float16; got int64"),
    (lambda: genkern.gan_d_loss(X, X.bool()), TypeError,
     "gan_d_loss: fake_logits must be one of float32, float64, bfloat16, float16; got bool"),
    (lambda: genkern.gan_d_loss(1.0, X), TypeError,
     "gan_d_loss: real_logits must be a Tensor; got float"),
    (lambda: genkern.gan_d_loss(None, X), TypeError,
     "gan_d_loss: real_logits must be a Tensor; got NoneType"),
    (lambda: genkern.gan_g_loss("x"), TypeError,
     "gan_g_loss: fake_logits must be a Tensor; got str"),
    (lambda: genkern.gan_d_loss(X, X.double()), RuntimeError,
     "gan_d_loss: fake_logits must be float32 like real_logits; got float64"),
    (lambda: genkern.gan_d_loss(X, X.bfloat16()), RuntimeError,
     "gan_d_loss: fake_logits must be float32 like real_logits; got bfloat16"),
    (lambda: genkern.gan_d_loss(X, X.to("meta")), RuntimeError,
     "gan_d_loss: fake_logits must be on cpu like real_logits; got meta"),
    (lambda: genkern.gan_d_loss(X, X[:, None], reduction="none"), ValueError,
     r"fake_logits must have the shape of real_logits = \(3,\) for reduction 'none' "
     r"\(no broadcasting\); got \(3, 1\)"),
    (lambda: genkern.gan_d_loss(X, X, kind="bse"), ValueError,
     "gan_d_loss: kind must be one of 'bce', 'hinge', 'lsgan', 'wgan', 'rabce'; got 'bse' "
     ".did you mean 'bce'"),
    (lambda: genkern.gan_g_loss(X, kind=["bce"]), ValueError, "gan_g_loss: kind must be one of"),
    (lambda: genkern.gan_d_loss(X, X, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=1.1), ValueError,
     r"gan_d_loss: label_smoothing must be in \[0, 1\]; got 1.1"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=-0.1), ValueError, "label_smoothing must be"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=NAN), ValueError, "label_smoothing must be"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=True), TypeError,
     "label_smoothing must be a number; got bool"),
    (lambda: genkern.gan_d_loss(X, X, kind="hinge", label_smoothing=0.1), ValueError,
     "label_smoothing must be 0 for kind 'hinge'"),
    (lambda: genkern.gan_d_loss(X, X, kind="wgan", label_smoothing=1), ValueError,
     "label_smoothing must be 0 for kind 'wgan'"),
    (lambda: genkern.gan_g_loss(X, kind="hinge", saturating=True), ValueError,
     "gan_g_loss: saturating must be False for kind 'hinge'"),
    (lambda: genkern.gan_g_loss(X, saturating=1), TypeError,
     "gan_g_loss: saturating must be a bool; got int"),
    (lambda: genkern.gan_g_loss(X, X), ValueError,
     "gan_g_loss: real_logits must be None for kind 'bce'; got Tensor"),
    (lambda: genkern.gan_g_loss(X, kind="rabce"), ValueError,
     "gan_g_loss: real_logits must be given for kind 'rabce'; got None"),
    (lambda: genkern.gan_d_loss([], []), ValueError,
     "gan_d_loss: real_logits must hold at least one tensor; got an empty list"),
    (lambda: genkern.gan_d_loss([X], [X, X]), ValueError,
     "gan_d_loss: fake_logits must have as many scales as real_logits = 1; got 2"),
    (lambda: genkern.gan_d_loss([X], X), TypeError,
     "gan_d_loss: fake_logits must be a list like the other logits; got Tensor"),
    (lambda: genkern.gan_d_loss([X, X], [X, X.int()]), TypeError,
     r"gan_d_loss: fake_logits\[1\] must be one of"),
    (lambda: genkern.gan_g_loss([X, X[:1]], reduction="none"), ValueError,
     r"gan_g_loss: fake_logits\[1\] must have shape fake_logits\[0\].shape = \(3,\); got \(1,\)"),
    (lambda: genkern.gan_d_loss(X, X, smoothing=0.1), TypeError, "smoothing"),
    (lambda: nn.GANLoss("hinge", label_smoothing=0.1), ValueError,
     "GANLoss: label_smoothing must be 0 for kind 'hinge'"),
    (lambda: nn.GANLoss("wgan", saturating=True), ValueError, "GANLoss: saturating must be False"),
    (lambda: nn.GANLoss("gan"), ValueError, "GANLoss: kind must be one of"),
]  # fmt: skip


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
