"""Launchers of the GAN-loss Triton kernels: real and fake logits in one launch.

One launch forward and one backward, for all but the relativistic kind of many logits: its means
must be known before its terms, and those before its gradients. Up to 16,384 logits a side one
program does it all in one launch; above, it takes two launches forward and three backward.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.gan_loss.kernels import (
    gan_loss_backward_kernel,
    gan_loss_sum_kernel,
    gan_loss_terms_kernel,
)

MAX_LAUNCHES = {"gan_loss_forward": 2, "gan_loss_backward": 3}
# A few registers that ptxas saves in the relativistic kind, on one chip or another.
SPILL_BYTES = {"gan_loss_sum_kernel": 16, "gan_loss_backward_kernel": 16}

# As numbered by genkern/ops/gan_loss.py.
_BCE, _HINGE, _LSGAN, _WGAN, _RABCE = range(5)
_DISCRIMINATOR, _GENERATOR, _SATURATING_GENERATOR = range(3)
_NONE, _MEAN, _SUM = range(3)

_TILE, _WARPS = 1024, 4
_LONE_WARPS = 16  # of the one program of the relativistic kind
_LONE_LOGITS = 16384
_MAX_PROGRAMS = 1024


def unsupported(
    op: str,
    real: torch.Tensor | None,
    fake: torch.Tensor,
    annealed: torch.Tensor | None = None,
    upstream: torch.Tensor | None = None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    if annealed is not None and annealed.device != fake.device:
        return f"{op}: annealed must be on {fake.device} like fake; got {annealed.device}"
    return launch.mismatch(op, "fake", fake, {"real": real, "upstream_0": upstream})


def _term(kind: int, mode: int) -> str:
    if kind == _HINGE and mode == _DISCRIMINATOR:
        return "hinge"
    if kind in (_HINGE, _WGAN):
        return "linear"
    return "square" if kind == _LSGAN else "cross_entropy"


def _sides(
    kind: int, mode: int, real_target: float, fake_target: float
) -> tuple[float, float, float, float]:
    """Scale and target of the real side, then of the fake side."""
    if kind in (_HINGE, _WGAN):
        return -1.0, 0.0, 1.0 if mode == _DISCRIMINATOR else -1.0, 0.0
    scale = 1.0 if kind == _BCE else 0.5
    if mode == _DISCRIMINATOR:
        return scale, real_target, scale, fake_target
    if mode == _GENERATOR:
        return scale, 0.0, scale, fake_target
    return -scale, 1.0, -scale, 0.0


def _smoothing(annealed: torch.Tensor | None, mode: int) -> torch.Tensor | None:
    """What takes the place of label_smoothing on the device: only a discriminator smooths."""
    return annealed if mode == _DISCRIMINATOR else None


def _target(real_label: float, label_smoothing: float, annealed: torch.Tensor | None) -> float:
    """Of the real side; the kernels subtract what is annealed."""
    return real_label if annealed is not None else real_label - label_smoothing


def _inverse(n: int) -> float:
    """1 / n; that of no logits is inf, and inf times the empty sum NaN, like the empty mean."""
    return 1.0 / n if n else float("inf")


def _numbers(n_r: int, n_f: int) -> tuple[int, int, float, float]:
    return n_r, n_f, _inverse(n_r), _inverse(n_f)


def _weights(n_r: int, n_f: int, reduction: int) -> tuple[float, float]:
    return (_inverse(n_r), _inverse(n_f)) if reduction == _MEAN else (1.0, 1.0)


def _tile(shift: str | None, dtype: torch.dtype) -> tuple[int, int]:
    """Elements of a tile, and warps: many where one program does it all."""
    if shift != "compute":
        return _TILE, _WARPS
    return 1024 if dtype == torch.float64 else 2048, _LONE_WARPS


def _sum(
    out: torch.Tensor,
    real: torch.Tensor | None,
    fake: torch.Tensor,
    up: torch.Tensor | None,
    means: torch.Tensor | None,
    smoothing: torch.Tensor | None,
    sides: tuple[float, float, float, float],
    weights: tuple[float, float],
    **options: Any,
) -> torch.Tensor:
    n_r, n_f = 0 if real is None else real.numel(), fake.numel()
    partial = done = None
    alone = options["SHIFT"] == "compute"
    tile, warps = _tile(options["SHIFT"], fake.dtype)
    programs = 1 if alone else min(triton.cdiv(max(n_r, n_f), tile), _MAX_PROGRAMS)
    if programs > 1:
        partial = fake.new_empty((programs, 2), dtype=torch.float64)
        done = launch.counters(fake, 1)
    with launch.on(fake):
        gan_loss_sum_kernel[(programs,)](
            real, fake, up, means, smoothing, out, partial, done,
            *_numbers(n_r, n_f), *sides, *weights,
            **options, DTYPE=accumulator(fake.dtype),
            MAX_PROGRAMS=_MAX_PROGRAMS if programs > 1 else 1, B=tile, num_warps=warps,
        )  # fmt: skip
    return out


def _shift(
    real: torch.Tensor | None, fake: torch.Tensor, kind: int
) -> tuple[str | None, torch.Tensor | None]:
    """Where the kernels get the means of the logits from, and the means."""
    if kind != _RABCE or real is None:
        return None, None
    if max(real.numel(), fake.numel()) <= _LONE_LOGITS:
        return "compute", None
    weights = _weights(real.numel(), fake.numel(), _MEAN)
    means = fake.new_empty(2, dtype=torch.float64)
    _sum(means, real, fake, None, None, None, (1.0, 0.0, 1.0, 0.0), weights,
         TERM="linear", SLOPE=False, SHIFT=None, PAIR=True)  # fmt: skip
    return "load", means


def _elementwise_options(n: int, shift: str | None, dtype: torch.dtype) -> tuple[int, dict]:
    """Programs, and what the kernels without a sum are specialised for."""
    tile, warps = _tile(shift, dtype)
    options = {"SHIFT": shift, "DTYPE": accumulator(dtype), "B": tile, "num_warps": warps}
    return 1 if shift == "compute" else triton.cdiv(n, tile), options


def forward(
    real: torch.Tensor | None,
    fake: torch.Tensor,
    annealed: torch.Tensor | None,
    kind: int,
    mode: int,
    label_smoothing: float,
    real_label: float,
    fake_label: float,
    reduction: int,
) -> torch.Tensor:
    op = "gan_loss_forward"
    launch.require(unsupported(op, real, fake, annealed))
    out = fake.new_empty(() if reduction else fake.shape)
    n_r, n_f = 0 if real is None else real.numel(), fake.numel()
    if n_r == n_f == 0:
        return out.fill_(float("nan") if reduction == _MEAN else 0.0)
    real, fake = None if real is None else real.contiguous(), fake.contiguous()
    sides, term = (
        _sides(kind, mode, _target(real_label, label_smoothing, annealed), fake_label),
        _term(kind, mode),
    )
    shift, means = _shift(real, fake, kind)
    smoothing = _smoothing(annealed, mode)
    if reduction:
        return _sum(out, real, fake, None, means, smoothing, sides,
                    _weights(n_r, n_f, reduction),
                    TERM=term, SLOPE=False, SHIFT=shift, PAIR=False)  # fmt: skip
    programs, options = _elementwise_options(n_f, shift, fake.dtype)
    with launch.on(fake):
        gan_loss_terms_kernel[launch.programs(op, programs)](
            real, fake, means, smoothing, out, *_numbers(n_r, n_f), *sides, TERM=term, **options
        )
    return out


def _upstream(upstream: torch.Tensor, reduction: int) -> tuple[torch.Tensor, bool]:
    """The upstream gradient, and whether there is one of each element."""
    if not reduction and any(upstream.stride()):
        return upstream.contiguous(), True
    return upstream, False  # also the stride-0 gradient of a sum: one number


def backward(
    upstream_0: torch.Tensor | None,
    real: torch.Tensor | None,
    fake: torch.Tensor,
    annealed: torch.Tensor | None,
    kind: int,
    mode: int,
    label_smoothing: float,
    real_label: float,
    fake_label: float,
    reduction: int,
    needs_real: bool,
    needs_fake: bool,
) -> tuple[torch.Tensor, ...]:
    op = "gan_loss_backward"
    launch.require(unsupported(op, real, fake, annealed, upstream_0))
    d_real, d_fake = gradients = spec.empty_gradients((real, fake), (needs_real, needs_fake))
    if d_real.numel() == d_fake.numel() == 0:
        return gradients
    if upstream_0 is None:
        return d_real.zero_(), d_fake.zero_()
    real, fake = None if real is None else real.contiguous(), fake.contiguous()
    n_r, n_f = 0 if real is None else real.numel(), fake.numel()
    sides, term = (
        _sides(kind, mode, _target(real_label, label_smoothing, annealed), fake_label),
        _term(kind, mode),
    )
    smoothing = _smoothing(annealed, mode)
    up, elementwise = _upstream(upstream_0, reduction)
    shift, means = _shift(real, fake, kind)
    slopes = None
    if shift == "load":
        slopes = fake.new_empty(2, dtype=torch.float64)
        _sum(slopes, real, fake, up if elementwise else None, means, smoothing, sides, (1.0, 1.0),
             TERM=term, SLOPE=True, SHIFT=shift, PAIR=True)  # fmt: skip
    programs, options = _elementwise_options(max(n_r, n_f), shift, fake.dtype)
    with launch.on(fake):
        gan_loss_backward_kernel[launch.programs(op, programs)](
            d_real if d_real.numel() else None, d_fake if d_fake.numel() else None,
            up, real, fake, means, slopes, smoothing, *_numbers(n_r, n_f), *sides,
            *_weights(n_r, n_f, reduction),
            TERM=term, ELEMENTWISE=elementwise, **options,
        )  # fmt: skip
    return gradients


LAUNCHERS = {"gan_loss_forward": forward, "gan_loss_backward": backward}


_SMALL, _LARGE = 64, 2**20
_CALLS = (
    *((kind, _DISCRIMINATOR, _SMALL, _MEAN) for kind in (_BCE, _HINGE, _LSGAN, _WGAN, _RABCE)),
    *((kind, _DISCRIMINATOR, _SMALL, _NONE) for kind in (_BCE, _RABCE)),
    *((kind, _DISCRIMINATOR, _LARGE, _MEAN) for kind in (_BCE, _RABCE)),
    (_BCE, _GENERATOR, _SMALL, _MEAN),
    (_RABCE, _DISCRIMINATOR, _LARGE, _NONE),
)


def _calls(
    dtype: torch.dtype, kind: int, mode: int, n: int, reduction: int, smoothing: float = 0.0
) -> Iterator[tuple[str, tuple]]:
    """One call forward and one backward, on meta tensors."""
    x = torch.empty(n, dtype=dtype, device="meta")
    real = x if mode == _DISCRIMINATOR else None
    upstream = torch.empty(() if reduction else n, dtype=dtype, device="meta")
    annealed = None
    if n == _LARGE:
        annealed = torch.empty((), dtype=torch.float64, device="meta")
    call = (real, x, annealed, kind, mode, smoothing, 1.0, 0.0, reduction)
    yield "gan_loss_forward", call
    yield "gan_loss_backward", (upstream, *call, real is not None, True)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every term, reduction and number of programs."""
    for dtype, call in itertools.product(spec.FLOATING, _CALLS):
        yield from _calls(dtype, *call)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes and numbers, which other values of ``n`` compile nothing for."""
    yield from _calls(torch.float32, _BCE, _DISCRIMINATOR, 20 * n, _MEAN, n / 100)
