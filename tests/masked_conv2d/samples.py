"""What the shared tests need of masked_conv2d."""

import torch

import genkern
from genkern import nn
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.masked_conv2d import test_forms, values
from tests.masked_conv2d.values import check, fused, plain

FLOAT = 4  # bytes
SLACK = 2**16  # alignment and rounding of scratch


def sample(name, shape, C_out, kernel, mask_type="B", groups=1, dilation=1, bias=True, last=False,
           parts=1):  # fmt: skip
    settings = {
        "mask_type": mask_type, "data_channels": groups, "dilation": dilation, "parts": parts,
    }  # fmt: skip

    def inputs(normal):
        image = normal(*shape)
        if last:
            image = image.to(memory_format=torch.channels_last)
        weight = normal(C_out, shape[1], *kernel)
        return [image, weight, normal(C_out) if bias else None]

    return Sample(
        name,
        fused(settings),
        plain(settings),
        inputs,
        lambda inputs, upstream: check(
            fused(settings), plain(settings), inputs, upstream[0], settings
        ),
        weights=(1, 2),
    )


SMALL = [
    sample("A", (2, 3, 5, 6), 4, (3, 3), "A"),
    sample("B, colours", (3, 9, 5, 11), 18, (3, 3), groups=2),
    sample("channels last, dilated", (2, 4, 5, 6), 6, (3, 5), dilation=2, bias=False, last=True),
    sample("1x1", (2, 4, 5, 6), 3, (1, 1)),
    sample("left, colours in two parts", (2, 3, 5, 6), 8, (2, 3), "left", 2, parts=2),
]
LARGE = [
    sample("colours, 5x5", (3, 20, 17, 19), 35, (5, 5)),
    sample("one channel, 7x7", (1, 1, 40, 301), 17, (7, 7)),
    sample("groups of images", (9, 6, 8, 8), 9, (3, 3), groups=3),
    sample("A, 5x5, colours", (2, 17, 6, 19), 35, (5, 5), "A", 3),
    sample("A, 7x7", (1, 1, 9, 29), 9, (7, 7), "A"),
    sample("one channel, parts", (5, 1, 19, 23), 20, (3, 5), "A"),
    sample("dilated", (2, 9, 5, 18), 17, (3, 3), "B", 2, 2),
    sample("channels last", (2, 8, 4, 17), 33, (3, 3), last=True),
    sample("1x1", (2, 32, 4, 16), 40, (1, 1)),
    sample("65 channels", (2, 65, 3, 35), 31, (2, 3), "A"),
    sample("even kernel", (1, 3, 2, 140), 3, (4, 4), "B", 3),
    sample("rows", (2, 9, 9, 30), 34, (2, 3), "rows"),
    sample("rows above", (2, 33, 9, 13), 9, (3, 5), "rows_above", 1, 2),
    sample("left", (3, 17, 7, 20), 66, (1, 4), "left", 3, parts=2),
    sample("left before", (1, 3, 12, 40), 20, (2, 2), "left_before"),
]


def peaks():
    found = []
    for k in (1, 3, 7):
        x, w = leaves((2, 8, 256, 256), (8, 8, k, k))
        y, weight = x.numel() * FLOAT, w.numel() * FLOAT
        image = y * (256 + k - 1) / 256  # a padded copy; im2col would be k^2 / 2 images
        forward = lambda x=x, w=w: genkern.masked_conv2d(x, w)  # noqa: E731
        both = forward_backward(genkern.masked_conv2d, x, w)
        found += [
            Peak(f"{k}x{k}", forward, y, y + image + weight + SLACK),
            Peak(f"{k}x{k}, gradients", both, 0, 2 * y + 2 * image + 4 * weight + SLACK),
        ]
    return found


