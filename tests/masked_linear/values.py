"""masked_linear."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

import genkern
from genkern.reference import masked_linear as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, examples, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
NAMES = ("d_input", "d_weight", "d_bias")
FARTHEST = 2**63 - 1


def fused(degrees, strict):
    def call(input, weight, bias):
        seen, seeing = (d.to(input.device) for d in degrees)
        return genkern.masked_linear(
            input, weight, bias, in_degrees=seen, out_degrees=seeing, strict=strict
        )

    return call


def plain(degrees, strict, forward=reference.forward):
    return lambda input, weight, bias: forward(
        input, weight, bias, *(d.to(input.device) for d in degrees), strict
    )


def skipping(input, weight, bias, in_degrees, out_degrees, strict):
    """The equation term by term: what a weight does not see is in no product, nor is its NaN."""
    live = torch.tensor(
        [[m > n if strict else m >= n for n in in_degrees.tolist()] for m in out_degrees.tolist()]
    ).reshape(weight.shape)
    seen = torch.where(live, input.unsqueeze(-2), 0)
    y = (seen * torch.where(live, weight, 0)).sum(-1)
    return y if bias is None else y + bias


def check(inputs, upstream, degrees, strict, definition=reference.forward):
    """Values and every gradient against the float64 definition."""
    (got,), got_grads = run(fused(degrees, strict), inputs, upstream)
    want_of = plain(degrees, strict, definition)
    (want,), want_grads = run(want_of, double(inputs), double(upstream))
    absolute = [x if x is None else x.nan_to_num(0, 0, 0).abs() for x in double(inputs)]
    up = [upstream[0].double().nan_to_num(0, 0, 0).abs()]
    (scale,), scales = run(plain(degrees, strict), absolute, up)
    (O, I), N = inputs[1].shape, inputs[0].shape[:-1].numel()  # noqa: E741
    assert got.dtype == inputs[0].dtype
    assert_close(got, want, terms=I + 1, scale=scale, name="output")
    for name, *found, terms in zip(NAMES, got_grads, want_grads, scales, (O, N, N), strict=True):
        if found[0] is not None:
            assert found[0].dtype == inputs[0].dtype
            assert_close(found[0], found[1], terms=terms, scale=found[2], name=name)


def integers(shape, low, high):
    return torch.randint(low, high, shape, device="cpu")


@st.composite
def degrees_of(draw, size):
    """Few and many of them, in order and not, equal, far apart, of every dtype."""
    kind = draw(st.sampled_from(["few", "many", "order", "random order", "equal", "far"]))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    if kind == "order":
        return torch.arange(size)
    if kind == "random order":
        return torch.randperm(size)
    if kind == "equal":
        return torch.full((size,), 3)
    if kind == "far":
        ends = torch.tensor([-FARTHEST - 1, -5, 0, 3, FARTHEST])
        return ends[integers((size,), 0, 5)]
    dtype = draw(st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8]))
    return integers((size,), 0, 4 if kind == "few" else 50).to(dtype)


@st.composite
def problems(draw):
    features = st.one_of(sizes(9), st.sampled_from([16, 17, 33, 70]))
    I, O = draw(features), draw(features)  # noqa: E741
    lead = draw(st.sampled_from([(), (1,), (2,), (3, 2), (9,), (17,), (0,), (35,)]))
    dtype = draw(st.sampled_from(DTYPES))
    inputs = [
        draw(tensors((*lead, I), dtype, draw(st.sampled_from([1.0, 1e-3, 30.0])))),
        draw(tensors((O, I), dtype)),
        draw(tensors((O,), dtype)) if draw(st.booleans()) else None,
    ]
    degrees = draw(degrees_of(I)), draw(degrees_of(O))
    return inputs, [draw(tensors((*lead, O), dtype))], degrees, draw(st.booleans())


@given(problems())
@examples(2)
def test_values_and_every_gradient_match_the_float64_reference(problem):
    check(*problem)
    assert genkern.last_backend("masked_linear") == backend()


@given(problems())
@examples(0.7)
def test_integers_are_exact(problem):
    inputs, upstream, degrees, strict = problem
    like = inputs[0]
    inputs = [x if x is None else integers(x.shape, -4, 5).to(like) for x in inputs]
    upstream = [integers(upstream[0].shape, -4, 5).to(like)]
    got = run(fused(degrees, strict), inputs, upstream)
    want = run(plain(degrees, strict), double(inputs), double(upstream))
    for a, b in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert a is b is None or torch.equal(a, b.to(a.dtype))  # an exact sum, rounded once


@pytest.mark.parametrize("strict", [False, True])
def test_dead_weights_leak_nothing_and_get_no_gradient(strict):
    """NaN and infinities in dead weights, in inputs and in upstream gradients stay where they are
    seen."""
    torch.manual_seed(1)
    degrees = integers((40,), 0, 7), integers((37,), 0, 7)
    live = reference.live_weights(*degrees, strict)
    x, w, b, up = (torch.randn(s) for s in ((19, 40), (37, 40), (37,), (19, 37)))
    w[~live] = torch.tensor([math.nan, math.inf])[integers((int((~live).sum()),), 0, 2)]
    check([x, w, b], [up], degrees, strict, skipping)
    poison = torch.tensor([math.nan, math.inf, -math.inf])
    for tensor in (x, up):
        poisoned = tensor.clone()
        places = integers((9,), 0, tensor.numel())
        poisoned.view(-1)[places] = poison[integers((9,), 0, 3)]
        given = [poisoned, w, b] if tensor is x else [x, w, b]
        upstream = [up if tensor is x else poisoned]
        (got,), grads = run(fused(degrees, strict), given, upstream)
        definition = plain(degrees, strict, skipping)
        (want,), want_grads = run(definition, double(given), double(upstream))
        for a, b_ in zip((got, *grads), (want, *want_grads), strict=True):
            torch.testing.assert_close(a.double(), b_, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert torch.equal(grads[1][~live], torch.zeros_like(grads[1][~live]))


def test_each_output_sees_exactly_the_inputs_of_its_degrees():
    degrees = torch.tensor([2, 0, 1, 1]), torch.tensor([0, 1, 2, -1, 9])
    ones = torch.ones(5, 4)
    seen = lambda strict: torch.autograd.functional.jacobian(  # noqa: E731
        lambda x: fused(degrees, strict)(x, ones, None), torch.zeros(4)
    ).tolist()
    assert seen(False) == [[0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert seen(True) == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_blocks_of_rows_and_batch():
    """More rows than a block, more steps than a sum, more panels than one partial sum."""
    for shape, rows, columns in (((300,), 9, 300), ((20,), 1300, 40), ((3,), 40, 1500)):
        degrees = torch.randperm(columns), integers((rows,), 0, columns)
        inputs = [torch.randn(*shape, columns), torch.randn(rows, columns), torch.randn(rows)]
        check(inputs, [torch.randn(*shape, rows)], degrees, False)
        turned = [inputs[0], inputs[1].t().contiguous().t(), None]
        check(turned, [torch.randn(*shape, rows)], degrees, True)


def test_other_degrees_do_not_compile_another_graph():
    counter = CompileCounterWithBackend("aot_eager")
    x, w = torch.randn(3, 6), torch.randn(5, 6, requires_grad=True)

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(seen, seeing):
        return genkern.masked_linear(x, w, in_degrees=seen, out_degrees=seeing)

    torch._dynamo.reset()
    for _ in range(4):
        degrees = torch.randperm(6), torch.randint(0, 6, (5,))
        want = fused(degrees, False)(x, w, None)
        torch.testing.assert_close(compiled(*degrees), want)
    assert counter.frame_count == 1


def test_flops_are_those_of_the_live_weights():
    degrees = torch.arange(6), torch.tensor([0, 2, 5, 9])
    x, w = torch.randn(2, 3, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = fused(degrees, False)(x, w, None)
    live = 1 + 3 + 6 + 6
    assert counter.get_total_flops() == 2 * 6 * live
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * 2 * 6 * live


def changed(change):
    """The definition on changed arguments."""
    return lambda *arguments: reference.forward(*change(*arguments))


MUTANTS = {
    "no bias": changed(lambda x, w, b, m, n, s: (x, w, None, m, n, s)),
    "the other comparison": changed(lambda x, w, b, m, n, s: (x, w, b, m, n, not s)),
    "sides exchanged": changed(lambda x, w, b, m, n, s: (x, w, b, -m, -n, s)),
    "no mask": changed(lambda x, w, b, m, n, s: (x, w, b, m * 0, n * 0, False)),
    "one degree off": changed(lambda x, w, b, m, n, s: (x, w, b, m, n + 1, s)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    degrees = integers((12,), 0, 5), integers((9,), 0, 5)
    inputs = [torch.randn(4, 12), torch.randn(9, 12), torch.randn(9)]
    upstream = [torch.randn(4, 9)]
    check(inputs, upstream, degrees, False)
    with pytest.raises(AssertionError, match="elements off"):
        check(inputs, upstream, degrees, False, MUTANTS[name])
