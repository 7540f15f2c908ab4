"""Normalisation with an activation: by image with a style, by batch with a class."""

import torch
from torch import distributed, nn

from genkern import checks
from genkern.ops.norm_act import check_options, conditional_batch_norm, instance_norm_act


class InstanceNormAct(nn.Module):
    """`genkern.instance_norm_act`; with ``style_features``, the affine map of AdaIN.

    Args:
        num_features: C.
        style_features: length of a style, which a linear layer takes to a scale around 1 and a
            shift of each channel; None: no style.
        affine: without a style, learn a scale and a shift of each channel.
        eps, act, alpha: as of `genkern.instance_norm_act`.

    Shape: (N, C, ...), and the style (N, style_features), to (N, C, ...).

    Raises:
        TypeError, ValueError: a size is no positive integer, an option is unknown or out of range,
            or a style is missing, not wanted or of another shape.

    Source: Huang and Belongie 2017, "Arbitrary style transfer", eq. 8; Karras et al. 2019, sec. 2.
    """

    def __init__(
        self,
        num_features: int,
        *,
        style_features: int | None = None,
        affine: bool = False,
        eps: float = 1e-5,
        act: str = "linear",
        alpha: float = 0.2,
    ) -> None:
        super().__init__()
        op = "InstanceNormAct"
        checks.check_number(op, "num_features", num_features, minimum=1, integer=True)
        checks.check_bool(op, "affine", affine)
        _, self.alpha, self.eps = check_options(op, act, alpha, eps)
        self.num_features, self.act = num_features, act
        self.to_affine: nn.Linear | None = None
        if style_features is not None:
            checks.check_number(op, "style_features", style_features, minimum=1, integer=True)
            self.to_affine = nn.Linear(style_features, 2 * num_features)
        learned = affine and style_features is None
        self.weight = nn.Parameter(torch.ones(num_features)) if learned else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if learned else None

    def forward(self, input: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        if (style is None) != (self.to_affine is None):
            want = "None without style_features" if self.to_affine is None else "a Tensor"
            raise ValueError(f"InstanceNormAct: style must be {want}; got {type(style).__name__}")
        weight, bias = self.weight, self.bias
        if self.to_affine is not None and style is not None:
            self._check(input, style, self.to_affine)
            scale, bias = self.to_affine(style).chunk(2, dim=1)
            weight = 1 + scale
        return instance_norm_act(input, weight, bias, eps=self.eps, act=self.act, alpha=self.alpha)

    @staticmethod
    def _check(input: torch.Tensor, style: torch.Tensor, layer: nn.Linear) -> None:
        """A style of each image, that the linear layer takes."""
        op, tensors = "InstanceNormAct", {"input": input, "style": style}
        checks.admit(op, checks.PRODUCT, tensors | {"to_affine.weight": layer.weight})
        shape = (*input.shape[:1], layer.in_features)
        checks.check_shape(op, "style", style, shape, "(N, style_features)")

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, act={self.act!r}, alpha={self.alpha}"


class _Sum(torch.autograd.Function):
    """The sum over all processes. What the processes' losses add up to is differentiated."""

    @staticmethod
    def forward(ctx, values):
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, upstream):
        return _Sum.apply(upstream)


def _global_moments(input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count, mean and variance (over the count) of each channel, over all processes.

    One collective: each process puts its own into a row of a matrix of zeros, and they are added.
    """
    x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
    C, count = x.shape[1], x.numel() // x.shape[1]
    variance, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
    row = torch.cat([x.new_full((1,), count), mean, count * variance])
    place = torch.zeros(distributed.get_world_size(), 1, dtype=x.dtype, device=x.device)
    place[distributed.get_rank()] = 1
    counts, means, squares = _Sum.apply(place * row).split([1, C, C], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    squares = squares.sum(0) + (counts * (means - mean).square()).sum(0)
    return total, mean, squares / total


class ConditionalBatchNorm2d(nn.Module):
    """`genkern.conditional_batch_norm` with its running statistics.

    Args:
        num_features: C; num_classes: rows of the affine maps, which begin as 1 and 0.
        eps, momentum, act, alpha: as of `genkern.conditional_batch_norm`.
        sync: in training, statistics of the batches of all processes (torch.distributed), as
            SyncBatchNorm: all of them must call the layer, and differentiate it as often. It takes
            a pass over the input more than the statistics of one process.

    Shape: input (N, C, H, W) and integer labels (N,) to (N, C, H, W).

    Raises:
        TypeError, ValueError: a size is no positive integer, or an option is unknown, out of range
            or of another kind.

    Source: Dumoulin et al. 2017, "A learned representation for artistic style", eq. 5; Miyato and
    Koyama 2018, "cGANs with projection discriminator", sec. 5.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        act: str = "linear",
        alpha: float = 0.2,
        sync: bool = False,
    ) -> None:
        super().__init__()
        op = "ConditionalBatchNorm2d"
        for name, value in (("num_features", num_features), ("num_classes", num_classes)):
            checks.check_number(op, name, value, minimum=1, integer=True)
        checks.check_bool(op, "sync", sync)
        self.num_features, self.num_classes = num_features, num_classes
        _, self.alpha, self.eps = check_options(op, act, alpha, eps)
        self.momentum = checks.check_number(op, "momentum", momentum, minimum=0.0, maximum=1.0)
        self.act, self.sync = act, sync
        self.weight = nn.Parameter(torch.ones(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes, num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, input: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not isinstance(labels, torch.Tensor):
            got = type(labels).__name__
            raise TypeError(f"ConditionalBatchNorm2d: labels must be a Tensor; got {got}")
        synchronised = self.training and self.sync and distributed.is_initialized()
        if synchronised and distributed.get_world_size() > 1:
            return self._synchronised(input, labels)
        output, mean, variance = conditional_batch_norm(
            input, labels, self.weight, self.bias, self.running_mean, self.running_var,
            training=self.training, momentum=self.momentum, eps=self.eps, act=self.act,
            alpha=self.alpha,
        )  # fmt: skip
        if self.training and mean is not None and variance is not None:
            with torch.no_grad():
                self.running_mean.copy_(mean)
                self.running_var.copy_(variance)
        return output

    def _synchronised(self, input: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The statistics as constants of the op, and what depends on them in the affine map."""
        count, mean, variance = _global_moments(input)
        weight = self.weight[labels] * torch.rsqrt(variance + self.eps)
        bias = self.bias[labels] - weight * (mean - mean.detach())
        output, _, _ = conditional_batch_norm(
            input, torch.arange(len(labels), device=input.device), weight.to(input.dtype),
            bias.to(input.dtype), mean.detach(), torch.ones_like(mean), training=False, eps=0.0,
            act=self.act, alpha=self.alpha,
        )  # fmt: skip
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, {self.num_classes}, eps={self.eps}, momentum={self.momentum}, "
            f"act={self.act!r}, alpha={self.alpha}, sync={self.sync}"
        )
