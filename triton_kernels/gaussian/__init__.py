"""Launchers of the Gaussian Triton kernels."""

from collections.abc import Iterator
from typing import Any

import torch
import triton

from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.gaussian.kernels import (
    gaussian_backward_kernel,
    gaussian_forward_kernel,
)

_WARPS = 4
_MAX_SPLITS = 512
_FEWEST_PROGRAMS = 8  # a processor, before long rows are split


def unsupported(
    op: str,
    mu: torch.Tensor,
    *,
    seed: torch.Tensor | None = None,
    **others: torch.Tensor | None,
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    if seed is not None and seed.device != mu.device:
        return f"{op}: seed must be on {mu.device} like mu; got {seed.device}"
    return launch.mismatch(op, "mu", mu, others)


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
    num_samples: int | None,
    free_bits: float,
    with_kl: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    launch.require(
        unsupported("gaussian_forward", mu, seed=seed, logvar=logvar, prior_mu=prior_mu,
                    prior_logvar=prior_logvar, eps=eps)
    )  # fmt: skip
    leading = () if num_samples is None else (num_samples,)
    has_z = eps is not None or seed is not None
    z = mu.new_empty((*leading, *mu.shape) if has_z else (0,))
    N = mu.shape[0]
    kl = mu.new_empty(N if with_kl else 0)
    if mu.numel() == 0:
        return z, kl.zero_()
    if z.numel() == 0 and not with_kl:
        return z, kl
    D, S = mu.numel() // N, max(1, z.numel() // mu.numel())
    options = _options(N, D, S, mu.dtype)
    BR, BC, blocks = options["BR"], options["BC"], _row_blocks(D)
    splits, split_blocks = 1, triton.cdiv(blocks, BC) * BC
    if BR == 1:
        splits, split_blocks = _splits(N * S, blocks, BC, launch.processors(mu))
    partial = done = None
    if splits > 1 and with_kl:
        partial = mu.new_empty((N, splits), dtype=torch.promote_types(mu.dtype, torch.float32))
        done = launch.counters(mu, N)
    p_z, p_eps, p_seed = (z, eps, seed) if z.numel() else (None,) * 3
    programs = launch.programs("gaussian_forward", triton.cdiv(N, BR) * splits * S)
    with launch.on(mu):
        gaussian_forward_kernel[programs](
            mu, logvar, prior_mu, prior_logvar, p_eps, p_seed, p_z, kl if with_kl else None,
            partial, done, N, D, S, splits, split_blocks, _floor(free_bits),
            MAX_SPLITS=_MAX_SPLITS if splits > 1 else 1, **options,
        )  # fmt: skip
    return z, kl


def backward(
    d_z: torch.Tensor | None,
    d_kl: torch.Tensor | None,
    mu: torch.Tensor,
    logvar: torch.Tensor,
    prior_mu: torch.Tensor | None,
    prior_logvar: torch.Tensor | None,
    eps: torch.Tensor | None,
    seed: torch.Tensor | None,
    num_samples: int | None,
    free_bits: float,
    needs_d_eps: bool,
) -> tuple[torch.Tensor, ...]:
    launch.require(
        unsupported("gaussian_backward", mu, seed=seed, logvar=logvar, prior_mu=prior_mu,
                    prior_logvar=prior_logvar, eps=eps, d_z=d_z, d_kl=d_kl)
    )  # fmt: skip
    d_mu, d_logvar = mu.new_empty(mu.shape), mu.new_empty(mu.shape)
    prior_shape = mu.shape if prior_mu is not None else (0,)
    d_prior_mu, d_prior_logvar = mu.new_empty(prior_shape), mu.new_empty(prior_shape)
    d_eps = mu.new_empty(eps.shape if eps is not None and needs_d_eps else (0,))
    gradients = (d_mu, d_logvar, d_prior_mu, d_prior_logvar, d_eps)
    if mu.numel() == 0:
        return gradients
    if d_z is None or d_z.numel() == 0:
        d_z = eps = seed = None
    N = mu.shape[0]
    D, S = mu.numel() // N, 1 if d_z is None else d_z.numel() // mu.numel()
    options = _options(N, D, S, mu.dtype)
    tiles = triton.cdiv(_row_blocks(D), options["BC"])
    programs = launch.programs("gaussian_backward", triton.cdiv(N, options["BR"]) * tiles)
    with launch.on(mu):
        gaussian_backward_kernel[programs](
            d_z, d_kl, mu, logvar, prior_mu, prior_logvar, eps, seed, d_mu, d_logvar,
            *((None, None) if prior_mu is None else (d_prior_mu, d_prior_logvar)),
            d_eps if d_eps.numel() else None,
            N, D, S, tiles, _floor(free_bits), **options,
        )  # fmt: skip
    return gradients


SPILL_BYTES = {"gaussian_forward_kernel": 8}  # float64 divisions are calls on sm_90
LAUNCHERS = {"gaussian_forward": forward, "gaussian_backward": backward}

# A row length of every tile (8193: split), aligned or not. Letters: kl, prior, eps or seed, d_eps.
_TILES = ((3, 8), (3, 129), (3, 512), (3, 8193))
_MODES = ("Fk", "Fe", "Fekp", "Fskp", "Bs", "Bkp", "Bekpd", "Bskp")


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every tile and with every mode, as calls on meta tensors."""
    seed = torch.empty(1, dtype=torch.int64, device="meta")
    for dtype in launch.FLOATING:
        calls = [(shape, None, m) for shape in _TILES for m in ("Fsk", "Bsk")]
        calls += [((4, 512), None, mode) for mode in _MODES]
        # Samples that start at a Philox block, and samples that do not.
        calls += [(shape, 2, m) for shape in ((4, 512), (3, 513)) for m in ("Fs", "Bs")]
        for shape, S, mode in calls:
            x = torch.empty(shape, dtype=dtype, device="meta")
            noise = torch.empty((S or 1, *shape), dtype=dtype, device="meta")
            kl = torch.empty(shape[0], dtype=dtype, device="meta") if "k" in mode else None
            inputs = (x, x, *((x, x) if "p" in mode else (None, None)))
            inputs += (noise if "e" in mode else None, seed if "s" in mode else None, S, 0.0)
            if mode[0] == "F":
                yield "gaussian_forward", (*inputs, kl is not None)
            else:
                d_z = noise if "e" in mode or "s" in mode else None
                yield "gaussian_backward", (d_z, kl, *inputs, "d" in mode)
