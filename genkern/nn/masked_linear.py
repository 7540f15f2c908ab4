"""Masked linear layer as a drop-in for nn.Linear, and the degrees of a MADE."""

from collections.abc import Sequence

import torch
from torch import nn

from genkern import checks
from genkern.ops.masked_linear import masked_linear

_OP, _MADE = "MaskedLinear", "made_degrees"
ORDERS = ("natural", "random")


def _hidden(
    below: torch.Tensor, units: int, highest: int, generator: torch.Generator | None
) -> torch.Tensor:
    """``units`` degrees, uniform from the least one below to ``highest``; nothing is read on the
    host."""
    device = below.device if generator is None else generator.device
    share = torch.rand(units, dtype=torch.float64, device=device, generator=generator)
    least = below.min()
    count = (highest - least + 1).clamp(min=1)
    return least + (share.to(below.device) * count).long().clamp(max=count - 1)


def made_degrees(
    inputs: int,
    hidden: Sequence[int],
    *,
    order: str = "natural",
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """Degrees of the units of a MADE, layer by layer, as `genkern.masked_linear` takes them.

    Input d has its place in the order, 0 ... inputs - 1. A hidden unit has a degree drawn uniformly
    from the least one of the layer below to inputs - 2 (Germain et al. 2015, eq. 12; there from 1).
    Hidden layers see what is below with ``>=``, the output, whose degrees are those of the input,
    with ``>`` (``strict=True``).

    Args:
        inputs: number of inputs, at least 1.
        hidden: units of each hidden layer.
        order: "natural", or "random": a permutation, drawn anew at each call.
        generator: of torch, or None for its default one.

    Returns:
        int64 tensors: of the input, then of each hidden layer.

    Raises:
        TypeError, ValueError: an option has another type or is out of range.

    Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation", sec. 3, 4.
    """
    inputs = checks.check_number(_MADE, "inputs", inputs, minimum=1, integer=True)
    checks.check_option(_MADE, "order", order, ORDERS)
    degrees = [torch.arange(inputs)]
    if order == "random":
        device = "cpu" if generator is None else generator.device
        degrees = [torch.randperm(inputs, generator=generator, device=device)]
    for units in hidden:
        units = checks.check_number(_MADE, "hidden", units, minimum=1, integer=True)
        degrees.append(_hidden(degrees[-1], units, inputs - 2, generator))
    return degrees


class MaskedLinear(nn.Linear):
    """`genkern.masked_linear` as an nn.Linear: a layer of a MADE.

    The degrees are buffers. They stand in the ``state_dict``, move with the layer, and
    `set_degrees` and `resample` write into them: a compiled graph sees the new ones.

        d = nn.made_degrees(784, [500])
        hidden = nn.MaskedLinear(784, 500, in_degrees=d[0], out_degrees=d[1])
        output = nn.MaskedLinear(500, 784, strict=True, in_degrees=d[1], out_degrees=d[0])
        for batch in batches:                                  # other masks at each step
            order = torch.randperm(784)
            output.set_degrees(hidden.resample(order, highest=782), order)

    Args:
        in_features, out_features, bias, device, dtype: as of nn.Linear.
        strict: whether an output sees inputs of its own degree (False) or only lower ones.
        in_degrees, out_degrees: integers (in_features,) and (out_features,); None: 0, 1, 2, ...

    The weight is drawn as by nn.Linear, with the whole fan-in.

    Shape: (..., in_features) to (..., out_features).

    Raises:
        TypeError, ValueError: an option has another type, or degrees another shape.

    Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation", sec. 3, 4.
    """

    in_degrees: torch.Tensor
    out_degrees: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        strict: bool = False,
        in_degrees: torch.Tensor | None = None,
        out_degrees: torch.Tensor | None = None,
    ) -> None:
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            checks.check_number(_OP, name, value, minimum=1, integer=True)
        checks.check_bool(_OP, "bias", bias)
        checks.check_bool(_OP, "strict", strict)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.strict = strict
        place = self.weight.device
        self.register_buffer("in_degrees", torch.arange(in_features, device=place))
        self.register_buffer("out_degrees", torch.arange(out_features, device=place))
        self.set_degrees(in_degrees, out_degrees)

    def set_degrees(
        self, in_degrees: torch.Tensor | None = None, out_degrees: torch.Tensor | None = None
    ) -> None:
        """Takes other degrees, of one side (None leaves the other as it is) or of both."""
        for name, given in (("in_degrees", in_degrees), ("out_degrees", out_degrees)):
            if given is None:
                continue
            if not isinstance(given, torch.Tensor):
                raise TypeError(f"{_OP}: {name} must be a Tensor; got {type(given).__name__}")
            if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
                raise TypeError(
                    f"{_OP}: {name} must be integers; got {checks.dtype_name(given.dtype)}"
                )
            buffer = getattr(self, name)
            features = "in_features" if name == "in_degrees" else "out_features"
            checks.check_shape(_OP, name, given, buffer.shape, f"({features},)")
            buffer.copy_(given)

    def resample(
        self,
        in_degrees: torch.Tensor | None = None,
        *,
        highest: int,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draws the degrees of a hidden layer anew, uniformly from the least input degree to
        ``highest`` (of a MADE of D inputs, D - 2), and returns them for the layer above.

        Args:
            in_degrees: of the layer below, where these are new ones too.
            highest: the largest degree.
            generator: of torch, or None for its default one.
        """
        highest = checks.check_number(_OP, "highest", highest, minimum=-1, integer=True)
        self.set_degrees(in_degrees)
        self.set_degrees(None, _hidden(self.in_degrees, self.out_features, highest, generator))
        return self.out_degrees

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return masked_linear(
            input,
            self.weight,
            self.bias,
            in_degrees=self.in_degrees,
            out_degrees=self.out_degrees,
            strict=self.strict,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, strict={self.strict}"
