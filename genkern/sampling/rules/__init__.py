"""How each op is computed place by place: a file for each family, one for those of torch."""

from genkern.sampling.rules import aten, concat_elu, gated_activation, masked_conv2d

__all__ = ["aten", "concat_elu", "gated_activation", "masked_conv2d"]
