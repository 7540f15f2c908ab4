"""How each op is computed place by place: a file for each family, one for those of torch."""

from genkern.sampling.record import own_rules
from genkern.sampling.rules import (
    aten,
    channels,
    concat_elu,
    convolution,
    diagonal_lstm,
    gated_activation,
    linear,
    masked_conv2d,
    moves,
    norms,
    pointwise,
    row_lstm,
)

__all__ = [
    "aten",
    "channels",
    "concat_elu",
    "convolution",
    "diagonal_lstm",
    "gated_activation",
    "linear",
    "masked_conv2d",
    "moves",
    "norms",
    "pointwise",
    "row_lstm",
]
own_rules()
