"""nn.MaskedLinear and the degrees of a MADE."""

import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import genkern
from genkern import nn


def made(degrees):
    """Layers of a MADE with these degrees, the output's being those of the input."""
    sides = itertools.pairwise(degrees)
    hidden = [nn.MaskedLinear(len(a), len(b), in_degrees=a, out_degrees=b) for a, b in sides]
    last = nn.MaskedLinear(len(degrees[-1]), len(degrees[0]), strict=True,
                           in_degrees=degrees[-1], out_degrees=degrees[0])  # fmt: skip
    return [*hidden, last]


def through(layers, x):
    for layer in layers[:-1]:
        x = torch.sigmoid(layer(x))
    return layers[-1](x)


def check_order(layers, order):
    """Output d depends on the inputs before it in the order, and on no other; nor on their NaN."""
    D = len(order)
    x = torch.rand(D, dtype=torch.float64)
    layers = [layer.double() for layer in layers]
    found = torch.autograd.functional.jacobian(lambda x: through(layers, x), x)
    before = order[:, None] > order
    assert not found[~before].any() and found[before].all()
    for d in range(D):
        poisoned = x.clone()
        poisoned[d] = torch.nan
        assert torch.equal(through(layers, poisoned).isnan(), before[:, d])


@pytest.mark.parametrize("order", ["natural", "random"])
def test_each_output_of_a_made_depends_on_exactly_the_inputs_before_it(order):
    degrees = nn.made_degrees(9, [200, 150], order=order)
    layers = made(degrees)
    check_order(layers, degrees[0])
    for _ in range(3):
        new = below = torch.randperm(9)
        for layer in layers[:-1]:
            below = layer.resample(below, highest=7)
        layers[-1].set_degrees(below, new)
        check_order(layers, new)


def test_sum_over_all_binary_images_is_one():
    layers = [layer.double() for layer in made(nn.made_degrees(6, [11, 7], order="random"))]
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    logits = through(layers, images)
    log_p = (images * logits - torch.nn.functional.softplus(logits)).sum(1)
    assert abs(log_p.exp().sum().item() - 1) < 1e-12


def test_hidden_degrees_are_uniform_from_the_least_below():
    generator = torch.Generator().manual_seed(3)
    order, hidden, upper = nn.made_degrees(5, [40_000, 1000], generator=generator)
    assert order.tolist() == [0, 1, 2, 3, 4]
    counts = torch.bincount(hidden, minlength=5)
    assert counts[4] == 0 and (counts[:4] - 10_000).abs().max() < 5 * 87  # 5 standard deviations
    assert set(upper.tolist()) == {0, 1, 2, 3}
    layer = nn.MaskedLinear(3, 4000, in_degrees=torch.tensor([2, 4, 3]))
    assert set(layer.resample(highest=5).tolist()) == {2, 3, 4, 5}
    assert nn.made_degrees(1, [3])[1].tolist() == [0, 0, 0]


def test_it_takes_the_place_of_a_linear_layer():
    linear, layer = (
        torch.nn.Linear(5, 3),
        nn.MaskedLinear(5, 3, out_degrees=torch.tensor([4, 0, 2])),
    )
    layer.load_state_dict(linear.state_dict(), strict=False)
    x = torch.randn(2, 5)
    want = genkern.masked_linear(x, linear.weight, linear.bias, in_degrees=torch.arange(5),
                                 out_degrees=torch.tensor([4, 0, 2]))  # fmt: skip
    assert isinstance(layer, torch.nn.Linear) and torch.equal(layer(x), want)
    assert sorted(layer.state_dict()) == ["bias", "in_degrees", "out_degrees", "weight"]
    assert all(d.device.type == "meta" for d in nn.MaskedLinear(5, 3, device="meta").buffers())


def test_a_compiled_layer_sees_new_degrees_without_a_new_graph():
    counter = CompileCounterWithBackend("aot_eager")
    layer = nn.MaskedLinear(6, 5)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    x = torch.randn(3, 6)
    for _ in range(4):
        layer.resample(torch.randperm(6), highest=4)
        torch.testing.assert_close(compiled(x), layer(x))
    assert counter.frame_count == 1
