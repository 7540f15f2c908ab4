"""What the shared tests need of norm_act."""

import functools

import torch

import genkern
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.norm_act import values
from tests.norm_act.values import calls, check

FLOAT = 4  # bytes


def sample(name, shape, rows=None, last=False, **options):
    def inputs(normal):
        x = normal(*shape)
        affine = [None, None] if rows is None else [normal(*rows), normal(*rows)]
        return [x.to(memory_format=torch.channels_last) if last else x, *affine]

    function, definition = calls(**options)
    weights = () if rows is None else (1, 2)
    check_it = functools.partial(check, **options)
    return Sample(name, function, definition, inputs, check_it, weights=weights)


RUNNING = (torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.3, 2.0, 1.0]))
SMALL = [
    sample("classes", (3, 3, 2, 3), (2, 3), over_batch=True, labels=torch.tensor([1, 0, 1]),
           act="swish"),
    sample("styles", (2, 3, 3, 2), (2, 3), act="lrelu"),
    sample("classes by running statistics", (2, 3, 2, 3), (2, 3), over_batch=True,
           labels=torch.tensor([1, 1]), running=RUNNING, act="gelu"),
    sample("channels last, one map", (2, 3, 3, 2), (3,), last=True, act="tanh"),
    sample("no map", (4, 3), over_batch=True, eps=1e-3),
]  # fmt: skip
LARGE = [
    sample("planes", (9, 17, 17, 31), (9, 17), act="lrelu"),
    sample("long planes", (2, 2, 9001), (2,), act="sigmoid"),
    sample("classes of many images", (40, 13, 5, 7), (4, 13), over_batch=True, act="relu",
           labels=torch.arange(40) * 7 % 4),
    sample("channels last", (5, 66, 9, 11), (66,), last=True, over_batch=True, act="elu"),
    sample("two values", (2, 1), over_batch=True, act="relu"),
]  # fmt: skip


def peaks():
    x, w, b = leaves((2, 32, 64, 48), (2, 32), (2, 32))
    image, small = x.numel() * FLOAT, 2**11
    call = functools.partial(genkern.instance_norm_act, act="lrelu")
    return [
        Peak("the result", lambda: call(x, w, b), image, image + small),
        Peak(
            "and the gradients",  # statistics are saved; the expanded gradient is copied
            forward_backward(call, x, w, b), 2 * image, 3 * image + small,
        ),
    ]  # fmt: skip


