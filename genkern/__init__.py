"""genkern: fused kernels for generative models on PyTorch."""

from genkern import metrics, nn, sampling, testing
from genkern.library import last_backend, use_backend
from genkern.ops.bias_act import bias_act
from genkern.ops.concat_elu import concat_elu
from genkern.ops.diagonal_lstm import diagonal_lstm
from genkern.ops.discretized_logistic_mixture import (
    discretized_logistic_mixture_nll,
    discretized_logistic_mixture_sample,
)
from genkern.ops.filtered_act import filtered_act
from genkern.ops.gan_loss import gan_d_loss, gan_g_loss
from genkern.ops.gated_activation import gated_activation
from genkern.ops.gaussian import (
    gaussian_kl,
    gaussian_kl_rsample,
    gaussian_rsample,
    gaussian_rsample_and_log_prob,
)
from genkern.ops.gradient_penalty import gradient_penalty
from genkern.ops.likelihoods import (
    bernoulli_nll,
    discretized_logistic_nll,
    gaussian_nll,
    gaussian_optimal_logvar,
)
from genkern.ops.masked_conv2d import masked_conv2d
from genkern.ops.masked_linear import masked_linear
from genkern.ops.norm_act import conditional_batch_norm, instance_norm_act
from genkern.ops.pixel_cross_entropy import pixel_cross_entropy
from genkern.ops.row_lstm import row_lstm, row_lstm_step
from genkern.ops.spectral_norm import spectral_norm, spectral_norm_step
from genkern.ops.upfirdn2d import upfirdn2d

__version__ = "0.1.0"

__all__ = [
    "bernoulli_nll",
    "bias_act",
    "concat_elu",
    "conditional_batch_norm",
    "diagonal_lstm",
    "discretized_logistic_mixture_nll",
    "discretized_logistic_mixture_sample",
    "discretized_logistic_nll",
    "filtered_act",
    "gan_d_loss",
    "gan_g_loss",
    "gated_activation",
    "gaussian_kl",
    "gaussian_kl_rsample",
    "gaussian_nll",
    "gaussian_optimal_logvar",
    "gaussian_rsample",
    "gaussian_rsample_and_log_prob",
    "gradient_penalty",
    "instance_norm_act",
    "last_backend",
    "masked_conv2d",
    "masked_linear",
    "metrics",
    "nn",
    "pixel_cross_entropy",
    "row_lstm",
    "row_lstm_step",
    "sampling",
    "spectral_norm",
    "spectral_norm_step",
    "testing",
    "upfirdn2d",
    "use_backend",
]
