"""Launchers of the Gaussian Triton kernels."""

from collections.abc import Iterator
from typing import Any

import torch
import triton

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.gaussian.kernels import (
    gaussian_backward_kernel,
    gaussian_forward_kernel,
)

_NONE, _ROWS, _ELEMENTS, _LOG_PROB = range(4)  # what stands beside z: the KL, or log q
_WARPS = 4
_MAX_SPLITS = 512
_FEWEST_PROGRAMS = 8  # a processor, before long rows are split


def unsupported(
    op: str,
    mu: torch.Tensor,
    *,
    seed: torch.Tensor | None = None,
    annealed: torch.Tensor | None = None,
    **others: torch.Tensor | None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    for name, tensor in (("seed", seed), ("annealed", annealed)):
        if tensor is not None and tensor.device != mu.device:
            return f"{op}: {name} must be on {mu.device} like mu; got {tensor.device}"
    return launch.mismatch(op, "mu", mu, others)


def _spread(mu: torch.Tensor, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Parameters in the shape of mu."""
    return [t if t is None else t.expand(mu.shape) for t in tensors]


def _options(N: int, D: int, S: int, dtype: torch.dtype) -> dict[str, Any]:
    """Tile and specialisations, of the dtype, the row length and alignment."""
    tile = 128 if dtype == torch.float64 else 256  # Philox blocks: one or two a thread
    width = next((w for w in (8, 32, 128) if 8 * w >= D), tile)
    return {
        "MANY": S > 1,
        "ALIGNED": D % 4 == 0,
        "BLOCKS": S <= 1 or N * D % 4 == 0,  # every sample starts at a Philox block
        "DTYPE": accumulator(dtype),
        "BR": tile // width,
        "BC": width,
        "num_warps": _WARPS,
    }


def _row_blocks(D: int) -> int:
    """Philox blocks that one row may touch."""
    return D // 4 if D % 4 == 0 else (D + 6) // 4


def _floor(free_bits: float) -> float:
    return free_bits if free_bits > 0 else float("-inf")


def _splits(rows: int, blocks: int, BC: int, processors: int) -> tuple[int, int]:
    """Programs of one row, and blocks of each: few long rows are split over the processors."""
    wanted = min(_FEWEST_PROGRAMS * processors // rows, triton.cdiv(blocks, 2 * BC), _MAX_SPLITS)
    split_blocks = triton.cdiv(triton.cdiv(blocks, max(1, wanted)), BC) * BC
    return triton.cdiv(blocks, split_blocks), split_blocks


def forward(
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None,
    prior_logvar: torch.Tensor | None,
    eps: torch.Tensor | None,
    seed: torch.Tensor | None,
    annealed: torch.Tensor | None,
    num_samples: int | None,
    free_bits: float,
    scale: int,
    kind: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    op = "gaussian_forward"
    launch.require(
        unsupported(op, mu, seed=seed, annealed=annealed, logvar=logvar, prior_mu=prior_mu,
                    prior_logvar=prior_logvar, eps=eps)
    )  # fmt: skip
    leading = () if num_samples is None else (num_samples,)
    has_z = eps is not None or seed is not None
    z = mu.new_empty((*leading, *mu.shape) if has_z else (0,))
    N, with_kl = mu.shape[0], kind in (_ROWS, _ELEMENTS)
    second = mu.new_empty((0, N, mu.shape, (*leading, N))[kind])
    if mu.numel() == 0:
        return z, second.zero_()
    if z.numel() == 0 and not with_kl:
        return z, second
    D, S = mu.numel() // N, max(1, z.numel() // mu.numel())
    options = _options(N, D, S, mu.dtype)
    BR, BC, blocks = options["BR"], options["BC"], _row_blocks(D)
    splits, split_blocks = 1, triton.cdiv(blocks, BC) * BC
    if BR == 1 and kind != _LOG_PROB:
        splits, split_blocks = _splits(N * S, blocks, BC, launch.processors(mu))
    partial = done = None
    if splits > 1 and kind == _ROWS:
        partial = mu.new_empty((N, splits), dtype=spec.accumulation(mu.dtype))
        done = launch.counters(mu, N)
    p_z, p_eps, p_seed = (z, eps, seed) if z.numel() else (None,) * 3
    inputs = launch.dense(mu, *_spread(mu, logvar, prior_mu, prior_logvar), p_eps)
    programs = launch.programs(op, triton.cdiv(N, BR) * splits * S)
    with launch.on(mu):
        gaussian_forward_kernel[programs](
            *inputs, p_seed, annealed if with_kl else None, p_z, second if with_kl else None,
            second if kind == _LOG_PROB else None, partial, done, N, D, S, splits,
            split_blocks, _floor(free_bits), SCALE=scale, ELEMENTS=kind == _ELEMENTS,
            MAX_SPLITS=_MAX_SPLITS if splits > 1 else 1, **options,
        )  # fmt: skip
    return z, second


def backward(
    upstream_0: torch.Tensor | None,
    upstream_1: torch.Tensor | None,
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None,
    prior_logvar: torch.Tensor | None,
    eps: torch.Tensor | None,
    seed: torch.Tensor | None,
    annealed: torch.Tensor | None,
    num_samples: int | None,
    free_bits: float,
    scale: int,
    kind: int,
    needs_mu: bool,
    needs_logvar: bool,
    needs_prior_mu: bool,
    needs_prior_logvar: bool,
    needs_eps: bool,
) -> tuple[torch.Tensor, ...]:
    d_z, d_second = upstream_0, upstream_1
    d_kl, d_log_prob = (None, d_second) if kind == _LOG_PROB else (d_second, None)
    launch.require(
        unsupported("gaussian_backward", mu, seed=seed, annealed=annealed, logvar=logvar,
                    prior_mu=prior_mu, prior_logvar=prior_logvar, eps=eps, upstream_0=d_z,
                    upstream_1=d_second)
    )  # fmt: skip
    needs = (needs_mu, needs_logvar, needs_prior_mu, needs_prior_logvar, needs_eps)
    gradients = spec.empty_gradients((mu, logvar, prior_mu, prior_logvar, eps), needs)
    if not any(d.numel() for d in gradients):
        return gradients
    if mu.numel() == 0:
        return (*(d.zero_() for d in gradients),)
    if d_z is None and d_log_prob is not None:
        d_z = mu.new_zeros(()).expand(*d_log_prob.shape[:-1], *mu.shape)
    if d_z is None or d_z.numel() == 0:
        d_z = seed = d_log_prob = None
        gradients[4].zero_()
    inputs = launch.dense(
        d_z, d_kl, d_log_prob, mu, *_spread(mu, logvar, prior_mu, prior_logvar),
        None if d_z is None else eps,
    )  # fmt: skip
    floor = None if d_kl is None else annealed, free_bits
    _launch_backward(gradients, mu, inputs, d_z, seed, floor, scale, kind)
    return gradients


def _launch_backward(gradients, mu, inputs, d_z, seed, floor, scale, kind) -> None:
    # Of what is broadcast, first the gradient of every element.
    sums = spec.accumulation(mu.dtype)
    found = [
        d if d.numel() in (0, mu.numel()) else mu.new_empty(mu.shape, dtype=sums)
        for d in gradients[:4]
    ]
    N = mu.shape[0]
    D, S = mu.numel() // N, 1 if d_z is None else d_z.numel() // mu.numel()
    options = _options(N, D, S, mu.dtype)
    tiles = triton.cdiv(_row_blocks(D), options["BC"])
    programs = launch.programs("gaussian_backward", triton.cdiv(N, options["BR"]) * tiles)
    written = [d if d.numel() else None for d in found]
    written.append(gradients[4] if d_z is not None and gradients[4].numel() else None)
    with launch.on(mu):
        gaussian_backward_kernel[programs](
            *inputs, seed, floor[0], *written,
            N, D, S, tiles, _floor(floor[1]), SCALE=scale, ELEMENTS=kind == _ELEMENTS, **options,
        )  # fmt: skip
    for gradient, full in zip(gradients, found, strict=False):
        if full is not gradient:
            gradient.copy_(full.sum_to_size(gradient.shape))


SPILL_BYTES = {"gaussian_forward_kernel": 8}  # float64 divisions are calls on sm_90
LAUNCHERS = {"gaussian_forward": forward, "gaussian_backward": backward}

# A row length of every tile (8193: split), aligned or not. Letters: kl (K: of elements), prior, eps
# or seed, all gradients (or those of mu and logvar), annealed, q: log_prob, 1 and 2: scales.
_TILES = ((3, 8), (3, 129), (3, 512), (3, 8193))
_MODES = (
    "Fk",
    "Fe",
    "Fekp",
    "Fskp",
    "Fka",
    "Bs",
    "Bkpd",
    "Bekpd",
    "Bskp",
    "Bska",
    "Fsq1",
    "FKp2",
    "Bsq1",
    "Beqd2",
    "BeKpd2",
)


def _call(
    dtype: torch.dtype, shape: tuple[int, ...], S: int | None, mode: str, free_bits: float = 0.0
) -> tuple[str, tuple]:
    x = torch.empty(shape, dtype=dtype, device="meta")
    noise = torch.empty((S or 1, *shape), dtype=dtype, device="meta")
    kind = next((i for i, letter in enumerate("kKq", 1) if letter in mode), _NONE)
    second = (None, x[:, 0], x, noise[..., 0])[kind]
    scale = next((int(digit) for digit in mode if digit.isdigit()), 0)
    prior = x if "p" in mode else None
    eps = noise if "e" in mode else None
    seed = torch.empty(1, dtype=torch.int64, device="meta") if "s" in mode else None
    annealed = torch.empty((), dtype=torch.float64, device="meta") if "a" in mode else None
    call = (x, x, prior, prior, eps, seed, annealed, S, free_bits, scale, kind)
    if mode[0] == "F":
        return "gaussian_forward", call
    d_z = noise if "e" in mode or "s" in mode else None
    return "gaussian_backward", (d_z, second, *call, True, True, *("d" in mode,) * 3)


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every tile and with every mode, as calls on meta tensors."""
    for dtype in spec.FLOATING:
        calls = [(shape, None, m) for shape in _TILES for m in ("Fsk", "Bsk")]
        calls += [((4, 512), None, mode) for mode in _MODES]
        # Samples that start at a Philox block, and samples that do not.
        calls += [(shape, 2, m) for shape in ((4, 512), (3, 513)) for m in ("Fs", "Bs")]
        for call in calls:
            yield _call(dtype, *call)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes and numbers, which other values of ``n`` compile nothing for."""
    for mode in ("Fsk", "Bsk"):
        yield _call(torch.float32, (n, 20), None, mode, n / 100)
