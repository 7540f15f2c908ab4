"""Minibatch standard deviation: what a discriminator sees of the variety of a batch."""

import torch
from torch import nn

from genkern import checks

_OP = "minibatch_stddev"


def minibatch_stddev(
    input: torch.Tensor, *, group_size: int = 4, channels: int = 1, eps: float = 1e-8
) -> torch.Tensor:
    r"""The images with further channels: standard deviations over groups of the batch.

    .. math:: \sigma_{mf} = \frac{1}{|f| H W} \sum_{c \in f, h, w}
        \sqrt{\mathrm{var}_g\, x_{gmchw} + \epsilon}

    Equivalent for one channel to ``x.view(G, -1, *x.shape[1:]).var(0, correction=0).add(eps)
    .sqrt().mean((1, 2, 3))``, repeated for every image of the group and every pixel. Images m, m +
    N/G, m + 2 N/G, ... are a group. A composition of torch's operations, in float32 for half.

    Args:
        input: (N, C, H, W), floating point.
        group_size: G; a batch smaller than it is one group. It divides the batch.
        channels: into so many groups of channels the input is cut; it divides C.
        eps: added to the variance: where all images of a group are equal, every derivative is 0,
            not NaN.

    Returns:
        (N, C + channels, H, W), dtype of ``input``.

    Raises:
        TypeError: ``input`` is no dense floating-point tensor, or an option no number.
        ValueError: ``input`` has another shape; an option is out of range or divides nothing.

    Differentiable any number of times.
    Source: Karras et al. 2018, "Progressive growing of GANs", sec. 3.
    """
    checks.check_tensor(_OP, "input", input)
    if input.ndim != 4:
        raise ValueError(f"{_OP}: input must have shape (N, C, H, W); got {tuple(input.shape)}")
    N, C, H, W = input.shape
    group = checks.check_number(_OP, "group_size", group_size, minimum=1, integer=True)
    channels = checks.check_number(_OP, "channels", channels, minimum=1, integer=True)
    eps = checks.check_number(_OP, "eps", eps, minimum=0.0)
    group = min(group, max(1, N))
    for name, value, whole, text in (
        ("group_size", group, N, "the batch"),
        ("channels", channels, C, "input.shape[1]"),
    ):
        if whole % value:
            raise ValueError(f"{_OP}: {name} must divide {text} = {whole}; got {value}")
    x = input.float() if input.dtype in checks.HALF else input
    x = x.reshape(group, N // group, channels, C // channels, H, W)
    deviation = (x.var(0, correction=0) + eps).sqrt().mean((2, 3, 4))
    found = deviation.to(input.dtype).repeat(group, 1)[:, :, None, None].expand(-1, -1, H, W)
    return torch.cat([input, found], 1)


class MinibatchStddev(nn.Module):
    """`minibatch_stddev` as a layer.

    Args:
        group_size, channels, eps: as in `minibatch_stddev`.

    Raises:
        TypeError, ValueError: an option is no number, or out of range.
    """

    def __init__(self, group_size: int = 4, channels: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        op = "MinibatchStddev"
        self.group_size = checks.check_number(op, "group_size", group_size, minimum=1, integer=True)
        self.channels = checks.check_number(op, "channels", channels, minimum=1, integer=True)
        self.eps = checks.check_number(op, "eps", eps, minimum=0.0)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        options = {"group_size": self.group_size, "channels": self.channels}
        return minibatch_stddev(input, **options, eps=self.eps)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, channels={self.channels}"