X, WEIGHT = torch.ones(2, 3, 4, 4), torch.ones(5, 3, 3, 3)
call = genkern.masked_conv2d
ERRORS = [
    (lambda: call([1.0], WEIGHT), TypeError, "masked_conv2d: input must be a Tensor; got list"),
    (lambda: call(X, None), TypeError, "masked_conv2d: weight must be a Tensor; got NoneType"),
    (lambda: call(X.int(), WEIGHT), TypeError,
     "masked_conv2d: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(torch.ones(2, 3), WEIGHT), ValueError,
     r"masked_conv2d: input must have shape \(N, C, H, W\) or \(C, H, W\); got \(2, 3\)"),
    (lambda: call(X, WEIGHT.double()), RuntimeError,
     "masked_conv2d: weight must be float32 like input; got float64"),
    (lambda: call(X, WEIGHT.to("meta")), RuntimeError,
     "masked_conv2d: weight must be on cpu like input; got meta"),
    (lambda: call(X[:, :1], WEIGHT), ValueError,
     r"weight.shape\[1\] must equal the channels of input = 1; got weight \(5, 3, 3, 3\)"),
    (lambda: call(X, WEIGHT[0]), ValueError,
     r"weight must have shape \(C_out, C_in, kh, kw\) with .*; got \(3, 3, 3\)"),
    (lambda: call(X, WEIGHT[:, :, :0]), ValueError, r"at least 1; got \(5, 3, 0, 3\)"),
    (lambda: call(X, WEIGHT[:0]), ValueError, r"at least 1; got \(0, 3, 3, 3\)"),
    (lambda: call(X, WEIGHT, torch.ones(4)), ValueError,
     r"bias must have shape \(weight.shape\[0\],\) = \(5,\); got \(4,\)"),
    (lambda: call(X, WEIGHT, mask_type="row"), ValueError,
     "must be one of 'A', 'B', 'rows', .*, 'left_before'; got 'row' .did you mean 'rows'"),
    (lambda: call(X, WEIGHT, mask_type="rows", data_channels=3), ValueError,
     "data_channels must be 1 for mask_type 'rows', whose taps see all colours of a pixel; got 3"),
    (lambda: call(X, WEIGHT, parts=2), ValueError,
     "parts must divide the output channels = 5; got 2"),
    (lambda: call(X, WEIGHT, parts=0), ValueError, "parts must be at least 1; got 0"),
    (lambda: call(X, WEIGHT, parts=5, data_channels=2), ValueError,
     r"data_channels must be in \[1, 1\]; got 2"),
    (lambda: call(X, WEIGHT, window=3), TypeError,
     r"window must be a pair \(rows, columns\); got 3"),
    (lambda: call(X, WEIGHT, window=((0, 1), 2)), TypeError,
     r"window columns must be a slice of step 1 or a pair \(start, stop\); got 2"),
    (lambda: call(X, WEIGHT, window=(slice(0, 4, 2), (0, 1))), TypeError, "window rows must be"),
    (lambda: call(X, WEIGHT, window=((0, 5), (0, 1))), ValueError,
     r"window rows stop must be in \[0, 4\]; got 5"),
    (lambda: call(X, WEIGHT, window=((0, 1), (3, 2))), ValueError,
     r"window columns stop must be in \[3, 4\]; got 2"),
    (lambda: call(X, WEIGHT, window=(slice(-1, None), slice(None))), ValueError,
     r"window rows start must be in \[0, 4\]; got -1"),
    (lambda: call(X, WEIGHT, window=((0, 1.0), (0, 1))), TypeError,
     "window rows stop must be an integer; got 1.0"),
    (lambda: call(X, WEIGHT.clone().requires_grad_(), window=((0, 1), (0, 1))), ValueError,
     r"window must be None where a gradient is needed .*; got .* and weight that requires grad"),
    (lambda: call(X, WEIGHT, data_channels=4), ValueError,
     r"data_channels must be in \[1, 3\]; got 4"),
    (lambda: call(X, WEIGHT, data_channels=1.5), TypeError, "data_channels must be an integer"),
    (lambda: call(X, WEIGHT, dilation=0), ValueError, "dilation must be at least 1; got 0"),
    (lambda: call(X, WEIGHT, padding=1), TypeError, "padding"),
    (lambda: nn.MaskedConv2d(2, 3, 3, mask_type="C"), ValueError, "must be one of 'A', 'B'"),
    (lambda: nn.MaskedConv2d(2, 3, 3, mask_type="left_before", data_channels=2), ValueError,
     "MaskedConv2d: data_channels must be 1 for mask_type 'left_before'"),
    (lambda: nn.MaskedConv2d(2, 3, 3, parts=2), ValueError,
     "MaskedConv2d: parts must divide the output channels = 3; got 2"),
    (lambda: nn.contiguous_colours(WEIGHT, 4), ValueError,
     r"contiguous_colours: data_channels must be in \[1, 3\]; got 4"),
    (lambda: nn.contiguous_colours(WEIGHT, 2, parts=2), ValueError,
     "contiguous_colours: parts must divide the channels = 5; got 2"),
    (lambda: nn.contiguous_colours(torch.ones(10), 4), ValueError,
     "must divide the channels = 10 if there are more than 3; got 4"),
    (lambda: nn.contiguous_colours([1.0], 3), TypeError,
     "contiguous_colours: tensor must be a Tensor; got list"),
    (lambda: nn.MaskedConv2d(3, 2, 3, data_channels=3), ValueError,
     r"MaskedConv2d: data_channels must be in \[1, 2\]; got 3"),
    (lambda: nn.MaskedConv2d(3, 2, (3, 0)), ValueError, "kernel_size must be at least 1; got 0"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_every_gradient_match_the_float64_reference,
        values.test_integers_are_exact,
        values.test_each_pixel_reaches_exactly_the_later_ones_that_the_mask_allows,
        values.test_masked_taps_are_never_read_and_get_no_gradient,
        values.test_a_pixel_that_no_tap_meets_stays_out_of_the_gradients,
        test_forms.test_a_window_has_the_bits_of_the_whole_output,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: nn.MaskedConv2d(2, 5, (3, 1), dilation=2, bias=False),
            lambda normal: normal(1, 2, 4, 4),
            "2, 5, kernel_size=(3, 1)",
        ),
        Module(
            lambda: nn.MaskedConv2d(2, 5, 3, mask_type="A"), lambda normal: normal(2, 4, 4),
            "mask_type='A'",
        ),
        Module(
            lambda: nn.MaskedConv2d(2, 4, (2, 3), mask_type="left", data_channels=2, parts=2),
            lambda normal: normal(1, 2, 4, 4),
            "mask_type='left', data_channels=2, dilation=1, bias=True, parts=2",
        ),
    ],
)  # fmt: skip
