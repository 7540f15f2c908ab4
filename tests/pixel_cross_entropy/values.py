"""pixel_cross_entropy."""

from functools import partial

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

import genkern
from genkern.reference import pixel_cross_entropy as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, seeds, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def fused(target, **options):
    """The op with its constants bound: a function of features, weight and bias."""

    def call(features, weight=None, bias=None):
        here = target.to(features.device)
        return genkern.pixel_cross_entropy(features, here, weight, bias, **options)

    return call


def plain(target, *, data_channels=1, masked=False, reduction="none"):
    def call(features, weight=None, bias=None):
        if features.ndim == 5:
            features = features.transpose(1, 2)
        weight = weight if weight is None else weight.flatten(1)
        nats = reference.forward(features, target.to(features.device), weight, bias, masked)
        return {"none": lambda: nats, "sum": nats.sum, "mean": nats.mean}[reduction]()

    return call


def logits_of(features, weight, bias, colours, masked):
    """(N, colours, levels, H, W)"""
    if weight is not None:
        return reference.logits_of(features, colours, weight.flatten(1), bias, masked)
    return features.transpose(1, 2) if features.ndim == 5 else features.unflatten(1, (colours, -1))


def scales(inputs, target, upstream, masked):
    """Sizes of what is rounded, for the nats and each gradient.

    An error of a logit moves the nats by at most itself; a probability changes by p times the
    error of its logit and the mean error.
    """
    colours = target.shape[1]
    with torch.enable_grad():
        leaves = [x if x is None else x.abs().requires_grad_() for x in inputs]
        size = logits_of(*leaves, colours, masked)
    logits = logits_of(*inputs, colours, masked)
    p, mean = logits.softmax(2), (logits.softmax(2) * size.detach()).sum(2, keepdim=True)
    is_target = torch.zeros_like(p).scatter_(2, target.long()[:, :, None], 1.0)
    of_target = (is_target * size.detach()).sum(2, keepdim=True)
    nats = -(logits.log_softmax(2) * is_target).sum(2, keepdim=True)
    of_nats = (mean + of_target + nats + 1).sum((1, 2, 3, 4))
    slopes = p * (1 + size.detach() + mean) + is_target
    slopes = slopes * upstream.abs().view(-1, 1, 1, 1, 1)
    wanted = [x for x in leaves if x is not None]
    found = iter(torch.autograd.grad(size, wanted, slopes))
    return of_nats, [None if x is None else next(found) for x in leaves]


def of_each_image(upstream, N, reduction):
    if reduction == "none":
        return upstream
    return (upstream / max(N, 1) if reduction == "mean" else upstream).expand(N)


def check(inputs, upstream, target, *, function=None, definition=None, **options):
    """Values and gradients of ``function`` against the float64 definition."""
    inputs = [*inputs, None, None][:3]
    function = function or fused(target, **options)
    definition = definition or plain(target, **options)
    (got,), got_grads = run(function, inputs, upstream)
    (want,), want_grads = run(definition, double(inputs), double(upstream))
    masked, reduction = options.get("masked", False), options.get("reduction", "none")
    each = of_each_image(upstream[0].double(), target.shape[0], reduction)
    scale, grad_scales = scales(double(inputs), target, each, masked)
    scale = scale.mean() if reduction == "mean" else scale.sum() if reduction == "sum" else scale
    features, weight, _ = inputs
    K = 1 if weight is None else weight.shape[1] + 1
    rows = 1 if weight is None else weight.shape[0]
    pixels = target[:, 0].numel()
    assert got.dtype == features.dtype
    assert_close(got, want, terms=K, scale=scale, name="nats")
    for i, (name, terms) in enumerate(
        (("d_features", K + rows), ("d_weight", K + pixels), ("d_bias", K + pixels))
    ):
        if got_grads[i] is not None:
            assert got_grads[i].dtype == features.dtype
            assert_close(got_grads[i], want_grads[i], terms=terms, scale=grad_scales[i], name=name)


