"""Layers of StyleGAN's networks that are compositions: modulated convolution, minibatch stddev."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern.nn import MinibatchStddev, ModulatedConv2d, minibatch_stddev, modulated_conv2d
from tests.upfirdn2d.values import BLUR, defined

F64 = torch.float64


def tensors(N=3, I=4, O=5, k=3, side=6, dtype=F64):  # noqa: E741
    generator = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, dtype=F64, generator=generator).to(dtype)  # noqa: E731
    return draw(N, I, side, side), draw(O, I, k, k), 1 + 0.5 * draw(N, I)


def naive(x, weight, style, *, demodulate=True, up=1, down=1, filter=BLUR):
    """Karras et al. 2020, eq. 1 and 3: a weight (O, I, k, k) of each image; the image is resampled
    before the convolution."""
    found = []
    for image, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        image, k = image[None], weight.shape[-1]
        if up > 1:
            pad = 20  # the zeros around are upsampled too: no border of the convolution is met
            taps = filter.shape[0]
            sides = ((taps + up - 1) // 2 + pad, (taps - up) // 2 + pad) * 2
            image = defined(image, filter=filter, up=up, padding=sides, gain=float(up * up))
            y = F.conv2d(image, w, padding=k // 2)[..., pad:-pad, pad:-pad]
        else:
            wide = F.conv2d(F.pad(image, (9,) * 4), w, padding=k // 2)  # the filter comes behind
            taps = filter.shape[0]
            side = image.shape[-1]
            y = wide[..., 9 : 9 + side, 9 : 9 + side]
            if down > 1:
                before = (taps - down + 1) // 2
                y = defined(wide, filter=filter, padding=0)[..., 9 - before :, 9 - before :]
                y = y[..., :side:down, :side:down]
        found.append(y)
    return torch.cat(found)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}])
@pytest.mark.parametrize("demodulate", [True, False])
def test_the_weight_of_each_image_is_never_made(k, resampling, demodulate):
    inputs = tensors(k=k)
    got = modulated_conv2d(*inputs, demodulate=demodulate, filter=BLUR.double(), **resampling)
    want = naive(*inputs, demodulate=demodulate, **resampling)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}])
def test_both_orders_of_a_modulated_convolution(resampling):
    inputs = [t.requires_grad_() for t in tensors(2, 2, 3, 3, 4)]
    call = lambda *t: modulated_conv2d(*t, filter=BLUR.double(), **resampling)  # noqa: E731
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


def test_a_path_length_step_through_a_modulated_convolution_equals_the_naive_one():
    x, weight, style = tensors(2, 3, 4, 3, 4)
    found = []
    for function in (modulated_conv2d, naive):
        w, s = weight.clone().requires_grad_(), style.clone().requires_grad_()
        y = function(x, w, s)
        (g,) = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel(), dtype=F64).view(y.shape))
                                   .sum(), s, create_graph=True)  # fmt: skip
        penalty = genkern.gradient_penalty(g, target=0.5)
        found.append((penalty, *torch.autograd.grad(penalty, (w, s))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)


def test_half_precision_neither_overflows_nor_loses_small_styles():
    x, weight, style = tensors(2, 64, 8, 3, 4, torch.float32)
    for scale in (1e4, 1e-4):
        got = modulated_conv2d(x.half(), weight.half(), (style * scale).half())
        want = modulated_conv2d(x, weight, style * scale, eps=0.0)
        assert got.dtype == torch.float16
        torch.testing.assert_close(got.float(), want, rtol=0.01, atol=0.01)


def test_the_layer_has_the_variance_of_its_input():
    torch.manual_seed(0)
    layer = ModulatedConv2d(32, 16, 3, style_dim=7)
    y = layer(torch.randn(8, 32, 12, 12), torch.randn(8, 7))
    assert abs(y[..., 1:-1, 1:-1].std().item() - 1) < 0.05
    assert "(16, 32, 3, 3), demodulate=True" in repr(layer)
    other = copy.deepcopy(layer)
    other.load_state_dict(layer.state_dict())
    x, z = torch.randn(2, 32, 4, 4), torch.randn(2, 7)
    assert torch.equal(layer(x, z), other(x, z))
    assert ModulatedConv2d(4, 5, 1, up=2)(*tensors(dtype=torch.float32)[::2]).shape == (
        3,
        5,
        12,
        12,
    )


def plainly(x, group, channels):
    """For each image: over its group, of every channel and pixel alone."""
    N, C = x.shape[:2]
    step, found = N // group, []
    for n in range(N):
        members = x[n % step :: step]
        for f in range(channels):
            part = members[:, f * C // channels : (f + 1) * C // channels]
            mean = part.sum(0) / group
            variance = sum((m - mean) ** 2 for m in part) / group
            found.append((variance + 1e-8).sqrt().mean())
    planes = torch.stack(found).view(N, channels, 1, 1).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], 1)


@pytest.mark.parametrize("N, group, channels", [(6, 3, 1), (4, 4, 2), (2, 4, 1), (4, 1, 4)])
def test_minibatch_stddev_and_both_orders(N, group, channels):
    x = torch.randn(N, 4, 2, 3, dtype=F64, requires_grad=True)
    call = lambda x: minibatch_stddev(x, group_size=group, channels=channels)  # noqa: E731
    torch.testing.assert_close(call(x), plainly(x, min(group, N), channels))
    if group > 1:  # alone an image has no deviation, and its derivative is 0
        assert torch.autograd.gradcheck(call, [x], fast_mode=True)
        assert torch.autograd.gradgradcheck(call, [x], fast_mode=True)


def test_equal_images_have_derivatives_of_zero():
    for dtype in (torch.float32, torch.float16):
        x = torch.ones(4, 2, 3, 3, dtype=dtype, requires_grad=True)
        y = MinibatchStddev()(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y[:, 2:], torch.full_like(y[:, 2:], 1e-4), rtol=1e-3, atol=0.0)
        (g,) = torch.autograd.grad(y[:, 2:].sum(), x, create_graph=True)
        assert torch.equal(g, torch.zeros_like(x))
        (h,) = torch.autograd.grad(g.sum(), x)
        assert h.isfinite().all()


def test_errors_of_the_compositions_name_the_argument():
    x, w, s = tensors(dtype=torch.float32)
    for call, text in (
        (lambda: modulated_conv2d(x, w[..., :2], s), r"weight must have shape .* an odd k; got"),
        (lambda: modulated_conv2d(x, w, s[:, :2]), r"style must have shape input.shape\[:2\]"),
        (lambda: modulated_conv2d(x, w, s, up=2, down=2), "down must be 1 where up is 2; got 2"),
        (lambda: modulated_conv2d(x[0], w, s), r"input must have shape \(N, I, H, W\)"),
        (lambda: minibatch_stddev(x, group_size=2), "group_size must divide the batch = 3; got 2"),
        (lambda: minibatch_stddev(x, channels=3), r"channels must divide input.shape\[1\] = 4"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    for call, error, text in (
        (
            lambda: modulated_conv2d(x, w.double(), s),
            RuntimeError,
            "weight must be float32 like",
        ),
        (
            lambda: modulated_conv2d(x, w, s.half()),
            RuntimeError,
            "style must be float32 like input",
        ),
        (lambda: modulated_conv2d(x, w, [1.0]), TypeError, "style must be a Tensor; got list"),
        (lambda: modulated_conv2d(x, w, s, filter=1.0), TypeError, "filter must be a Tensor"),
        (lambda: modulated_conv2d(x, w, s, filter=x[0, 0]), ValueError, r"filter .*\(taps,\)"),
        (lambda: modulated_conv2d(x, w, s, filter=x[0, 0, :0]), ValueError, "filter .*elements"),
        (lambda: modulated_conv2d(x, w, s, eps=-1.0), ValueError, "eps must be at least 0.0"),
    ):
        with pytest.raises(error, match=f"^modulated_conv2d: {text}"):
            call()
    assert math.isfinite(minibatch_stddev(x, group_size=3).sum().item())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kernel_size": 2}, "kernel_size must be odd"),
        ({"kernel_size": 3, "up": 2, "down": 2}, "up or down must be 1"),
        ({"taps": [1, -1]}, "sum that is not 0"),
        ({"taps": []}, "sum that is not 0"),
        ({"taps": [1, math.inf]}, "a finite sum"),
        ({"taps": "1331"}, "taps must be a list of numbers; got '1331'"),
        ({"taps": 4}, "taps must be a list of numbers; got 4"),
        ({"style_dim": 0}, "style_dim must be at least 1; got 0"),
        ({"style_dim": 2.0}, "style_dim must be an integer; got 2.0"),
        ({"up": 2.0}, "up must be an integer; got 2.0"),
        ({"down": 10**6}, r"down must be in \[1, 65535\]; got 1000000"),
        ({"eps": "a"}, "eps must be a number; got 'a'"),
    ],
)
def test_a_layer_that_cannot_work_is_refused(given, text):
    with pytest.raises((TypeError, ValueError), match=f"ModulatedConv2d: .*{text}"):
        ModulatedConv2d(3, 4, **{"kernel_size": 3, **given})
