"""GAN losses on logits: the real and the fake terms in one call, forward and backward."""

import math
from collections.abc import Sequence

import torch

from genkern import checks, spec
from genkern.family import Family
from genkern.reference import gan_loss as reference

Logits = torch.Tensor | Sequence[torch.Tensor]
Smoothing = float | torch.Tensor

# The kernels know kinds, modes and reductions by their places in these lists.
KINDS = ("bce", "hinge", "lsgan", "wgan", "rabce")
_DISCRIMINATOR, _GENERATOR, _SATURATING_GENERATOR = range(3)
_SMOOTHED = ("bce", "lsgan", "rabce")
_SATURATED = ("bce", "rabce")


def _reference(
    real, fake, annealed, kind, mode, label_smoothing, real_label, fake_label, reduction
):
    dtype = fake.dtype
    if dtype in spec.HALF:  # in single precision, rounded once
        real, fake = None if real is None else real.float(), fake.float()
    names = (KINDS[kind], checks.REDUCTIONS[reduction])
    if mode == _DISCRIMINATOR:
        smoothing = label_smoothing if annealed is None else annealed
        labels = real_label, fake_label
        loss = reference.d_loss(real, fake, names[0], smoothing, names[1], *labels)
    else:
        saturating = mode == _SATURATING_GENERATOR
        loss = reference.g_loss(fake, real, names[0], saturating, names[1], fake_label)
    return loss.to(dtype)


_gan_loss = Family(
    "gan_loss",
    "(Tensor? real, Tensor fake, Tensor? annealed, int kind, int mode, float label_smoothing, "
    "float real_label, float fake_label, int reduction) -> Tensor",
    results=lambda real, fake, *options: fake.new_empty(() if options[-1] else fake.shape),
    reference=_reference,
    constants=1,
)


# The usual options in one look: of a pair of names, their places.
_PLACES = {
    (kind, reduction): (KINDS.index(kind), checks.REDUCTIONS.index(reduction))
    for kind in KINDS
    for reduction in checks.REDUCTIONS
}


def _places(op: str, kind: str, reduction: str) -> tuple[int, int]:
    try:
        return _PLACES[kind, reduction]
    except (KeyError, TypeError):  # unknown, or not hashable
        checks.check_option(op, "kind", kind, KINDS)
        checks.check_option(op, "reduction", reduction, checks.REDUCTIONS)
        raise


def _check_number(op: str, name: str, value: object, default: float, kind: str, kinds) -> float:
    """A target of a cross-entropy, in [0, 1], or of least squares, any number."""
    if kind not in kinds and not (isinstance(value, (int, float)) and value == default):
        text = f"{op}: {name} must be {default:g} for kind {kind!r} (it is for {', '.join(kinds)})"
        raise ValueError(f"{text}; got {value!r}")
    bounds = (-math.inf, math.inf) if kind == "lsgan" else (0.0, 1.0)
    return float(checks.check_number(op, name, value, minimum=bounds[0], maximum=bounds[1]))


