"""Modulated convolution of StyleGAN2: a convolution whose weight each image scales for itself."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from genkern import checks
from genkern.ops.upfirdn2d import upfirdn2d

_OP, _MODULE = "modulated_conv2d", "ModulatedConv2d"
BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def _convolve(x: torch.Tensor, weight: torch.Tensor, filter, up: int, down: int) -> torch.Tensor:
    """The convolution of the image, of the one behind up - 1 zeros, or of every down-th pixel."""
    k = weight.shape[-1]
    if up == 1 and down == 1:
        return F.conv2d(x, weight, padding=k // 2)
    taps = filter.shape[0]
    if down > 1:
        before, behind = k // 2 + (taps - down + 1) // 2, k // 2 + (taps - down) // 2
        return F.conv2d(upfirdn2d(x, filter, padding=(before, behind) * 2), weight, stride=down)
    # A filter of each channel and a convolution commute, and this one skips the zeros.
    y = F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=up)
    before = (taps + up - 1) // 2 - k // 2  # of (H - 1) up + k rows H up are left
    behind = up - k + taps - 1 - before
    return upfirdn2d(y, filter, padding=(before, behind) * 2, gain=float(up * up))


def _check(input, weight, style, up, down) -> None:
    if input.ndim != 4:
        raise ValueError(f"{_OP}: input must have shape (N, I, H, W); got {tuple(input.shape)}")
    channels = input.shape[1]
    k = weight.shape[-1] if weight.ndim == 4 else 0
    if weight.ndim != 4 or weight.shape[1:] != (channels, k, k) or k % 2 == 0:
        text = f"{_OP}: weight must have shape (O, input.shape[1], k, k) with an odd k"
        raise ValueError(f"{text}; got {tuple(weight.shape)}")
    checks.check_shape(_OP, "style", style, input.shape[:2], "input.shape[:2]")
    if up > 1 and down > 1:
        raise ValueError(f"{_OP}: down must be 1 where up is {up}; got {down}")


def modulated_conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    down: int = 1,
    filter: torch.Tensor | None = None,
    eps: float = 1e-8,
) -> torch.Tensor:
    r"""Convolution of each image with a weight of its own, ``weight`` times its style.

    .. math:: y_{no} = d_{no} \sum_i w_{oi} * (s_{ni} x_{ni}), \quad
        d_{no} = \Big(\sum_i s_{ni}^2 \sum_k w_{oik}^2 + \epsilon\Big)^{-1/2}

    Equivalent to a grouped convolution with the weights ``w = weight * style[:, None, :, None,
    None]``, divided by their norms, (N, O, I, k, k) of them; here the images are scaled instead,
    before and behind one convolution, and the norms are one product (N, I) x (I, O). A composition
    of torch's operations: what it costs beside the convolution is two passes over images.

    Args:
        input: (N, I, H, W), floating point.
        weight: (O, I, k, k), k odd; zero "same" padding.
        style: (N, I).
        demodulate: whether d is applied; without it d = 1.
        up: the image becomes so many times as large: zeros, the full convolution (k - 1 pixels
            more, so that nothing is lost at the border), and then ``filter``, which crops it.
        down: of the filtered image every so many-th pixel is convolved. One of both is 1.
        filter: (K,), separable, of the resampling; None for the binomial (1, 3, 3, 1) / 8.
        eps: added to the squared norm.

    Returns:
        (N, O, H up / down, W up / down).

    Raises:
        TypeError: an argument is not a dense floating-point tensor, or an option has another type.
        ValueError: shapes do not fit, ``filter`` has another one or requires grad, a number is out
            of range, or both ``up`` and ``down`` are above 1.
        RuntimeError: dtypes (outside of autocast) or devices differ.

    Differentiable any number of times. In half precision the norms are formed in float32, and
    demodulated styles are divided by their largest one, so that no scaled image overflows.
    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", sec. 2.2.
    """
    tensors = {"input": input, "weight": weight, "style": style}
    for name, tensor in tensors.items():
        checks.check_tensor(_OP, name, tensor)
    if checks.autocast_dtype(input) is None:  # which casts what the convolution takes
        checks.admit(_OP, checks.PRODUCT, tensors)
    checks.check_bool(_OP, "demodulate", demodulate)
    up, down = checks.check_factor(_OP, "up", up), checks.check_factor(_OP, "down", down)
    _check(input, weight, style, up, down)
    if filter is None and (up > 1 or down > 1):
        filter = torch.tensor(BINOMIAL, device=input.device) / sum(BINOMIAL)
    if filter is not None:
        filter = checks.check_filter(_OP, "filter", filter, input)
        if filter.ndim != 1:
            shape = tuple(filter.shape)
            raise ValueError(f"{_OP}: filter must have shape (taps,); got {shape}")
    eps = checks.check_number(_OP, "eps", eps, minimum=0.0)
    factor, exact = None, torch.promote_types(torch.float32, style.dtype)
    if demodulate:
        s, squares = style.to(exact), weight.to(exact).square().sum((2, 3))
        factor = (s.square() @ squares.T + eps).rsqrt()
        if input.dtype in checks.HALF:
            largest = s.abs().amax(1, keepdim=True).clamp(min=torch.finfo(exact).tiny).detach()
            style, factor = s / largest, factor * largest
    y = _convolve(input * style.to(input.dtype)[:, :, None, None], weight, filter, up, down)
    return y if factor is None else y * factor.to(y.dtype)[:, :, None, None]


def _filter_of(taps: Sequence[float]) -> torch.Tensor:
    """The taps, over their sum."""
    try:
        found = [checks.check_number(_MODULE, "taps", t, minimum=-math.inf) for t in taps]
    except TypeError:
        raise TypeError(f"{_MODULE}: taps must be a list of numbers; got {taps!r}") from None
    if not found or not sum(found) or not math.isfinite(sum(found)):
        raise ValueError(
            f"{_MODULE}: taps must be numbers with a finite sum that is not 0; got {taps!r}"
        )
    return torch.tensor(found) / sum(found)


class ModulatedConv2d(nn.Module):
    r"""`modulated_conv2d` with a weight, a bias-free layer of StyleGAN2's synthesis network.

    The weight is drawn from N(0, 1) and divided by sqrt(I k^2) at each call, as all of that
    network's are (equalised learning rate).

    Args:
        in_channels, out_channels, kernel_size: of the convolution; an odd kernel.
        style_dim: features of the latent code; an affine layer, 1 at first, makes the style of it.
            None: `forward` takes the style itself.
        demodulate, up, down, eps: as in `modulated_conv2d`.
        taps: of the separable filter, made to sum to 1.

    Shape: (N, in_channels, H, W) and (N, style_dim) to (N, out_channels, H up / down, W up / down).

    Raises:
        TypeError, ValueError: an option has another type or is out of range.

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", sec. 2.2.
    """

    filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        style_dim: int | None = None,
        demodulate: bool = True,
        up: int = 1,
        down: int = 1,
        taps: Sequence[float] = BINOMIAL,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels}
        for name, value in {**sizes, "kernel_size": kernel_size}.items():
            checks.check_number(_MODULE, name, value, minimum=1, integer=True)
        up, down = (
            checks.check_factor(_MODULE, name, value)
            for name, value in (("up", up), ("down", down))
        )
        checks.check_bool(_MODULE, "demodulate", demodulate)
        if kernel_size % 2 == 0:
            raise ValueError(f"{_MODULE}: kernel_size must be odd; got {kernel_size}")
        if up > 1 and down > 1:
            raise ValueError(f"{_MODULE}: up or down must be 1; got {up} and {down}")
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.affine = None
        if style_dim is not None:
            checks.check_number(_MODULE, "style_dim", style_dim, minimum=1, integer=True)
            self.affine = nn.Linear(style_dim, in_channels)
            nn.init.ones_(self.affine.bias)
        self.register_buffer("filter", _filter_of(taps), persistent=False)
        self.demodulate, self.up, self.down = demodulate, up, down
        self.eps = checks.check_number(_MODULE, "eps", eps, minimum=0.0)

    def forward(self, input: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return modulated_conv2d(
            input,
            self.weight * self.scale,
            style if self.affine is None else self.affine(style),
            demodulate=self.demodulate,
            up=self.up,
            down=self.down,
            filter=self.filter,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        shape = tuple(self.weight.shape)
        return f"{shape}, demodulate={self.demodulate}, up={self.up}, down={self.down}"
