"""Chances of every level of a colour under a mixture of discretized logistics."""

import torch
import torch.nn.functional as F

_library = torch.library.Library("genkern", "FRAGMENT")
_library.define("sampler_chances(Tensor params, Tensor known, int levels, int colours) -> Tensor")


def chances_of(
    params: torch.Tensor, known: torch.Tensor, levels: int, colours: int
) -> torch.Tensor:
    """Of the colour after those that are known, (rows, levels).

    Args:
        params: (rows, 3K), or (rows, 10K) for 3 ``colours``; float32 or float64.
        known: integers (rows, c), the first colours of each row.
    """
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    if params.is_cpu and has_kernel("genkern::sampler_chances", "CPU"):
        return torch.ops.genkern.sampler_chances(
            params.detach().contiguous(), known.contiguous(), levels, colours
        )
    return in_torch(params.double(), known, levels, colours).to(params.dtype)


def in_torch(params: torch.Tensor, known: torch.Tensor, levels: int, colours: int) -> torch.Tensor:
    """The definition: `chances_of` of any device."""
    joint, *rest = params.unflatten(1, (3 if colours == 1 else 10, -1)).unbind(1)
    each, count = len(rest) // colours, known.shape[1]
    for c in range(count + 1):
        mean, log_scale = rest[each * c : each * c + 2]
        for before in range(c):  # green has coefficient 0, blue has 1 and 2
            x = known[:, before : before + 1].to(mean) * (2 / (levels - 1)) - 1
            mean = mean + torch.tanh(rest[each * (before + max(0, c - 1)) + 2]) * x
        logs = _logs(mean, log_scale, levels)
        if c < count:
            at = known[:, c, None, None].expand(-1, joint.shape[1], 1)
            joint = joint + logs.gather(2, at)[:, :, 0]
    return (joint.softmax(1)[:, :, None] * logs.exp()).sum(1)


def _logs(mean: torch.Tensor, log_scale: torch.Tensor, levels: int) -> torch.Tensor:
    """log P of every level under single logistics (rows, K): (rows, K, levels)."""
    half, every = 1 / (levels - 1), torch.arange(levels - 1).to(mean)
    inverse = (-log_scale.clamp(min=-7.0)).exp()[..., None]
    ends = inverse * ((2 * every + 1) * half - 1 - mean[..., None])
    inside = torch.log(-torch.expm1(-2 * half * inverse)).expand(*mean.shape, levels - 2)
    up, down = F.logsigmoid(ends), F.logsigmoid(-ends)
    return F.pad(up, (0, 1)) + F.pad(down, (1, 0)) + F.pad(inside, (1, 1))
