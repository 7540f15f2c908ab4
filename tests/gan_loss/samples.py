"""What the shared tests need of the GAN losses."""

import torch

import genkern
from genkern import nn
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.gan_loss import values
from tests.gan_loss.values import NAN, check, fused, plain

FLOAT = 4  # bytes


def sample(name, side, kind, option, reduction, inputs, **rest):
    case = (side, kind, option, reduction)
    return Sample(
        name,
        fused(*case),
        plain(*case),
        inputs,
        lambda inputs, upstream: check(case, *inputs, *upstream),
        **rest,
    )


def both(normal):
    return [normal(3, 4, 5, 7, scale=2.0), normal(3, 4, 5, 7, scale=2.0)]


def one(normal):
    return [None, normal(3, 4, 5, 7, scale=2.0)]


def unequal(normal):
    return [normal(5, 17), normal(2, 33)]


SMALL = [
    sample("d rabce mean", "d", "rabce", 0.1, "mean", unequal),
    sample("d bce none", "d", "bce", 0.1, "none", both),
    sample("d hinge sum", "d", "hinge", 0.0, "sum", unequal),
    sample("d lsgan none", "d", "lsgan", 0.1, "none", both),
    sample("d wgan mean", "d", "wgan", 0.0, "mean", unequal),
    sample("g bce none", "g", "bce", True, "none", one),
    sample("g rabce sum", "g", "rabce", False, "sum", unequal),
]
LARGE = [
    sample(f"d {kind}", "d", kind, 0.0, "mean", lambda normal: [normal(300_007), normal(200_003)])
    for kind in values.KINDS
] + [
    sample("g bce none", "g", "bce", False, "none", lambda normal: [None, normal(300_007)]),
    sample("one logit", "d", "rabce", 0.0, "none", lambda normal: [normal(1), normal(1)]),
]


def peaks():
    real, fake = leaves((100_000,), (70_000,))
    found = []
    for kind in values.KINDS:
        loss = fused("d", kind, 0.0, "mean")
        plain_loss = torch.no_grad()(loss)
        both = (real.numel() + fake.numel() + 1) * FLOAT
        found += [
            Peak(f"{kind}, the loss", lambda f=plain_loss: f(real, fake), FLOAT, FLOAT),
            Peak(f"{kind}, and the gradients", forward_backward(loss, real, fake), both, both + 8),
        ]
    return found


class Losses(torch.nn.Module):
    """Both losses of one `nn.GANLoss`, on halves of one tensor of logits."""

    def __init__(self, *options, **more):
        super().__init__()
        self.loss = nn.GANLoss(*options, **more)

    def forward(self, logits):
        real, fake = logits.chunk(2)
        return self.loss.discriminator(real, fake) + self.loss.generator(fake, real)


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
    (lambda: genkern.gan_g_loss(X, kind=["bce"]), TypeError, "gan_g_loss: kind must be one of"),
    (lambda: genkern.gan_d_loss(X, X, reduction="men"), ValueError,
     "reduction must be one of 'none', 'mean', 'sum'; got 'men' .did you mean 'mean'"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=1.1), ValueError,
     r"gan_d_loss: label_smoothing must be in \[0, 1\]; got 1.1"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=-0.1), ValueError, "label_smoothing must be"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=NAN), ValueError, "label_smoothing must be"),
    (lambda: genkern.gan_d_loss(X, X, label_smoothing=True), TypeError,
     "label_smoothing must be a number; got True"),
    (lambda: genkern.gan_d_loss(X, X, kind="hinge", label_smoothing=0.1), ValueError,
     "label_smoothing must be 0 for kind 'hinge'"),
    (lambda: genkern.gan_d_loss(X, X, kind="wgan", label_smoothing=1), ValueError,
     "label_smoothing must be 0 for kind 'wgan'"),
    (lambda: genkern.gan_g_loss(X, kind="hinge", saturating=True), ValueError,
     "gan_g_loss: saturating must be False for kind 'hinge'"),
    (lambda: genkern.gan_g_loss(X, saturating=1), TypeError,
     "gan_g_loss: saturating must be a bool; got 1"),
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

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_losses_and_gradients_match_the_float64_reference,
        values.test_small_terms_are_not_lost_in_a_sum,
        values.test_means_of_huge_logits_do_not_overflow,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: Losses("rabce", label_smoothing=0.1, saturating=True, reduction="sum"),
            lambda normal: normal(6),
            "kind='rabce', label_smoothing=0.1, saturating=True",
        )
    ],
)
