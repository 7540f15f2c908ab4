"""The filtered activation against its published composition: upsample, activate, downsample.

Eager filters each channel alone: a transposed convolution with ``groups=C`` for the zeros between
the pixels, and a convolution of stride ``down``. "penalty" is a whole step of a gradient penalty:
forward, the gradient of the input, and backward through that gradient; torch.compile has none.

Equivalent library call: none.
"""

import functools
import math

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import filtered_act as reference

FUNCTIONS = {"lrelu": lambda z: F.leaky_relu(z, 0.2), "swish": F.silu}


def kaiser(taps: int) -> torch.Tensor:
    """A low-pass filter of half the band, as StyleGAN3's layers have."""
    n = torch.arange(taps) - (taps - 1) / 2
    f = torch.sinc(n / 2) * torch.kaiser_window(taps, periodic=False, beta=6.0)
    return f / f.sum()


def per_channel(f, C, x):
    """A separable filter for each channel: its two convolutions' weights."""
    f = f.to(x)
    return f[None, None, :, None].expand(C, 1, -1, 1), f[None, None, None, :].expand(C, 1, 1, -1)


def eager(input, bias, *, up_filter, down_filter, up, down, padding, act, gain, clamp):
    C, taps = input.shape[1], up_filter.shape[0]
    x = input + bias[:, None, None]
    rows, columns = per_channel(up_filter, C, x)
    x = F.conv_transpose2d(x, rows * up, stride=(up, 1), groups=C)
    x = F.conv_transpose2d(x, columns * up, stride=(1, up), groups=C)
    left, right, top, bottom = padding  # of the full convolution taps - 1 stand before the image
    x = F.pad(x, (left - taps + 1, right - taps + up, top - taps + 1, bottom - taps + up))
    x = FUNCTIONS[act](x) * gain
    x = x if clamp is None else x.clamp(-clamp, clamp)
    rows, columns = per_channel(down_filter.flip(0), C, x)
    x = F.conv2d(x, rows, stride=(down, 1), groups=C)
    return F.conv2d(x, columns, stride=(1, down), groups=C)


def defined(input, bias, *, up_filter, down_filter, up, down, padding, act, gain, clamp):
    filters = up_filter.double(), down_filter.double()
    return reference.forward(input, bias, *filters, up, down, padding, act, 0.2, gain, clamp)


def fused(input, bias, *, up_filter, down_filter, **options):
    filters = {"up_filter": up_filter.to(input.device), "down_filter": down_filter.to(input.device)}
    return genkern.filtered_act(input, bias, **filters, **options)


def penalised(function):
    """From the arguments to the gradient of the input: what a penalty differentiates again."""

    def gradient(upstream, input, bias):
        x = input if input.requires_grad else input.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(x, bias), x, upstream, create_graph=True)
        return found

    return gradient


def act_case(N, C, side, *, taps=12, act="lrelu", clamp=None, penalty=False, **rest) -> Case:
    pad = (taps - 1, taps - 2)
    options = {"up_filter": kaiser(taps), "down_filter": kaiser(taps), "up": 2, "down": 2,
               "padding": pad * 2, "act": act, "gain": math.sqrt(2), "clamp": clamp}  # fmt: skip
    ours, theirs, exact = (functools.partial(f, **options) for f in (fused, eager, defined))
    shape = (N, C, side, side)
    if penalty:
        ours, theirs, exact = map(penalised, (ours, theirs, exact))
        rest |= {"phases": ("forward_backward",), "compiled_phases": ()}
        if act == "lrelu":
            rest["constants"] = frozenset({"input", "bias"})
    given = {"upstream": shape} if penalty else {}
    given |= {"input": shape, "bias": (C,)}
    words = [act, f"{taps} taps", *(["clamp"] if clamp else []), *(["penalty"] if penalty else [])]
    size, terms = float(N * C * side**2), 2 * taps**2
    work = 2 * size * (4 * taps / 2 + 2 * taps / 2 + 2 * taps + taps)
    return Case(
        family="filtered_act",
        op="filtered_act",
        shape=f"N{N} {C} {side}x{side} {' '.join(words)}",
        inputs=lambda: {name: torch.randn(s) for name, s in given.items()},
        genkern=ours,
        eager=theirs,
        reference=exact,
        outputs=("gradient",) if penalty else ("output",),
        flops=(work, 1.5 * work),
        elements=(2.0 * size, 3.0 * size),
        terms={"output": terms, "d_input": terms, "d_bias": terms + N * side**2,
               "gradient": terms, "d_upstream": terms},
        roundings=4,
        **rest,
    )  # fmt: skip


def cases() -> list[Case]:
    target, shape = {"forward_backward": Target(3)}, (16, 64, 32)
    return [
        act_case(*shape, targets=target, quick=True),
        act_case(*shape, clamp=256.0),
        act_case(*shape, act="swish"),
        act_case(*shape, taps=6),
        act_case(4, 32, 128),
        act_case(*shape, penalty=True),
        act_case(*shape, act="swish", penalty=True),
        act_case(1, 2, 4, taps=2, overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {"side": [(s, act_case(4, 64, s)) for s in (8, 16, 32, 64)]}