X, W, L = torch.ones(2, 3, 4, 4), torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
M = torch.ones(3)
norm = genkern.instance_norm_act
batch = functools.partial(genkern.conditional_batch_norm, training=True)
ERRORS = [
    (lambda: norm([1.0]), TypeError, "instance_norm_act: input must be a Tensor; got list"),
    (lambda: norm(X, W.double()), RuntimeError,
     "instance_norm_act: weight must be float32 like input; got float64"),
    (lambda: norm(X, W[:, :2]), ValueError,
     r"instance_norm_act: weight must have shape \(C,\) = \(3,\) or \(N, C\) = \(2, 3\); got "),
    (lambda: norm(X[:, 0, :, 0]), ValueError,
     r"instance_norm_act: input must have shape \(N, C, \.\.\.\) with a dimension behind C; got "),
    (lambda: norm(X[:, :, :1, :1]), ValueError,
     "instance_norm_act: input must have more than 1 value for each channel of each image; got"),
    (lambda: norm(X, act="leaky"), ValueError, "instance_norm_act: act must be one of 'linear'"),
    (lambda: norm(X, eps=-1.0), ValueError, "instance_norm_act: eps must be at least 0.0; got -1"),
    (lambda: norm(X, alpha="a"), TypeError, "instance_norm_act: alpha must be a number; got 'a'"),
    (lambda: batch(X, L + 2, W, W, M, M), ValueError,
     r"conditional_batch_norm: labels must be in \[0, 1\]; got 2"),
    (lambda: batch(X, L.float(), W, W, M, M), TypeError,
     "conditional_batch_norm: labels must be one of uint8, int16, int32, int64; got float32"),
    (lambda: batch(X, L[:1], W, W, M, M), ValueError,
     r"conditional_batch_norm: labels must have shape \(N,\) = \(2,\); got \(1,\)"),
    (lambda: batch(X, L, W, M, M, M), ValueError,
     r"conditional_batch_norm: bias must have shape \(classes, C\) = \(2, 3\); got \(3,\)"),
    (lambda: batch(X, L, None, None, M, M), ValueError,
     "conditional_batch_norm: labels must be None without weight and bias; got Tensor"),
    (lambda: batch(X, L, W, W, M, None), ValueError,
     "conditional_batch_norm: running_mean and running_var must both be given, or neither in "),
    (lambda: batch(X, L, W, W, M[:2], M), ValueError,
     r"conditional_batch_norm: running_mean must have shape \(C,\) = \(3,\); got \(2,\)"),
    (lambda: batch(X[:1, :, :1, :1], L[:1], W, W, M, M), ValueError,
     "conditional_batch_norm: input must have more than 1 value for each channel in training; got"),
    (lambda: batch(X, L, W, W, M, M, momentum=2.0), ValueError,
     r"conditional_batch_norm: momentum must be in \[0.0, 1.0\]; got 2.0"),
    (lambda: batch(X, L, W, W, M, M, training=1), TypeError,
     "conditional_batch_norm: training must be a bool; got 1"),
    (lambda: genkern.nn.InstanceNormAct(3)(X, W), ValueError,
     "InstanceNormAct: style must be None without style_features; got Tensor"),
    (lambda: genkern.nn.InstanceNormAct(3, style_features=2)(X, [1.0]), TypeError,
     "InstanceNormAct: style must be a Tensor; got list"),
    (lambda: genkern.nn.InstanceNormAct(3, style_features=2)(X, W), ValueError,
     r"InstanceNormAct: style must have shape \(N, style_features\) = \(2, 2\); got \(2, 3\)"),
    (lambda: genkern.nn.InstanceNormAct(3, style_features=3)(X, W.double()), RuntimeError,
     "InstanceNormAct: style must be float32 like input; got float64"),
    (lambda: genkern.nn.InstanceNormAct(3, act="rleu"), ValueError,
     "InstanceNormAct: act must be one of 'linear', .*did you mean 'relu'"),
    (lambda: genkern.nn.InstanceNormAct(3, eps=-1.0), ValueError,
     "InstanceNormAct: eps must be at least 0.0; got -1.0"),
    (lambda: genkern.nn.InstanceNormAct(3, alpha="a"), TypeError,
     "InstanceNormAct: alpha must be a number; got 'a'"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 2)(torch.randn(2, 3, 4, 4), None), TypeError,
     "ConditionalBatchNorm2d: labels must be a Tensor; got NoneType"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 0), ValueError,
     "ConditionalBatchNorm2d: num_classes must be at least 1; got 0"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 2, momentum=None), TypeError,
     "ConditionalBatchNorm2d: momentum must be a number; got NoneType"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 2, momentum=1.5), ValueError,
     r"ConditionalBatchNorm2d: momentum must be in \[0.0, 1.0\]; got 1.5"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 2, eps=float("nan")), ValueError,
     "ConditionalBatchNorm2d: eps must be at least 0.0; got nan"),
    (lambda: genkern.nn.ConditionalBatchNorm2d(3, 2, act=torch.relu), TypeError,
     "ConditionalBatchNorm2d: act must be one of 'linear'"),
]  # fmt: skip


class Classes(torch.nn.Module):
    """The module on fixed labels."""

    def __init__(self):
        super().__init__()
        self.layer = genkern.nn.ConditionalBatchNorm2d(3, 4, act="relu")

    def forward(self, input):
        return self.layer(input, torch.arange(len(input)) % 4)


MODULES = [
    Module(Classes, lambda normal: normal(5, 3, 2, 4), "3, 4, eps=1e-05, momentum=0.1, act='relu'"),
    Module(
        lambda: genkern.nn.InstanceNormAct(3, affine=True, act="lrelu"),
        lambda normal: normal(2, 3, 4, 4), "3, eps=1e-05, act='lrelu', alpha=0.2",
    ),
]  # fmt: skip
SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_gradients_match_the_float64_reference,
        values.test_sizes_around_the_chunks,
    ],
    autocast="product",
    errors=ERRORS,
    peaks=peaks,
    modules=MODULES,
)
