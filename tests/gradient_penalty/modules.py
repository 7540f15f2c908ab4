"""nn.GradientPenalty: the points of each kind, and steps that equal pure PyTorch in float64."""

import pytest
import torch
from torch import nn

import genkern

F64 = torch.float64


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 4, 3, 2), nn.Conv2d(4, 1, 2)
        self.double()

    def forward(self, x):
        return self.last(genkern.bias_act(self.first(x), act="swish"))


def images(n=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 8, 8, dtype=F64, generator=generator)


def plainly(D, x, formula):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return formula(g.flatten(1).square().sum(1))


FORMULAS = {
    "wgan_gp": lambda q: 10 * (q.sqrt() - 1).square().mean(),
    "dragan": lambda q: 10 * (q.sqrt() - 1).square().mean(),
    "r1": lambda q: 5 * q.mean(),
    "r2": lambda q: 5 * q.mean(),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_step_equals_pure_pytorch(kind):
    D, real, fake = Discriminator(), images(), images(seed=2)
    penalty = genkern.nn.GradientPenalty(kind)
    torch.manual_seed(5)
    points = penalty.points(real, fake)
    torch.manual_seed(5)
    got = penalty(D, real, fake)
    want = plainly(D, points, FORMULAS[kind])
    weights = [D.first.weight, D.first.bias, D.last.weight]
    found = [torch.autograd.grad(x, weights) for x in (got, want)]
    torch.testing.assert_close([got, *found[0]], [want, *found[1]], rtol=1e-9, atol=1e-12)


def test_the_points_are_where_the_kinds_say():
    real, fake = torch.full((500, 2), 2.0), torch.full((500, 2), 4.0, requires_grad=True)
    x = genkern.nn.GradientPenalty("wgan_gp").points(real, fake)
    share = (4.0 - x) / 2.0
    assert torch.equal(share[:, 0], share[:, 1]) and not x.requires_grad
    assert 0 <= share.min() < 0.02 and 0.98 < share.max() <= 1
    assert torch.equal(genkern.nn.GradientPenalty("r1").points(real), real)
    assert torch.equal(genkern.nn.GradientPenalty("r2").points(None, fake), fake)
    real = torch.randn(500, 8) * 3.0
    moved = genkern.nn.GradientPenalty("dragan", noise=0.25).points(real) - real
    assert abs(moved.std().item() - 0.75) < 0.05 and abs(moved.mean().item()) < 0.05


def test_a_generator_gets_no_gradient_and_scales_are_summed():
    real, fake = images(), images(seed=2).requires_grad_()
    D = Discriminator()
    penalty = genkern.nn.GradientPenalty("wgan_gp")
    penalty(D, real, fake).backward()
    assert fake.grad is None and D.first.weight.grad is not None
    alone = genkern.nn.input_gradient(D, real)
    both = genkern.nn.input_gradient(lambda x: [D(x), 2 * D(x)], real)
    torch.testing.assert_close(both, 3 * alone)
    with torch.no_grad():
        assert not genkern.nn.input_gradient(D, real).requires_grad


def test_missing_images_are_named():
    D, real = Discriminator(), images()
    with pytest.raises(TypeError, match="GradientPenalty: fake must be a Tensor; got NoneType"):
        genkern.nn.GradientPenalty("wgan_gp")(D, real)
    with pytest.raises(ValueError, match=r"GradientPenalty: fake must have shape real\.shape"):
        genkern.nn.GradientPenalty("wgan_gp")(D, real, real[:2])
    with pytest.raises(ValueError, match="GradientPenalty: kind must be one of"):
        genkern.nn.GradientPenalty("wgan")
    assert "kind='dragan', weight=10.0" in repr(genkern.nn.GradientPenalty("dragan"))


WRONG = [
    (lambda x: None, TypeError, "must return logits, or a list of them; got NoneType"),
    (lambda x: (x, None), TypeError, "must return logits, .*; got tuple with NoneType"),
    (lambda x: {"logits": x}, TypeError, "must return logits, or a list of them; got dict"),
    (lambda x: [], ValueError, "must return logits; got an empty list"),
    (lambda x: x.detach(), ValueError, "logits that depend on the points; got some that do not"),
    (lambda x: torch.ones(3, requires_grad=True), ValueError, "that depend on the points; got"),
    (lambda x: x > 0, TypeError, r"discriminator\(points\) must be one of float32.*; got bool"),
    (0.5, TypeError, "discriminator must be callable; got float"),
]


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG)
def test_what_is_no_discriminator_is_named(wrong, error, text):
    with pytest.raises(error, match=f"^GradientPenalty: .*{text}"):
        genkern.nn.GradientPenalty("r1")(wrong, images())
    with pytest.raises(error, match=f"^input_gradient: .*{text}"):
        genkern.nn.input_gradient(wrong, images())
    with pytest.raises(ValueError, match=r"real must have shape \(N, \.\.\.\); got \(\)"):
        genkern.nn.GradientPenalty("dragan")(Discriminator(), torch.tensor(0.5))


def test_a_path_length_step_equals_pure_pytorch():
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 8)).double()
    w, y = torch.randn(4, 3, dtype=F64, requires_grad=True), torch.randn(4, 8, dtype=F64)
    mean = torch.tensor(0.7, dtype=F64)
    (g,) = torch.autograd.grad((G(w) * y).sum(), w, create_graph=True)
    got = genkern.gradient_penalty(g, target=mean, weight=2.0)
    want = 2.0 * (g.square().sum(1).sqrt() - mean).square().mean()
    weights = [G[0].weight, G[2].weight]
    found = [torch.autograd.grad(x, weights, retain_graph=True) for x in (got, want)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
