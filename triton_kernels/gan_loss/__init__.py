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
    op: str, real: torch.Tensor | None, fake: torch.Tensor, d_loss: torch.Tensor | None = None
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    return launch.mismatch(op, "fake", fake, {"real": real, "d_loss": d_loss}, contiguous=False)


def _term(kind: int, mode: int) -> str:
    if kind == _HINGE and mode == _DISCRIMINATOR:
        return "hinge"
    if kind in (_HINGE, _WGAN):
        return "linear"
    return "square" if kind == _LSGAN else "cross_entropy"


def _sides(kind: int, mode: int, label_smoothing: float) -> tuple[float, float, float, float]:
    """Scale and target of the real side, then of the fake side."""
    if kind in (_HINGE, _WGAN):
        return -1.0, 0.0, 1.0 if mode == _DISCRIMINATOR else -1.0, 0.0
    scale = 1.0 if kind == _BCE else 0.5
    if mode == _DISCRIMINATOR:
        return scale, 1.0 - label_smoothing, scale, 0.0
    if mode == _GENERATOR:
        return scale, 0.0, scale, 1.0
    return -scale, 1.0, -scale, 0.0


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
            real, fake, up, means, out, partial, done, *_numbers(n_r, n_f), *sides, *weights,
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
    _sum(means, real, fake, None, None, (1.0, 0.0, 1.0, 0.0), weights,
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
    kind: int,
    mode: int,
    label_smoothing: float,
    reduction: int,
) -> torch.Tensor:
    op = "gan_loss_forward"
    launch.require(unsupported(op, real, fake))
    out = fake.new_empty(() if reduction else fake.shape)
    n_r, n_f = 0 if real is None else real.numel(), fake.numel()
    if n_r == n_f == 0:
        return out.fill_(float("nan") if reduction == _MEAN else 0.0)
    real, fake = None if real is None else real.contiguous(), fake.contiguous()
    sides, term = _sides(kind, mode, label_smoothing), _term(kind, mode)
    shift, means = _shift(real, fake, kind)
    if reduction:
        return _sum(out, real, fake, None, means, sides, _weights(n_r, n_f, reduction),
                    TERM=term, SLOPE=False, SHIFT=shift, PAIR=False)  # fmt: skip
    programs, options = _elementwise_options(n_f, shift, fake.dtype)
    with launch.on(fake):
        gan_loss_terms_kernel[launch.programs(op, programs)](
            real, fake, means, out, *_numbers(n_r, n_f), *sides, TERM=term, **options
        )
    return out


def _upstream(d_loss: torch.Tensor, reduction: int) -> tuple[torch.Tensor, bool]:
    """The upstream gradient, and whether there is one of each element."""
    if not reduction and any(d_loss.stride()):
        return d_loss.contiguous(), True
    return d_loss, False  # also the stride-0 gradient of a sum: one number


def backward(
    d_loss: torch.Tensor,
    real: torch.Tensor | None,
    fake: torch.Tensor,
    kind: int,
    mode: int,
    label_smoothing: float,
    reduction: int,
    needs_real: bool,
    needs_fake: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    op = "gan_loss_backward"
    launch.require(unsupported(op, real, fake, d_loss))
    d_real = fake.new_empty(real.shape if real is not None and needs_real else (0,))
    d_fake = fake.new_empty(fake.shape if needs_fake else (0,))
    if d_real.numel() == d_fake.numel() == 0:
        return d_real, d_fake
    real, fake = None if real is None else real.contiguous(), fake.contiguous()
    n_r, n_f = 0 if real is None else real.numel(), fake.numel()
    sides, term = _sides(kind, mode, label_smoothing), _term(kind, mode)
    up, elementwise = _upstream(d_loss, reduction)
    shift, means = _shift(real, fake, kind)
    slopes = None
    if shift == "load":
        slopes = fake.new_empty(2, dtype=torch.float64)
        _sum(slopes, real, fake, up if elementwise else None, means, sides, (1.0, 1.0),
             TERM=term, SLOPE=True, SHIFT=shift, PAIR=True)  # fmt: skip
    programs, options = _elementwise_options(max(n_r, n_f), shift, fake.dtype)
    with launch.on(fake):
        gan_loss_backward_kernel[launch.programs(op, programs)](
            d_real if d_real.numel() else None, d_fake if d_fake.numel() else None,
            up, real, fake, means, slopes, *_numbers(n_r, n_f), *sides,
            *_weights(n_r, n_f, reduction),
            TERM=term, ELEMENTWISE=elementwise, **options,
        )  # fmt: skip
    return d_real, d_fake


LAUNCHERS = {"gan_loss_forward": forward, "gan_loss_backward": backward}


_SMALL, _LARGE = 64, 2**20
_CALLS = (
    *((kind, _DISCRIMINATOR, _SMALL, _MEAN) for kind in (_BCE, _HINGE, _LSGAN, _WGAN, _RABCE)),
    *((kind, _DISCRIMINATOR, _SMALL, _NONE) for kind in (_BCE, _RABCE)),
    *((kind, _DISCRIMINATOR, _LARGE, _MEAN) for kind in (_BCE, _RABCE)),
    (_BCE, _GENERATOR, _SMALL, _MEAN),
    (_RABCE, _DISCRIMINATOR, _LARGE, _NONE),
)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every term, reduction and number of programs, on meta tensors."""
    for dtype, (kind, mode, n, reduction) in itertools.product(launch.FLOATING, _CALLS):
        x = torch.empty(n, dtype=dtype, device="meta")
        logits = (x if mode == _DISCRIMINATOR else None, x)
        options = (kind, mode, 0.0, reduction)
        yield "gan_loss_forward", (*logits, *options)
        d_loss = torch.empty(() if reduction else n, dtype=dtype, device="meta")
        yield "gan_loss_backward", (d_loss, *logits, *options, logits[0] is not None, True)
