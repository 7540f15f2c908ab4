"""An estimate with its interval, and the sums that it is made of."""

import math
from dataclasses import dataclass

import torch

#: The 97.5 % point of the normal distribution.
NORMAL = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its 95 % interval, and what it is of each item; nats.

    Args:
        value: mean over the items.
        half_width: half its interval for these items: the noise of the estimator alone.
        half_width_over_items: half its interval for the mean over all items that these were drawn
            from, each alone: how much they differ, with the noise; infinite for one item.
        items: (N,) float64.
        item_half_widths: (N,) float64, half the interval of each; infinite for one sample.
        method: what made it.
        num_samples: samples, or chains, of each item.
        effective_samples: (N,) float64, (sum w)^2 / sum w^2 of the importance weights w: where it
            is near 1, one sample stands for all, and the interval is too narrow; None where there
            are no weights.
        acceptance: share of the proposals of HMC that were accepted; None without it.
    """

    value: float
    half_width: float
    half_width_over_items: float
    items: torch.Tensor
    item_half_widths: torch.Tensor
    method: str
    num_samples: int
    effective_samples: torch.Tensor | None = None
    acceptance: float | None = None

    @classmethod
    def of(
        cls, items: torch.Tensor, item_half_widths: torch.Tensor, method: str, num_samples: int,
        effective_samples: torch.Tensor | None = None, acceptance: float | None = None,
    ) -> "Estimate":  # fmt: skip
        count = len(items)
        noise = item_half_widths.square().sum().sqrt().item() / count
        spread = NORMAL * items.std().item() / math.sqrt(count) if count > 1 else math.inf
        return cls(
            items.mean().item(), noise, spread, items, item_half_widths, method, num_samples,
            effective_samples, acceptance,
        )  # fmt: skip

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Item by item, of two estimates on the same items whose noise is independent."""
        if not isinstance(other, Estimate):
            return NotImplemented
        if self.items.shape != other.items.shape:
            counts = f"{len(self.items)} and {len(other.items)}"
            raise ValueError(f"Estimate: a difference must be of the same items; got {counts}")
        halves = torch.hypot(self.item_half_widths, other.item_half_widths)
        method = f"{self.method} - {other.method}"
        return Estimate.of(self.items - other.items, halves, method, self.num_samples)

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.half_width:.3f} nats ({self.method})"


class Weights:
    """Sums over the log-weights of N items, in float64, as they come: O(N) memory."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.samples = 0
        empty = torch.full((count,), -math.inf, dtype=torch.float64, device=device)
        #: log of the sums of w and of w^2.
        self.first, self.second = empty, empty
        #: sums of log w, less its first value, and of its square.
        self.shift, self.total = torch.zeros_like(empty), torch.zeros_like(empty)
        self.squares = torch.zeros_like(empty)

    def add(self, log_weights: torch.Tensor) -> None:
        """(S, N)."""
        log_weights = log_weights.double()
        if self.samples == 0:
            self.shift = log_weights[0]
        self.samples += len(log_weights)
        self.first = torch.logaddexp(self.first, log_weights.logsumexp(0))
        self.second = torch.logaddexp(self.second, (2 * log_weights).logsumexp(0))
        apart = log_weights - self.shift
        self.total = self.total + apart.sum(0)
        self.squares = self.squares + apart.square().sum(0)

    def mean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of log w, and half its interval."""
        mean = self.total / self.samples
        if self.samples == 1:
            return self.shift + mean, torch.full_like(mean, math.inf)
        variance = (self.squares / self.samples - mean.square()).clamp(min=0)
        return self.shift + mean, NORMAL * (variance / (self.samples - 1)).sqrt()

    def log_mean(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """log of the mean of w, half its interval by the delta method, effective samples.

        With m the mean of w: var(log m) = var(m) / m^2 up to terms of higher order.
        """
        share = torch.exp(self.second - 2 * self.first)  # sum w^2 / (sum w)^2
        log_mean = self.first - math.log(self.samples)
        if self.samples == 1:
            return log_mean, torch.full_like(log_mean, math.inf), 1 / share
        variance = ((self.samples * share - 1) / (self.samples - 1)).clamp(min=0)
        return log_mean, NORMAL * variance.sqrt(), 1 / share
