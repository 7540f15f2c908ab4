"""Activations by name, in the order that kernels number them in."""

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "linear": lambda z, alpha: z,
    "relu": lambda z, alpha: torch.relu(z),
    "lrelu": lambda z, alpha: F.leaky_relu(z, alpha),
    "tanh": lambda z, alpha: torch.tanh(z),
    "sigmoid": lambda z, alpha: torch.sigmoid(z),
    "elu": lambda z, alpha: F.elu(z),
    "selu": lambda z, alpha: F.selu(z),
    "softplus": lambda z, alpha: -F.logsigmoid(-z),  # F.softplus is the identity above 20
    "swish": lambda z, alpha: F.silu(z),
    "gelu": lambda z, alpha: F.gelu(z),
}
