"""nn.SpectralNorm: state, evaluation, penalties, ties, a second forward before backward."""

import copy

import pytest
import torch
from torch import nn

import genkern
from genkern.nn import GradientPenalty, SpectralNorm

F64 = torch.float64


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, 2), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Flatten(),
                         nn.Linear(12, 1)).double()  # fmt: skip


def images(seed=1):
    return torch.randn(3, 2, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(seed))


def state(layer):
    return {name: b.clone() for name, b in layer.named_buffers()}


def test_training_moves_the_state_and_evaluation_does_not():
    layer, x = SpectralNorm(network()), images()
    before = state(layer)
    layer(x)
    after = state(layer)
    moving = [n for n in before if not n.endswith("_4")]  # one row has one direction
    assert len(before) == 6 and not any(torch.equal(before[n], after[n]) for n in moving)
    with torch.no_grad():
        layer(x)
    assert not any(torch.equal(state(layer)[n], after[n]) for n in moving)
    layer.eval()
    before = state(layer)
    y = layer(x)
    assert torch.equal(layer(x), y) and all(torch.equal(state(layer)[n], before[n]) for n in before)


def test_singular_values_become_one_and_the_own_weights_stay():
    net = network()
    layer, own = SpectralNorm(net, n_power_iterations=200), copy.deepcopy(net.state_dict())
    for weight in layer.normalized_weights().values():
        top = torch.linalg.matrix_norm(weight.flatten(1), 2)
        torch.testing.assert_close(top, torch.ones_like(top), rtol=1e-6, atol=0.0)
    assert all(torch.equal(net.state_dict()[n], own[n]) for n in own)
    assert [n for n, _ in layer.named_parameters()] == [f"module.{n}" for n in own]


def test_a_gradient_penalty_equals_pure_pytorch():
    ours, x = SpectralNorm(network()).eval(), images()
    theirs = network()
    u, v = ours._vectors("u"), ours._vectors("v")
    for i, name in enumerate(("0", "2", "4")):
        nn.utils.parametrizations.spectral_norm(theirs[int(name)])
        kept = theirs[int(name)].parametrizations.weight[0]
        kept._u.copy_(u[i]), kept._v.copy_(v[i])
    theirs.eval()
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(theirs(z).sum(), z, create_graph=True)
    want = 10 * (g.flatten(1).norm(dim=1) - 1).square().mean() + theirs(x).mean()
    got = GradientPenalty("dragan", noise=0.0)(ours, x) + ours(x).mean()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0.0)
    got.backward(), want.backward()
    for i in (0, 2, 4):
        original = theirs[i].parametrizations.weight.original
        torch.testing.assert_close(ours.module[i].weight.grad, original.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_calls_before_one_backward_do_not_disturb_each_other(training):
    layer = SpectralNorm(network()).train(training)
    first = layer(images()).sum()
    layer.train()
    (first + layer(images(2)).sum()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_a_run_goes_on_as_it_was_and_chosen_layers_alone_are_normalised():
    layer, x = SpectralNorm(network(), layers=["0", "4"]), images()
    layer(x)
    other = SpectralNorm(network(), layers=["0", "4"])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x)) and torch.equal(layer(x), copy.deepcopy(other)(x))
    assert list(layer.normalized_weights()) == ["0.weight", "4.weight"]


def test_tied_weights_are_one():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    layer, x = SpectralNorm(net), torch.randn(2, 3)
    (weight,) = layer.eval().normalized_weights().values()
    want = nn.functional.linear(nn.functional.linear(x, weight, net[0].bias), weight, net[1].bias)
    torch.testing.assert_close(layer(x), want)


def test_all_layers_are_one_call_of_the_steps():
    layer = SpectralNorm(network())
    with torch.profiler.profile() as profiler:
        layer.normalized_weights()
    counts = {event.key: event.count for event in profiler.key_averages()}
    assert counts["genkern::spectral_norm_step"] == 1 and "aten::mv" not in counts
    assert counts["genkern::spectral_norm_forward"] == 3
    assert genkern.last_backend("spectral_norm") == "cpu"


def test_a_layer_under_two_names_is_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="one name; got '0' and '2'"):
        SpectralNorm(nn.Sequential(layer, nn.Tanh(), layer))
