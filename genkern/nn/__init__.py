"""Modules: parameters and options only; the maths is in the ops."""

from genkern.nn.diagonal_lstm import DiagonalBiLSTM
from genkern.nn.gan_loss import GANLoss, GANStatistics
from genkern.nn.gaussian import GaussianLatent
from genkern.nn.gradient_penalty import GradientPenalty, input_gradient
from genkern.nn.masked_conv2d import MaskedConv2d, contiguous_colours
from genkern.nn.masked_linear import MaskedLinear, made_degrees
from genkern.nn.minibatch_stddev import MinibatchStddev, minibatch_stddev
from genkern.nn.norm_act import ConditionalBatchNorm2d, InstanceNormAct
from genkern.nn.row_lstm import RowLSTM
from genkern.nn.spectral_norm import SpectralNorm
from genkern.nn.upfirdn2d import ModulatedConv2d, modulated_conv2d

__all__ = [
    "ConditionalBatchNorm2d",
    "DiagonalBiLSTM",
    "GANLoss",
    "GANStatistics",
    "GaussianLatent",
    "GradientPenalty",
    "InstanceNormAct",
    "MaskedConv2d",
    "MaskedLinear",
    "MinibatchStddev",
    "ModulatedConv2d",
    "RowLSTM",
    "SpectralNorm",
    "contiguous_colours",
    "input_gradient",
    "made_degrees",
    "minibatch_stddev",
    "modulated_conv2d",
]