def check_d_options(
    op: str,
    kind: str,
    label_smoothing: Smoothing,
    reduction: str,
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> tuple:
    numbers = _places(op, kind, reduction)
    if type(label_smoothing) is not float or label_smoothing != 0.0:
        if not isinstance(label_smoothing, torch.Tensor):
            checks.check_number(op, "label_smoothing", label_smoothing, minimum=0, maximum=1)
        if kind not in _SMOOTHED and not (
            isinstance(label_smoothing, (int, float)) and label_smoothing == 0
        ):
            text = f"{op}: label_smoothing must be 0 for kind {kind!r} (it smooths the targets of "
            raise ValueError(f"{text}{', '.join(_SMOOTHED)}); got {label_smoothing!r}")
    if type(real_label) is not float or real_label != 1.0:
        real_label = _check_number(op, "real_label", real_label, 1.0, kind, _SMOOTHED)
        if kind != "lsgan" and not isinstance(label_smoothing, torch.Tensor):
            checks.check_number(
                op, "label_smoothing", label_smoothing, minimum=0, maximum=real_label
            )
    if type(fake_label) is not float or fake_label != 0.0:
        fake_label = _check_number(op, "fake_label", fake_label, 0.0, kind, _SMOOTHED)
    return numbers[0], _DISCRIMINATOR, label_smoothing, real_label, fake_label, numbers[1]


def check_g_options(
    op: str, kind: str, saturating: bool, reduction: str, target: float = 1.0
) -> tuple:
    numbers = _places(op, kind, reduction)
    mode = _GENERATOR
    if saturating is not False:
        checks.check_bool(op, "saturating", saturating)
        if kind not in _SATURATED:
            text = f"{op}: saturating must be False for kind {kind!r} (only {', '.join(_SATURATED)}"
            raise ValueError(f"{text} have a saturating form); got True")
        mode = _SATURATING_GENERATOR
    if type(target) is not float or target != 1.0:
        target = _check_number(op, "target", target, 1.0, kind, ("bce", "lsgan"))
        if saturating and target != 1.0:
            raise ValueError(f"{op}: target must be 1 for saturating losses; got {target!r}")
    return numbers[0], mode, 0.0, 1.0, target, numbers[1]


def _admit(op, real, fake, reduction, at):
    """Both tensors, in the dtype to compute in."""
    fake_name, real_name = f"fake_logits{at}", f"real_logits{at}"
    tensors = {fake_name: fake} if real is None else {real_name: real, fake_name: fake}
    *others, fake = checks.admit(op, checks.LOSS, tensors)
    real = others[0] if others else None
    if real is not None and not reduction and real.shape != fake.shape:
        raise ValueError(
            f"{op}: {fake_name} must have the shape of {real_name} = {tuple(real.shape)} "
            f"for reduction 'none' (no broadcasting); got {tuple(fake.shape)}"
        )
    return real, fake


def _run(op, real, fake, options, at=""):
    kind, mode, label_smoothing, real_label, fake_label, reduction = options
    if not reduction or not checks.are_plain(fake, fake if real is None else real):
        real, fake = _admit(op, real, fake, reduction, at)
    annealed = None
    if type(label_smoothing) is not float or label_smoothing != 0.0:
        label_smoothing, annealed = checks.annealed(
            op, "label_smoothing", label_smoothing, fake, minimum=0, maximum=1
        )
    return _gan_loss(
        real, fake, annealed, kind, mode, label_smoothing, real_label, fake_label, reduction
    )


def _run_scales(op, real, fake, options):
    """The sum over the scales of a multi-scale discriminator."""
    lists = {"fake_logits": fake} if real is None else {"real_logits": real, "fake_logits": fake}
    for name, logits in lists.items():
        if not isinstance(logits, (list, tuple)):
            raise TypeError(
                f"{op}: {name} must be a list like the other logits; got {type(logits).__name__}"
            )
        if not logits:
            raise ValueError(f"{op}: {name} must hold at least one tensor; got an empty list")
    if real is not None and len(real) != len(fake):
        raise ValueError(
            f"{op}: fake_logits must have as many scales as real_logits = {len(real)}; "
            f"got {len(fake)}"
        )
    for name, logits in lists.items():
        for i, scale in enumerate(logits):  # a None here would be "no real logits"
            checks.check_tensor(op, f"{name}[{i}]", scale)
    reals = [None] * len(fake) if real is None else real
    pairs = enumerate(zip(reals, fake, strict=True))
    losses = [_run(op, *pair, options, f"[{i}]") for i, pair in pairs]
    total = losses[0]
    for i, loss in enumerate(losses[1:], 1):
        checks.check_shape(op, f"fake_logits[{i}]", loss, total.shape, "fake_logits[0].shape")
        if loss.dtype != total.dtype:
            want, got = spec.dtype_name(total.dtype), spec.dtype_name(loss.dtype)
            raise RuntimeError(
                f"{op}: fake_logits[{i}] must be {want} like fake_logits[0]; got {got}"
            )
        total = total + loss
    return total


def gan_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    *,
    kind: str = "bce",
    label_smoothing: Smoothing = 0.0,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    r"""Loss of a GAN's discriminator on logits, in nats for the cross-entropies.

    With r = ``real_logits``, f = ``fake_logits``, s(x) = log(1 + e^x), t = ``real_label`` -
    ``label_smoothing``, a = ``fake_label``, H(x, t) = t s(-x) + (1 - t) s(x):

    .. math::
        bce:&\quad \overline{H(r, t)} + \overline{H(f, a)} \\
        hinge:&\quad \overline{\max(1 - r, 0)} + \overline{\max(1 + f, 0)} \\
        lsgan:&\quad \tfrac12 \overline{(r - t)^2} + \tfrac12 \overline{(f - a)^2} \\
        wgan:&\quad -\overline{r} + \overline{f} \\
        rabce:&\quad \tfrac12 \text{ bce of } r - \overline{f} \text{ and } f - \overline{r}

    Equivalent for "bce" to ``F.binary_cross_entropy_with_logits(r, torch.ones_like(r)) +
    F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))``, without its NaN at infinite
    logits. A script that calls ``F.binary_cross_entropy`` on probabilities drops the sigmoid at the
    end of its discriminator: values in [0, 1] are valid logits, so one left in is no error, but the
    "bce" loss then never falls below log(1 + 1/e) + log 2 = 1.006 nats.

    Args:
        real_logits: any shape, float32, float64, bfloat16 or float16; any strides. Or a list of
            tensors, one a scale; the losses of the scales are added.
        fake_logits: as ``real_logits``; its size may differ unless ``reduction`` is "none".
        kind: "bce", "hinge", "lsgan", "wgan" or "rabce" (relativistic average).
        label_smoothing: in [0, 1], off the real label ("bce", "lsgan", "rabce"): one-sided
            smoothing. A schedule may hand a 0-dim tensor on the device of the logits, which is not
            read on the host and not checked.
        real_label, fake_label: targets, of "lsgan" any numbers, of "bce" and "rabce" in [0, 1].
            Two-sided smoothing by e is ``label_smoothing=e, fake_label=e``.
        reduction: "mean" adds the means of the real and of the fake terms, "sum" their sums,
            "none" the terms themselves, element by element.

    Returns:
        A scalar, or the shape of the logits for "none"; in their dtype (float32 for bfloat16
        and float16 under autocast).

    Raises:
        TypeError: the logits are not dense floating-point tensors, or an option has another type.
        ValueError: an option is unknown, out of range or without meaning for ``kind``; sizes
            differ for "none"; a list is empty or the lists differ in length.
        RuntimeError: devices or dtypes differ.

    Differentiable any number of times. Under data parallelism the means of "rabce" are those of
    each process; `genkern.nn.GANLoss` takes them over a process group.
    Source: Goodfellow et al. 2014 sec. 3 (bce); Salimans et al. 2016 sec. 3.4 (smoothing); Lim
    and Ye 2017 (hinge); Mao et al. 2017 eq. 2 (lsgan); Arjovsky et al. 2017 alg. 1 (wgan);
    Jolicoeur-Martineau 2019 sec. 4 (rabce).
    """
    labels = real_label, fake_label
    options = check_d_options("gan_d_loss", kind, label_smoothing, reduction, *labels)
    if isinstance(real_logits, (list, tuple)) or isinstance(fake_logits, (list, tuple)):
        return _run_scales("gan_d_loss", real_logits, fake_logits, options)
    if real_logits is None:
        raise TypeError("gan_d_loss: real_logits must be a Tensor; got NoneType")
    return _run("gan_d_loss", real_logits, fake_logits, options)


def gan_g_loss(
    fake_logits: Logits,
    real_logits: Logits | None = None,
    *,
    kind: str = "bce",
    saturating: bool = False,
    target: float = 1.0,
    reduction: str = "mean",
) -> torch.Tensor:
    r"""Loss of a GAN's generator on logits, in nats for the cross-entropies.

    With f = ``fake_logits``, r = ``real_logits``, s(x) = log(1 + e^x), c = ``target``:

    .. math::
        bce:&\quad \overline{c s(-f) + (1 - c) s(f)}, \text{ saturating } -\overline{s(f)} \\
        hinge, wgan:&\quad -\overline{f} \\
        lsgan:&\quad \tfrac12 \overline{(f - c)^2} \\
        rabce:&\quad \tfrac12 \overline{s(-(f - \overline{r}))} + \tfrac12 \overline{s(r -
        \overline{f})}, \text{ saturating } -\tfrac12 \overline{s(f - \overline{r})} - \tfrac12
        \overline{s(-(r - \overline{f}))}

    Equivalent for "bce" to ``F.softplus(-f).mean()``, saturating ``-F.softplus(f).mean()``.

    Args:
        fake_logits: any shape, float32, float64, bfloat16 or float16; any strides. Or a list of
            tensors, one a scale; the losses of the scales are added.
        real_logits: as ``fake_logits``, for "rabce" alone (one-sided: `genkern.nn.GANLoss`).
        kind: "bce", "hinge", "lsgan", "wgan" or "rabce" (relativistic average).
        saturating: the minimax form, whose gradient vanishes where the discriminator wins
            ("bce", "rabce").
        target: what the generator wants of the logits of its images, of "lsgan" any number, of
            "bce" that does not saturate in [0, 1].
        reduction: as in `gan_d_loss`.

    Returns:
        A scalar, or the shape of the logits for "none"; in their dtype (float32 for bfloat16
        and float16 under autocast).

    Raises:
        TypeError, ValueError, RuntimeError: as in `gan_d_loss`; ValueError also where
            ``real_logits`` are missing for "rabce" or given to another kind.

    Differentiable any number of times.
    Source: as for `gan_d_loss`; Goodfellow et al. 2014 sec. 3 for both forms of "bce".
    """
    options = check_g_options("gan_g_loss", kind, saturating, reduction, target)
    if (real_logits is None) is (kind == "rabce"):
        needs = "given" if kind == "rabce" else "None"
        got = "None" if real_logits is None else type(real_logits).__name__
        raise ValueError(f"gan_g_loss: real_logits must be {needs} for kind {kind!r}; got {got}")
    if isinstance(fake_logits, (list, tuple)) or isinstance(real_logits, (list, tuple)):
        return _run_scales("gan_g_loss", real_logits, fake_logits, options)
    return _run("gan_g_loss", real_logits, fake_logits, options)
