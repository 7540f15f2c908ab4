"""Launchers of the Gaussian Triton kernels."""

from collections.abc import Iterator
from typing import Any

import torch
import triton

from genkern.triton_kernels import launch
from genkern.triton_kernels.elementary import accumulator
from genkern.triton_kernels.gaussian_kernels import (
    gaussian_backward_kernel,
    gaussian_forward_kernel,
)

_TILE = 128  # Philox blocks of a tile: one a thread
_WARPS = 4
_MAX_SPLITS = 512


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
    """Tile and specialisations of a problem, from static facts and alignment alone."""
    width = 8 if D <= 64 else 32 if D <= 256 else _TILE
    return {
        "ALIGNED": D % 4 == 0,
        "BLOCKS": S <= 1 or N * D % 4 == 0,  # every sample starts at a Philox block
        "DTYPE": accumulator(dtype),
        "BR": _TILE // width,
        "BC": width,
        "num_warps": _WARPS,
    }


def _row_blocks(D: int) -> int:
    """Philox blocks that one row may touch."""
    return D // 4 if D % 4 == 0 else (D + 6) // 4


def _floor(free_bits: float) -> float:
    return free_bits if free_bits > 0 else float("-inf")


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
        unsupported(
            "gaussian_forward", mu, seed=seed, logvar=logvar, prior_mu=prior_mu,
            prior_logvar=prior_logvar, eps=eps,
        )
    )  # fmt: skip
    leading = () if num_samples is None else (num_samples,)
    has_z = eps is not None or seed is not None
    z = mu.new_empty((*leading, *mu.shape) if has_z else (0,))
    N = mu.shape[0]
    kl = mu.new_empty(N if with_kl else 0)
    if mu.numel() == 0:
        return z, kl.zero_()
    D, S = mu.numel() // N, 1 if num_samples is None or not z.numel() else num_samples
    if not with_kl and not z.numel():
        return z, kl
    options = _options(N, D, S, mu.dtype)
    BR, BC, blocks = options["BR"], options["BC"], _row_blocks(D)
    # Few long rows: each is split, so that every processor has work.
    wanted = 4 * launch.processors(mu) // (N * S) if BR == 1 else 1
    splits = max(1, min(wanted, triton.cdiv(blocks, 2 * BC), _MAX_SPLITS))
    split_blocks = triton.cdiv(triton.cdiv(blocks, splits), BC) * BC
    splits = triton.cdiv(blocks, split_blocks)
    partial = done = None
    if splits > 1 and with_kl:
        partial = mu.new_empty((N, splits), dtype=torch.promote_types(mu.dtype, torch.float32))
        done = launch.counters(mu, N)
    with launch.on(mu):
        gaussian_forward_kernel[(triton.cdiv(N, BR) * splits * S,)](
            mu, logvar, prior_mu, prior_logvar, eps if z.numel() else None,
            seed if z.numel() else None, z if z.numel() else None, kl if with_kl else None,
            partial, done, N, D, S, splits, split_blocks, _floor(free_bits),
            MAX_SPLITS=1 if partial is None else _MAX_SPLITS, **options,
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
        unsupported(
            "gaussian_backward", mu, seed=seed, logvar=logvar, prior_mu=prior_mu,
            prior_logvar=prior_logvar, eps=eps, d_z=d_z, d_kl=d_kl,
        )
    )  # fmt: skip
    d_mu, d_logvar = mu.new_empty(mu.shape), mu.new_empty(mu.shape)
    prior_shape = mu.shape if prior_mu is not None else (0,)
    d_prior_mu, d_prior_logvar = mu.new_empty(prior_shape), mu.new_empty(prior_shape)
    d_eps = mu.new_empty(eps.shape if eps is not None and needs_d_eps else (0,))
    gradients = (d_mu, d_logvar, d_prior_mu, d_prior_logvar, d_eps)
    if mu.numel() == 0:
        return gradients
    N = mu.shape[0]
    D, S = mu.numel() // N, 1 if num_samples is None else num_samples
    if d_z is None or d_z.numel() == 0 or (eps is None and seed is None):
        d_z = eps = seed = None
    options = _options(N, D, S, mu.dtype)
    tiles = triton.cdiv(_row_blocks(D), options["BC"])
    with launch.on(mu):
        gaussian_backward_kernel[(triton.cdiv(N, options["BR"]) * tiles,)](
            d_z, d_kl, mu, logvar, prior_mu, prior_logvar, eps, seed, d_mu, d_logvar,
            d_prior_mu, d_prior_logvar, d_eps if d_eps.numel() else None,
            N, D, S, tiles, _floor(free_bits), **options,
        )  # fmt: skip
    return gradients


LAUNCHERS = {"gaussian_forward": forward, "gaussian_backward": backward}


def configurations() -> Iterator[tuple[str, tuple]]:
    """Every dtype with every mode, and every dtype with every tile and alignment."""
    empty = lambda *shape: torch.empty(shape, dtype=dtype, device="meta")  # noqa: E731
    seed = torch.empty(1, dtype=torch.int64, device="meta")
    tiles = [(3, d) for d in (8, 9, 128, 129, 512, 513, 4096, 4097)]
    for dtype in launch.FLOATING:
        problems = [(shape, None, m) for shape in tiles for m in ("s k",)]
        problems += [((3, 512), s, m) for s in (None,) for m in ("k", "kp", "e", "s", "ek", "ekp", "skp")]
        for shape, S, mode in problems:
            x, noise = empty(*shape), empty(*shape)
            prior = (x, x) if "p" in mode else (None, None)
            source = (noise if "e" in mode else None, seed if "s" in mode else None)
            yield "gaussian_forward", (x, x, *prior, *source, S, 0.0, "k" in mode)
