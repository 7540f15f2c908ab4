"""What the outputs of a network mean, and how integers become its inputs."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F

from genkern import checks
from genkern.ops.discretized_logistic_mixture import (
    discretized_logistic_mixture_nll,
    discretized_logistic_mixture_sample,
)
from genkern.ops.pixel_cross_entropy import pixel_cross_entropy
from genkern.sampling.chances import chances_of

_MOST_LEVELS = 2**24  # integers that float32 holds exactly
NEAR_ONE = 1 - 2.0**-24  # Philox uniforms reach 1, where a level without weight would be taken
_COLDEST = 1e-30

Inputs = str | tuple[float, float]


class WrongOutput(ValueError):
    """The model returns something else than the output says."""


class Output(ABC):
    r"""How a network is fed with integers, and what it returns for the next one.

    .. math:: \text{input} = \text{scale} \cdot v + \text{offset}, \quad v = 0 \dots levels - 1

    Args:
        levels: how many values a place may have.
        inputs: what the network takes: "symmetric" in [-1, 1], "unit" in [0, 1], "index" the
            integers themselves as floating-point numbers, or a pair (scale, offset).
    """

    #: A place is one colour of a pixel, drawn from what the network says once the colours before
    #: it are known; otherwise the parameters of a pixel give all of its colours.
    by_colour: ClassVar[bool] = True

    def __init__(self, levels: int, inputs: Inputs = "symmetric") -> None:
        name = type(self).__name__
        self.levels: int = checks.check_number(
            name, "levels", levels, minimum=2, maximum=_MOST_LEVELS, integer=True
        )
        if isinstance(inputs, tuple) and len(inputs) == 2:
            most = torch.finfo(torch.float32).max
            for value in inputs:
                checks.check_number(name, "inputs", value, minimum=-most, maximum=most)
            self.scale, self.offset = map(float, inputs)
        else:
            named = {
                "symmetric": (2.0 / (levels - 1), -1.0),
                "unit": (1.0 / (levels - 1), 0.0),
                "index": (1.0, 0.0),
            }
            checks.check_option(name, "inputs", inputs, tuple(named))
            self.scale, self.offset = named[str(inputs)]

    @abstractmethod
    def channels(self, colours: int) -> int:
        """How many channels the network returns for images of so many colours.

        Raises:
            ValueError: images cannot have so many.
        """

    def draws(self, colours: int) -> int:
        """Uniform numbers that a pixel takes."""
        return colours

    def to_inputs(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Integers (N, C, H, W) as the network takes them."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return (values.to(wide) * self.scale + self.offset).to(dtype)  # rounded once

    def at(self, params: torch.Tensor, colour: int) -> torch.Tensor:
        """The channels (dim 1) of ``params`` that speak of a colour."""
        each = self.channels(1)
        return params[:, colour * each : (colour + 1) * each] if self.by_colour else params

    @abstractmethod
    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        """Parameters (N, K, P) of P places and their noise (N, draws, P) to integers (N, n, P)."""

    @abstractmethod
    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Of every level of a colour, (N, levels, P), for an entropy coder or a rule: the same
        bits from the same parameters. float64 where the parameters are, otherwise float32.

        Args:
            params: (N, K, P), as `choose` of `sample` gets them.
            before: integers (N, c, P) of the colours of the step that are known, where it has
                several: the result is of the next one. None: of the first.
        """

    @abstractmethod
    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """log p (N,), nats, of integers (N, C, H, W) under parameters (N, K, H, W): float64 where
        the parameters are, otherwise float32."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.levels}, inputs=({self.scale:g}, {self.offset:g}))"


class Bernoulli(Output):
    r"""Two levels and one logit a for each colour of a pixel.

    .. math:: P(1) = \sigma(a / T), \quad v = [u < \sigma(a / T)]

    u uniform noise, T the temperature.

    Args:
        inputs: as of `Output`; "symmetric" feeds -1 and 1, "unit" 0 and 1.
    """

    def __init__(self, *, inputs: Inputs = "symmetric") -> None:
        super().__init__(2, inputs)

    def channels(self, colours: int) -> int:
        return colours

    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        chance = torch.sigmoid(params.double() / max(temperature, _COLDEST))
        check_finite(chance)
        return (noise < chance).long()

    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.sigmoid(torch.cat([-params, params], 1).double()).to(_wide(params))

    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        logits = params if params.dtype == torch.float64 else params.float()
        return (values * logits - F.softplus(logits)).flatten(1).sum(1)


class Categorical(Output):
    r"""A softmax over the levels of each colour, in the layout of `genkern.pixel_cross_entropy`.

    .. math:: P(v) = \mathrm{softmax}(a / T)_v, \quad
              v = \#\{l < levels - 1: \textstyle\sum_{j \le l} e^{a_j / T} \le
              u \sum_j e^{a_j / T}\}

    where a are channels [c * levels, (c + 1) * levels) of colour c, u uniform noise, T the
    temperature. With ``top_k``, levels whose logit is below the k-th largest have weight 0.

    Args:
        levels: how many values a place may have.
        inputs: as of `Output`.
    """

    def __init__(self, levels: int, *, inputs: Inputs = "symmetric") -> None:
        super().__init__(levels, inputs)

    def channels(self, colours: int) -> int:
        return colours * self.levels

    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        logits = params.double()
        if top_k is not None:
            least = logits.topk(top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        weights = ((logits - logits.amax(1, keepdim=True)) / max(temperature, _COLDEST)).exp()
        cumulative = weights.cumsum(1)
        check_finite(cumulative[:, -1])
        reached = noise.double().clamp(max=NEAR_ONE) * cumulative[:, -1:]
        return (cumulative[:, :-1] <= reached).sum(1, keepdim=True)

    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        return _wide(params).transpose(1, 2).softmax(2).transpose(1, 2)

    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return -pixel_cross_entropy(_wide(params), values, data_channels=values.shape[1])


class LogisticMixture(Output):
    """A mixture of discretized logistics, in the layout of `discretized_logistic_mixture_nll`.

    The colours of a pixel are drawn one after the other from its parameters, through the
    coefficients, as `genkern.discretized_logistic_mixture_sample` does; the first of its uniform
    numbers chooses the component.

    Args:
        levels: how many values a place may have.
        num_mixtures: components K: 10K channels for RGB, 3K for grey.
        inputs: as of `Output`.
    """

    by_colour = False

    def __init__(self, levels: int, num_mixtures: int, *, inputs: Inputs = "symmetric") -> None:
        super().__init__(levels, inputs)
        self.num_mixtures: int = checks.check_number(
            "LogisticMixture", "num_mixtures", num_mixtures, minimum=1, integer=True
        )

    def channels(self, colours: int) -> int:
        if colours not in (1, 3):
            raise ValueError(f"shape must have 1 or 3 colours for {self!r}; got {colours}")
        return (3 if colours == 1 else 10) * self.num_mixtures

    def draws(self, colours: int) -> int:
        return 1 + colours

    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        check_finite(params)
        dtype = torch.float64 if params.dtype == torch.float64 else torch.float32
        found = discretized_logistic_mixture_sample(
            params[:, :, None],
            levels=self.levels,
            data_channels=noise.shape[1] - 1,
            temperature=temperature,
            noise=noise.to(dtype)[:, :, None],
        )
        return found[:, :, 0].long()

    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        N, _, P = params.shape
        rows = _wide(params).transpose(1, 2).flatten(0, 1)
        empty = torch.empty(N, 0, P, dtype=torch.int64, device=params.device)
        known = (empty if before is None else before.long()).transpose(1, 2).flatten(0, 1)
        colours = 1 if params.shape[1] == 3 * self.num_mixtures else 3
        found = chances_of(rows, known, self.levels, colours)
        return found.view(N, P, self.levels).transpose(1, 2)

    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return -discretized_logistic_mixture_nll(_wide(params), values, levels=self.levels)


def _wide(params: torch.Tensor) -> torch.Tensor:
    return params if params.dtype == torch.float64 else params.float()


def check_no_nan(values: torch.Tensor) -> None:
    """Of log p, or of parameters where -inf is a level that is never drawn."""
    if bool(values.isnan().any()):
        raise ValueError("sample: model must return finite parameters; got NaN or inf")


def check_finite(values: torch.Tensor) -> None:
    """A NaN would otherwise be drawn as level 0."""
    if not bool(values.isfinite().all()):
        raise ValueError("sample: model must return finite parameters; got NaN or inf")
