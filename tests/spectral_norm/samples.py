"""What the shared tests need of spectral_norm."""

import functools

import torch
from torch import nn

import genkern
from genkern.nn import SpectralNorm
from tests.core.samples import Module, Peak, Sample, Samples, forward_backward, leaves
from tests.spectral_norm import values
from tests.spectral_norm.values import check, defined, scaled, vectors

FLOAT = 4  # bytes


def sample(name, *shape, dim=0):
    u, v = vectors(shape, dim, torch.float64)

    def placed(w):
        return {"u": u.to(w), "v": v.to(w), "dim": dim}

    return Sample(
        name,
        lambda w: scaled(w, **placed(w)),
        lambda w: defined(w, **placed(w)),
        lambda normal: [normal(*shape).abs()],
        functools.partial(check, u=u, v=v, dim=dim),
    )


SMALL = [
    sample("a matrix", 5, 7),
    sample("a convolution", 4, 3, 2, 2),
    sample("a transposed convolution", 3, 4, 2, 2, dim=1),
]
LARGE = [
    sample("a convolution", 67, 33, 3, 3),
    sample("long rows", 3, 40_001),
    sample("short rows", 5000, 3),
    sample("a transposed convolution", 65, 34, 4, 4, dim=1),
]


def peaks():
    (w,) = leaves((64, 32, 3, 3))
    u, v = vectors(w.shape, 0, torch.float32)
    size, small = w.numel() * FLOAT, 2**12
    call = functools.partial(scaled, u=u, v=v)
    return [
        Peak("the result", lambda: call(w), size, size + small),
        Peak(
            "and the gradient",  # the expanded gradient is copied
            forward_backward(call, w), 2 * size, 3 * size + small,
        ),
    ]  # fmt: skip


W, U, V = torch.ones(2, 3), torch.ones(2), torch.ones(3)


def call(w=W, u=U, v=V, **options):
    return genkern.spectral_norm([w], [u], [v], **options)


ERRORS = [
    (lambda: genkern.spectral_norm(W, [U], [V]), TypeError,
     "spectral_norm: weights must be a list of Tensors; got Tensor"),
    (lambda: genkern.spectral_norm([W], [], [V]), ValueError,
     "spectral_norm: u must have as many tensors as weights = 1; got 0"),
    (lambda: call([1.0]), TypeError, r"spectral_norm: weights\[0\] must be a Tensor; got list"),
    (lambda: call(W.int()), TypeError,
     r"spectral_norm: weights\[0\] must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: call(W[0]), ValueError,
     r"spectral_norm: weights\[0\] must have two or more dimensions; got \(3,\)"),
    (lambda: call(u=V), ValueError,
     r"spectral_norm: u\[0\] must have shape \(rows,\) = \(2,\); got \(3,\)"),
    (lambda: call(v=V.double()), RuntimeError,
     r"spectral_norm: v\[0\] must be float32 like weights\[0\]; got float64"),
    (lambda: call(dim=2), ValueError, r"spectral_norm: dim must be in \[0, 1\]; got 2"),
    (lambda: call(dim=[0, 1]), ValueError,
     "spectral_norm: dim must be one number, or one a weight; got 2"),
    (lambda: genkern.spectral_norm_step([W], [U], [V], steps=-1), ValueError,
     "spectral_norm_step: steps must be at least 0; got -1"),
    (lambda: genkern.spectral_norm_step([W], [U], [U]), ValueError,
     r"spectral_norm_step: v\[0\] must have shape \(columns,\) = \(3,\); got \(2,\)"),
    (lambda: SpectralNorm(nn.ReLU()), ValueError,
     "SpectralNorm: module must have a weight of two or more dimensions; got ReLU"),
    (lambda: SpectralNorm(nn.Linear(2, 2), layers=["a"]), ValueError,
     "SpectralNorm: layers must name layers with a weight of two or more dimensions; got 'a'"),
    (lambda: SpectralNorm(nn.Linear(2, 2), layers=[]), ValueError,
     r"SpectralNorm: layers must name a layer, or be None for all; got \[\]"),
    (lambda: SpectralNorm(nn.Linear(2, 2), layers="conv"), TypeError,
     "SpectralNorm: layers must be a list of names, or None for all; got 'conv'"),
    (lambda: SpectralNorm(nn.Linear(2, 2), n_power_iterations=-1), ValueError,
     "SpectralNorm: n_power_iterations must be at least 0; got -1"),
]  # fmt: skip

SAMPLES = Samples(
    samples=SMALL,
    large=LARGE,
    everywhere=[
        values.test_values_and_gradients_match_the_float64_reference,
        values.test_steps_match_the_float64_reference,
    ],
    autocast="loss",
    errors=ERRORS,
    peaks=peaks,
    modules=[
        Module(
            lambda: SpectralNorm(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 1))),
            lambda normal: normal(2, 2, 3, 3),
            "n_power_iterations=1, eps=1e-12",
        )
    ],
)
