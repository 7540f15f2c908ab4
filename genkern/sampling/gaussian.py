"""Integers of a rounded normal distribution, as learned image codecs have them."""

import math

import torch

from genkern.sampling.outputs import NEAR_ONE, Inputs, Output, check_finite

_LEAST_LOG_SCALE = -7.0
_LEAST_NOISE = 2.0**-32
_NARROW = 1e-4  # width of a bin: what its density leaves out is of the fourth order
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Gaussian(Output):
    r"""A normal distribution for each colour of a pixel, rounded to the levels.

    .. math:: P(v) = \Phi\big((b_{v+1} - \mu) / \sigma\big) - \Phi\big((b_v - \mu) / \sigma\big),
              \quad b_v = \text{scale} \cdot (v - 1/2) + \text{offset}

    with b_0 = -inf and b_levels = inf: the outer levels take the tails. The network returns the
    means of all colours, then the log-scales log sigma, in units of its inputs: (N, 2C, H, W);
    log-scales are clamped at -7. The colours of a pixel, any number of them, do not depend on each
    other. ``temperature`` multiplies sigma. Of an integer latent from -127 to 127, which enters the
    network as it is, levels are 255 and ``inputs`` (1.0, -127.0).

    .. math:: v = \mathrm{round}\big((\mu + T \sigma \Phi^{-1}(u) - \text{offset}) /
              \text{scale}\big)

    u uniform noise, T the temperature.

    Args:
        levels: how many values a place may have.
        inputs: as of `Output`, with a positive scale.

    Raises:
        ValueError: an argument is out of range.

    Source: Balle et al. 2017, "End-to-end optimized image compression", eq. 7; Minnen et al. 2018,
    "Joint autoregressive and hierarchical priors for learned image compression", sec. 2.
    """

    by_colour = False

    def __init__(self, levels: int, *, inputs: Inputs = "symmetric") -> None:
        super().__init__(levels, inputs)
        if self.scale <= 0:
            raise ValueError(f"Gaussian: inputs must have a positive scale; got {self.scale}")

    def channels(self, colours: int) -> int:
        return 2 * colours

    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        check_finite(params)
        mean, sigma = _moments(params)
        normal = torch.special.ndtri(noise.double().clamp(_LEAST_NOISE, NEAR_ONE))
        level = (mean + temperature * sigma * normal - self.offset) / self.scale
        return level.round().clamp(0, self.levels - 1).long()

    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        colour = 0 if before is None else before.shape[1]
        own = params.unflatten(1, (2, -1))[:, :, colour]
        every = torch.arange(self.levels, device=params.device)[:, None]
        found = self._log_chances(own, every).exp()
        return found if params.dtype == torch.float64 else found.float()

    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        found = self._log_chances(params, values).flatten(1).sum(1)
        return found if params.dtype == torch.float64 else found.float()

    def _log_chances(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """log P in float64: of bounds on the side of the lower tail, whose difference is formed
        from logarithms; of a narrow bin, from the density in its middle."""
        mean, sigma = _moments(params)
        width = self.scale / sigma
        middle = (self.scale * values + self.offset - mean) / sigma
        is_first, is_last = values == 0, values == self.levels - 1
        low = torch.where(is_first, -math.inf, middle - width / 2)
        high = torch.where(is_last, math.inf, middle + width / 2)
        flipped = low + high > 0
        low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
        of_low, of_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
        found = of_high + torch.log1p(-(of_low - of_high).exp())
        narrow = (width < _NARROW) & (middle.abs() * width < 10 * _NARROW) & ~is_first & ~is_last
        density = -0.5 * middle**2 - _HALF_LOG_TWO_PI + width.log()
        density = density + (middle**2 - 1) * width**2 / 24
        return torch.where(narrow, density, found)


def _moments(params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and standard deviations, float64."""
    mean, log_scale = params.double().chunk(2, dim=1)
    return mean, log_scale.clamp(min=_LEAST_LOG_SCALE).exp()
