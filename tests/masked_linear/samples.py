"""What the shared tests need of masked_linear."""

import torch

import genkern
from genkern import nn
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.masked_linear import values
from tests.masked_linear.values import check, fused, integers, plain

FLOAT = 4  # bytes


def sample(name, lead, I, O, strict=False, bias=True, far=1):  # noqa: E741
    torch.manual_seed(7)
    degrees = far * integers((I,), -2, I // 2 + 1), far * integers((O,), -2, I // 2 + 1)

    def inputs(normal):
        return [normal(*lead, I), normal(O, I), normal(O) if bias else None]

    def verify(inputs, upstream):
        check(inputs, upstream, degrees, strict)

    return Sample(
        name, fused(degrees, strict), plain(degrees, strict), inputs, verify, weights=(1, 2)
    )


SMALL = [
    sample("a batch", (3,), 7, 5),
    sample("strict, no bias", (2, 3), 6, 9, strict=True, bias=False),
    sample("alone, degrees far apart", (), 5, 4, far=10**12),
]
LARGE = [
    sample("many outputs", (37,), 60, 530),
    sample("many inputs", (100,), 530, 60, strict=True),
    sample("a long batch", (13, 41), 33, 35),
    sample("one row", (1,), 300, 200),
]


def peaks():
    x, w, b = leaves((64, 256), (512, 256), (512,))
    y, weight = 64 * 512 * FLOAT, w.numel() * FLOAT
    call = fused((torch.arange(256), integers((512,), 0, 256)), False)
    # Beside the results: panels of x and the sums before they are turned, a block of the weight.
    panels, block = 64 * 256 * FLOAT, 2 * (1 << 17) * FLOAT
    return [
        Peak("forward", lambda: call(x, w, b), y, 2 * y + panels + block),
        Peak(
            "and the gradients", forward_backward(call, x, w, b),
            y + weight, 3 * y + 4 * panels + weight + 2 * block,
        ),
    ]  # fmt: skip


X, WEIGHT, IN, OUT = torch.ones(2, 3), torch.ones(5, 3), torch.arange(3), torch.arange(5)


def call(input=X, weight=WEIGHT, bias=None, in_degrees=IN, out_degrees=OUT, **rest):
    options = {"in_degrees": in_degrees, "out_degrees": out_degrees, **rest}
    return genkern.masked_linear(input, weight, bias, **options)


ERRORS = [
    (lambda: call([1.0]), TypeError, "masked_linear: input must be a Tensor; got list"),
    (lambda: call(X.int()), TypeError,
     "masked_linear: input must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(weight=WEIGHT.double()), RuntimeError,
     "masked_linear: weight must be float32 like input; got float64"),
    (lambda: call(bias=torch.ones(5).to("meta")), RuntimeError,
     "masked_linear: bias must be on cpu like input; got meta"),
    (lambda: call(weight=WEIGHT[0]), ValueError,
     r"masked_linear: weight must have shape \(O, I\); got \(3,\)"),
    (lambda: call(X[:, :2]), ValueError,
     r"masked_linear: input must have shape \(..., weight.shape\[1\]\) = \(..., 3\); got \(2, 2\)"),
    (lambda: call(X[0, 0]), ValueError, r"masked_linear: input must have shape .*; got \(\)"),
    (lambda: call(bias=torch.ones(4)), ValueError,
     r"masked_linear: bias must have shape \(weight.shape\[0\],\) = \(5,\); got \(4,\)"),
    (lambda: call(in_degrees=OUT), ValueError,
     r"masked_linear: in_degrees must have shape \(weight.shape\[1\],\) = \(3,\); got \(5,\)"),
    (lambda: call(out_degrees=OUT[:, None]), ValueError,
     r"out_degrees must have shape \(weight.shape\[0\],\) = \(5,\); got \(5, 1\)"),
    (lambda: call(in_degrees=[0, 1, 2]), TypeError,
     "masked_linear: in_degrees must be a Tensor; got list"),
    (lambda: call(out_degrees=OUT.float()), TypeError,
     "masked_linear: out_degrees must be one of int64, int32, int16, int8, uint8; got float32"),
    (lambda: call(out_degrees=OUT > 2), TypeError, "out_degrees must be one of .*; got bool"),
    (lambda: call(in_degrees=IN.to_sparse()), TypeError,
     "in_degrees must be a dense Tensor; got torch.sparse_coo"),
    (lambda: call(in_degrees=IN.to("meta")), RuntimeError,
     "masked_linear: in_degrees must be on cpu like input; got meta"),
    (lambda: call(strict=1), TypeError, "masked_linear: strict must be a bool; got 1"),
    (lambda: genkern.masked_linear(X, WEIGHT), TypeError, "in_degrees"),
    (lambda: nn.MaskedLinear(3, 0), ValueError,
     "MaskedLinear: out_features must be at least 1; got 0"),
    (lambda: nn.MaskedLinear(3, 2, in_degrees=OUT), ValueError,
     r"MaskedLinear: in_degrees must have shape \(in_features,\) = \(3,\); got \(5,\)"),
    (lambda: nn.MaskedLinear(3, 2, out_degrees=torch.ones(2)), TypeError,
     "MaskedLinear: out_degrees must be integers; got float32"),
    (lambda: nn.MaskedLinear(3, 2).resample(highest=1.5), TypeError,
     "MaskedLinear: highest must be an integer; got 1.5"),
    (lambda: nn.made_degrees(0, []), ValueError, "made_degrees: inputs must be at least 1; got 0"),
    (lambda: nn.made_degrees(4, [0]), ValueError, "made_degrees: hidden must be at least 1; got 0"),
    (lambda: nn.made_degrees(4, [3], order="randm"), ValueError,
     r"order must be one of 'natural', 'random'; got 'randm' \(did you mean 'random'\?\)"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_every_gradient_match_the_float64_reference,
        values.test_integers_are_exact,
        values.test_blocks_of_rows_and_batch,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: nn.MaskedLinear(4, 3, strict=True, out_degrees=torch.tensor([0, 3, 2])),
            lambda normal: normal(2, 4),
            "in_features=4, out_features=3, bias=True, strict=True",
        )
    ],
)
