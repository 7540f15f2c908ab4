"""Which modes of a mixture that is known a generator finds, and how well it hits them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genkern import checks

_OP = "modes"
_CHUNK = 2**20  # distances that are held at once


@dataclass(frozen=True)
class Modes:
    """What `modes` found.

    Args:
        found: modes with at least one good sample.
        good: share of the samples that are good, of all samples.
        counts: (K,) int64, good samples of each mode.
        kl: KL of the histogram of the good samples to the weights of the modes, nats; 0: as
            they should be, log K where all are of one of K equal modes, infinite for no good one.
    """

    found: int
    good: float
    counts: torch.Tensor
    kl: float

    def __str__(self) -> str:
        return f"{self.found} of {len(self.counts)} modes, {self.good:.1%} good, KL {self.kl:.3f}"


def modes(
    samples: torch.Tensor,
    centres: torch.Tensor,
    *,
    std: float | torch.Tensor,
    radius: float = 3.0,
    weights: torch.Tensor | Sequence[float] | None = None,
) -> Modes:
    r"""Counts the modes that samples fall on, and the samples that fall on none.

    A sample is good if its nearest mode is at most ``radius`` standard deviations away:

    .. math:: k_n = \arg\min_k \|x_n - m_k\| / s_k, \qquad
              good_n = [\|x_n - m_{k_n}\| \le r s_{k_n}]

    Equivalent to ``d, k = (torch.cdist(x, m) / s).min(1); torch.bincount(k[d <= r])`` in float64,
    without the error of a matrix product in the distances. Of samples of the mixture itself a share
    of :math:`P(\chi^2_D \le r^2)` is good: 0.9889 in the plane for r = 3. A sample that is not
    finite is not good.

    Args:
        samples: (N, ...), N at least 1; any real dtype.
        centres: (K, ...), the m_k; items of the shape of the samples.
        std: standard deviation of every mode in each direction, above 0; or (K,), one each.
        radius: r, in standard deviations.
        weights: (K,), shares of the modes in the mixture; default: equal.

    Returns:
        `Modes`.

    Raises:
        TypeError: samples or centres are not tensors of real numbers, or an option is no number.
        ValueError: shapes do not fit, or a number is out of range.

    Source: Srivastava et al. 2017, "VEEGAN", sec. 4.1; Lin et al. 2018, "PacGAN", sec. 4.1 (three
    standard deviations, and the reverse KL).
    """
    x, m = _rows("samples", samples), _rows("centres", centres)
    if x.shape[1] != m.shape[1]:
        text = f"{_OP}: samples must have items of the shape of the centres = "
        raise ValueError(f"{text}{tuple(centres.shape[1:])}; got {tuple(samples.shape)}")
    K = len(m)
    radius = checks.check_number(_OP, "radius", radius, minimum=0.0)
    scale = _of_modes("std", std if isinstance(std, torch.Tensor) else [std] * K, K)
    if not (scale > 0).all():
        raise ValueError(f"{_OP}: std must be above 0; got {std}")
    shares = _of_modes("weights", [1.0] * K if weights is None else weights, K)
    if not ((shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"{_OP}: weights must be at least 0, and not all 0; got {weights}")
    counts = torch.zeros(K, dtype=torch.int64)
    for part in x.split(max(1, _CHUNK // (K * max(1, x.shape[1])))):
        distance = (part[:, None] - m).norm(dim=2) / scale
        least, nearest = distance.min(1)
        counts += torch.bincount(nearest[least <= radius], minlength=K)
    good = int(counts.sum())
    return Modes(int((counts > 0).sum()), good / len(x), counts, _kl(counts, shares))


def _kl(counts: torch.Tensor, weights: torch.Tensor) -> float:
    if counts.sum() == 0:
        return math.inf
    p, q = counts.double() / counts.sum(), weights / weights.sum()
    return float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum().clamp(min=0.0))


def _rows(name: str, values: torch.Tensor) -> torch.Tensor:
    if not isinstance(values, torch.Tensor) or values.is_complex():
        got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"{_OP}: {name} must be a tensor of real numbers; got {got}")
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(
            f"{_OP}: {name} must have at least one item; got shape {tuple(values.shape)}"
        )
    return values.detach().cpu().double().reshape(len(values), -1)


def _of_modes(name: str, values: torch.Tensor | Sequence[float], count: int) -> torch.Tensor:
    found = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if found.ndim == 0:
        found = found.expand(count)
    if found.shape != (count,):
        raise ValueError(f"{_OP}: {name} must have shape ({count},); got {tuple(found.shape)}")
    return found
