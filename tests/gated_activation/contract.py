"""Results that the op behind them does not keep but forms again: `Family.formed_again`."""

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import genkern

GATE, ELU = genkern.gated_activation, genkern.concat_elu
F64 = torch.float64


def conv(y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return genkern.masked_conv2d(y, weight)


def network(x: torch.Tensor, c: torch.Tensor, *weights: torch.Tensor, **options: bool):
    """Two activations, one with a condition, and a convolution behind each."""
    u, v = weights
    return conv(ELU(conv(GATE(x, c, **options), u), **options), v)


def leaves(dtype: torch.dtype = torch.float32, last: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = (2, 6, 4, 5), (2, 6), (4, 3, 3, 3), (3, 8, 1, 1)
    found = [torch.randn(s, generator=generator, dtype=F64).to(dtype) for s in shapes]
    if last:
        found[0] = found[0].to(memory_format=torch.channels_last)
    return [t.requires_grad_() for t in found]


def gradients(call: Callable, *inputs: torch.Tensor, **options) -> tuple[torch.Tensor, ...]:
    y = call(*inputs, **options)
    weighed = y.float() * torch.arange(y.numel()).view_as(y)
    return torch.autograd.grad(weighed.sum(), inputs)


def assert_same(found, want) -> None:
    for a, b in zip(found, want, strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()


@pytest.mark.parametrize("dtype, last", [(torch.float32, False), (torch.bfloat16, True)])
def test_gradients_have_the_same_bits(dtype, last):
    want = gradients(network, *leaves(dtype, last))
    assert_same(gradients(network, *leaves(dtype, last), recompute=True), want)


def held(call: Callable) -> int:
    """Bytes that are alive behind ``call`` beyond its arguments."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        kept = call()
    events = profiler.profiler.kineto_results.events()
    found = sum(e.nbytes() for e in events if e.name() == "[memory]")
    del kept
    return found


@pytest.mark.parametrize("activation, of_input, of_output", [(GATE, 2, 1), (ELU, 1, 2)])
def test_the_result_is_not_kept(activation, of_input, of_output):
    C, pixels = 16, 24 * 24
    x = torch.randn(1, of_input * C, 24, 24, requires_grad=True)
    weight = torch.randn(of_input * C, of_output * C, 1, 1, requires_grad=True)

    def layers(**options):
        y = x
        for _ in range(4):
            y = conv(activation(y, **options), weight)
        return y

    def channels(**options):
        return held(lambda: layers(**options)) / (4 * C * pixels)

    assert channels(recompute=True) == 4 * of_input
    assert channels() == 4 * (of_input + of_output)


def test_second_derivatives_reach_the_result_itself():
    """Through its place in the graph, also when one asks for them there."""
    call = lambda *t: network(*t, recompute=True)  # noqa: E731
    assert torch.autograd.gradgradcheck(call, leaves(F64), fast_mode=True)
    found = []
    for recompute in (False, True):
        x, c, u, _ = leaves(F64)
        y = GATE(x, c, recompute=recompute)
        (d_u,) = torch.autograd.grad(conv(y, u).square().sum(), u, create_graph=True)
        found.append(torch.autograd.grad(d_u.square().sum(), (y, x, u)))
    assert_same(*found)


def test_several_readers_and_several_passes():
    def both(x, c, u, v, **options):
        y = GATE(x, c, **options)
        z = conv(y, u)
        first = torch.autograd.grad(z.sum(), u, retain_graph=True)
        return first[0].sum() + z.mean() + conv(y, u * 2).square().mean() + v.mean()

    want = gradients(both, *leaves())
    assert_same(gradients(both, *leaves(), recompute=True), want)


@pytest.mark.parametrize("hooks", ["checkpoint", "save_on_cpu"])
def test_hooks_of_users_come_first(hooks):
    def hooked(*inputs, **options):
        if hooks == "checkpoint":
            return checkpoint(network, *inputs, use_reentrant=False, **options)
        with torch.autograd.graph.save_on_cpu():
            return network(*inputs, **options)

    assert_same(gradients(hooked, *leaves(), recompute=True), gradients(network, *leaves()))


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_and_under_autocast(autocast):
    with torch.autocast("cpu", enabled=autocast):
        want = gradients(network, *leaves())
        assert_same(gradients(network, *leaves(), recompute=True), want)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        assert_same(gradients(compiled, *leaves(), recompute=True), want)


def test_without_a_kernel_or_a_gradient_nothing_changes():
    for block in (genkern.use_backend("reference"), torch.no_grad(), contextlib.nullcontext()):
        with block:
            assert_same([network(*leaves(), recompute=True)], [network(*leaves())])
    with genkern.use_backend("reference"):
        want = gradients(network, *leaves())
        assert_same(gradients(network, *leaves(), recompute=True), want)


def test_what_was_changed_or_freed_is_an_error():
    x, c, u, _ = leaves()
    before = x * 1
    y = conv(GATE(before, c, recompute=True), u)
    before.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), u)
    gate = GATE(x, c, recompute=True)
    first, second = conv(gate, u), conv(gate, u)
    first.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(second.sum(), u)


def test_the_option_is_a_bool():
    for call in (GATE, ELU):
        with pytest.raises(TypeError, match=f"{call.__name__}: recompute must be a bool; got 'no'"):
            call(torch.ones(1, 2, 3, 3), recompute="no")


@pytest.mark.parametrize("edit", [lambda y: y.mul_(3), lambda y: y.detach().clamp_(0)])
def test_a_result_that_was_written_into_is_kept(edit):
    """Without gradients, or through an alias: the convolution sees what is there."""
    h = torch.randn(2, 8, 5, 5, requires_grad=True)
    convolution, found = genkern.nn.MaskedConv2d(4, 3, 3), []
    for recompute in (False, True):
        y = genkern.gated_activation(h, recompute=recompute)
        with torch.no_grad():
            edit(y)
        loss = convolution(y).square().sum()
        found.append(torch.autograd.grad(loss, convolution.weight)[0])
    assert torch.equal(*found)
