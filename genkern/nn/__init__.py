"""Modules: parameters and options only; the maths is in the ops."""

from genkern.nn.diagonal_lstm import DiagonalBiLSTM
from genkern.nn.gan_loss import GANLoss
from genkern.nn.gaussian import GaussianLatent
from genkern.nn.masked_conv2d import MaskedConv2d, contiguous_colours
from genkern.nn.masked_linear import MaskedLinear, made_degrees
from genkern.nn.norm_act import ConditionalBatchNorm2d, InstanceNormAct
from genkern.nn.row_lstm import RowLSTM

__all__ = [
    "ConditionalBatchNorm2d",
    "DiagonalBiLSTM",
    "GANLoss",
    "GaussianLatent",
    "InstanceNormAct",
    "MaskedConv2d",
    "MaskedLinear",
    "RowLSTM",
    "contiguous_colours",
    "made_degrees",
]