def integers(levels, shape, dtype=torch.int64, seed=0):
    """Targets; uint8 holds no more than 256 levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, shape, generator=generator, device="cpu").to(
        torch.get_default_device(), dtype
    )


@st.composite
def problems(draw, with_head):
    """Inputs, upstream gradient, targets, options."""
    N, H, W = draw(sizes(3)), draw(sizes(5)), draw(st.one_of(sizes(7), st.sampled_from([16, 37])))
    colours, levels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7, 8, 9, 17, 70]))
    dtype, kind = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(INTEGERS))
    target = integers(levels, (N, colours, H, W), kind, draw(seeds))
    scale = draw(st.sampled_from([1.0, 1e-2, 10.0]))
    options = {"data_channels": colours}
    if with_head:
        K = draw(st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 35])))
        inputs = [
            draw(tensors((N, K, H, W), dtype, scale)),
            draw(tensors((colours * levels, K), dtype)),
            draw(st.one_of(st.none(), tensors((colours * levels,), dtype))),
        ]
        options["masked"] = draw(st.booleans())
    elif draw(st.booleans()):
        inputs = [draw(tensors((N, levels, colours, H, W), dtype, scale))]
    else:
        inputs = [draw(tensors((N, colours * levels, H, W), dtype, scale))]
    return inputs, [draw(tensors((N,), dtype))], target, options


@given(problems(with_head=False))
@examples(1.0)
def test_logits_match_the_float64_reference(problem):
    *arguments, options = problem
    check(*arguments, **options)
    assert genkern.last_backend("pixel_cross_entropy") == backend()


@given(problems(with_head=True))
@examples(1.5)
def test_features_match_the_float64_reference(problem):
    *arguments, options = problem
    check(*arguments, **options)


def test_sizes_around_the_blocks():
    for pixels in (31, 33, 511, 513, 600):
        target = integers(19, (1, 1, 1, pixels))
        check([torch.randn(1, 19, 1, pixels)], [torch.randn(1)], target)
    for K, levels, pixels in ((33, 65, 65), (15, 64, 127), (49, 130, 30)):
        target = integers(levels, (2, 1, 1, pixels))
        inputs = [torch.randn(2, K, 1, pixels), torch.randn(levels, K), torch.randn(levels)]
        check(inputs, [torch.randn(2)], target)


def test_the_same_as_the_cross_entropy_of_torch():
    x, target = torch.randn(2, 3 * 11, 4, 5, requires_grad=True), integers(11, (2, 3, 4, 5))
    of_torch = x.unflatten(1, (3, 11)).transpose(1, 2)
    want = F.cross_entropy(of_torch, target, reduction="none").sum((1, 2, 3))
    for logits in (x, of_torch, of_torch.contiguous()):
        got = genkern.pixel_cross_entropy(logits, target, data_channels=3)
        torch.testing.assert_close(got, want)
        grads = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (got, want))
        torch.testing.assert_close(*grads)


def poisoned_cases():
    """Logits (levels, pixels) with infinities and NaN in many places."""
    x = torch.randn(9, 12)
    x[3, 1], x[:8, 2], x[:, 3], x[0, 4], x[8, 5] = (-torch.inf,) * 5
    x[2, 6], x[8, 7], x[4, 8] = torch.inf, torch.nan, 1e30
    x[:, 9], x[:, 10] = torch.linspace(-3e38, 3e38, 9), -3e38
    return x


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("level", [0, 3, 8])
def test_infinities_and_nan_give_what_torch_gives(dtype, level):
    x = poisoned_cases().to(dtype).view(1, 9, 1, 12).expand(12, 9, 1, 12)
    alone = torch.eye(12, dtype=torch.bool).view(12, 1, 1, 12)  # image i keeps pixel i
    x = torch.where(alone, x, 0.0).requires_grad_()
    target = torch.full((12, 1, 1, 12), level)
    want = F.cross_entropy(x, target[:, 0], reduction="none").sum((1, 2))
    got = genkern.pixel_cross_entropy(x, target)
    torch.testing.assert_close(got, want, equal_nan=True)
    grads = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (got, want)]
    torch.testing.assert_close(*grads, equal_nan=True)


def test_a_level_of_infinite_bias_leaves_the_gradients_finite():
    """As in a model that rules levels out; blocks are filled up with pixels that are none."""
    features, weight = torch.randn(1, 5, 1, 3), torch.randn(6, 5)
    bias = torch.tensor([0.0, -torch.inf, 0.0, 1.0, 0.0, -torch.inf])
    leaves = [t.requires_grad_() for t in (features, weight, bias)]
    target = torch.tensor([0, 2, 3]).view(1, 1, 1, 3)
    nats = genkern.pixel_cross_entropy(features, target, weight, bias)
    grads = torch.autograd.grad(nats.sum(), leaves)
    want = plain(target)(*double(leaves))
    torch.testing.assert_close(nats.double(), want)
    assert all(g.isfinite().all() for g in grads)
    assert not grads[1][bias.isinf()].any()


def test_a_sharp_distribution_keeps_its_digits():
    x = torch.tensor([20000.25, 20000.0, -7.0]).view(1, 3, 1, 1).requires_grad_()
    nats = genkern.pixel_cross_entropy(x, torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    nats.sum().backward()
    p = torch.tensor([0.25, 0.0]).double().softmax(0)
    torch.testing.assert_close(nats.double(), -p[:1].log(), rtol=3e-7, atol=0)
    torch.testing.assert_close(x.grad.flatten()[:2].double(), p - torch.tensor([1.0, 0.0]),
                               rtol=3e-7, atol=0)  # fmt: skip


def dead_blocks(rows, K, colours):
    dead = torch.ones(rows, K, dtype=torch.bool)
    for c, seen in enumerate(reference.seen_features(K, colours, True)):
        dead[c * (rows // colours) : (c + 1) * (rows // colours), :seen] = False
    return dead


def test_what_a_colour_does_not_see_never_leaks_and_gets_no_gradient():
    for K in (3, 7, 35):
        x, weight, bias = torch.randn(2, K, 3, 7), torch.randn(3 * 9, K), torch.randn(27)
        target, dead = integers(9, (2, 3, 3, 7)), dead_blocks(27, K, 3)
        call = partial(genkern.pixel_cross_entropy, data_channels=3, masked=True)
        poisoned = torch.where(dead, torch.nan, weight).requires_grad_()
        got = call(x, target, poisoned, bias)
        assert torch.equal(got, call(x, target, weight, bias))
        (d_weight,) = torch.autograd.grad(got.sum(), poisoned)
        assert (d_weight[dead] == 0).all() and (d_weight[~dead] != 0).any()
        # NaN in all groups but the first: what belongs to the first colour stays as it is.
        end, leaf = reference.seen_features(K, 3, True)[0], weight.clone().requires_grad_()
        late = x.clone()
        late[:, end:] = torch.nan
        found = [torch.autograd.grad(call(f, target, leaf, bias).sum(), leaf)[0] for f in (x, late)]
        assert torch.equal(found[0][:9], found[1][:9]) and found[1][9:, :end].isnan().all()


def test_the_head_is_that_of_a_masked_convolution():
    x, weight, bias = torch.randn(2, 8, 4, 5), torch.randn(3 * 7, 8, 1, 1), torch.randn(21)
    target = integers(7, (2, 3, 4, 5), torch.uint8)
    logits = genkern.masked_conv2d(x, weight, bias, mask_type="B", data_channels=3)
    want = genkern.pixel_cross_entropy(logits, target, data_channels=3)
    got = genkern.pixel_cross_entropy(x, target, weight, bias, data_channels=3, masked=True)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_targets_of_every_integer_dtype_and_stride(dtype):
    x, target = torch.randn(2, 3 * 200, 4, 6), integers(120, (2, 3, 4, 6), dtype)
    want = genkern.pixel_cross_entropy(x, target.long(), data_channels=3)
    for t in (target, target.to(memory_format=torch.channels_last), target.flip(3).flip(3)):
        assert torch.equal(genkern.pixel_cross_entropy(x, t, data_channels=3), want)


def test_reductions_are_over_the_images():
    x, target = torch.randn(3, 5, 2, 2), integers(5, (3, 1, 2, 2))
    nats = genkern.pixel_cross_entropy(x, target)
    assert torch.equal(genkern.pixel_cross_entropy(x, target, reduction="mean"), nats.mean())
    assert torch.equal(genkern.pixel_cross_entropy(x, target, reduction="sum"), nats.sum())


def test_the_gradient_keeps_the_memory_format():
    x = torch.randn(2, 12, 3, 4).to(memory_format=torch.channels_last).requires_grad_()
    target = integers(4, (2, 3, 3, 4))
    genkern.pixel_cross_entropy(x, target, data_channels=3).sum().backward()
    assert x.grad.stride() == x.stride()


def of_the_first_level(target, **options):
    return plain(torch.zeros_like(target), **options)


def interleaved(target, data_channels, **options):
    def call(features, weight, bias):
        order = torch.arange(len(weight)).view(-1, data_channels).T.flatten()
        return plain(target, data_channels=data_channels, **options)(
            features, weight[order], bias[order]
        )

    return call


MUTANTS = {
    "the wrong level": lambda t, **o: of_the_first_level(t, **o),
    "colours interleaved": interleaved,
    "no bias": lambda t, **o: lambda x, w, b: plain(t, **o)(x, w, 0 * b),
    "mean over the pixels": lambda t, **o: lambda *x: plain(t, **o)(*x) / t[0].numel(),
    "bits": lambda t, **o: lambda *x: plain(t, **o)(*x) / 0.6931471805599453,
    "no mask": lambda t, **o: plain(t, **{**o, "masked": False}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_catches_wrong_definitions(name):
    target, options = integers(4, (2, 3, 2, 3)), {"data_channels": 3, "masked": True}
    inputs, upstream = (
        [torch.randn(2, 5, 2, 3), torch.randn(12, 5), torch.randn(12)],
        [torch.randn(2)],
    )
    check(inputs, upstream, target, **options)
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, target, definition=MUTANTS[name](target, **options), **options)
