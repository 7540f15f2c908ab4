"""What `bias_act` means, in plain PyTorch."""

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


def forward(
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    act: str = "linear",
    alpha: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    dim: int = 1,
) -> torch.Tensor:
    """input of any shape, bias (input.shape[dim],)."""
    if bias is not None:
        shape = [1] * input.ndim
        shape[dim] = -1
        input = input + bias.view(shape)
    y = ACTIVATIONS[act](input, alpha) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)
