"""GAN losses in compiled programs: schedules, one tensor twice, control flow."""

import pytest
import torch

import genkern
from tests.core.programs import compilations, compiled_gradients

SMOOTHED = ("bce", "lsgan", "rabce")


@pytest.mark.parametrize("kind", SMOOTHED)
@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_smoothing_may_be_a_tensor(kind, value):
    real, fake = (torch.randn(33, requires_grad=True) for _ in range(2))
    with torch.no_grad():
        real[:3] = torch.tensor([0.0, 100.0, -100.0])
    number = genkern.gan_d_loss(real, fake, kind=kind, label_smoothing=value)
    tensor = genkern.gan_d_loss(real, fake, kind=kind, label_smoothing=torch.tensor(value))
    with genkern.use_backend("reference"):
        plain = genkern.gan_d_loss(real, fake, kind=kind, label_smoothing=torch.tensor(value))
    assert torch.equal(number, tensor)  # each value is a float32
    torch.testing.assert_close(plain, tensor)
    grads = [torch.autograd.grad(x, (real, fake)) for x in (number, tensor, plain)]
    assert all(map(torch.equal, grads[0], grads[1]))
    torch.testing.assert_close(grads[0], grads[2])


def test_a_tensor_for_a_kind_without_smoothing_is_refused():
    x = torch.randn(3)
    with pytest.raises(ValueError, match="label_smoothing must be 0 for kind 'hinge'"):
        genkern.gan_d_loss(x, x, kind="hinge", label_smoothing=torch.tensor(0.1))


def test_infinite_logits_with_a_tensor_give_the_limit():
    inf, zero = torch.full((3,), torch.inf), torch.zeros(())
    with genkern.use_backend("reference"):
        assert genkern.gan_d_loss(inf, -inf, label_smoothing=zero).item() == 0.0
    assert genkern.gan_d_loss(inf, -inf, label_smoothing=zero).item() == 0.0


def test_a_schedule_does_not_compile_again_at_each_step():
    real, fake = (torch.randn(7, requires_grad=True) for _ in range(2))
    steps = [0.01 * step for step in range(20)]
    loss = lambda r, s: genkern.gan_d_loss(r, fake, label_smoothing=s)  # noqa: E731
    assert compilations(loss, real, steps) <= 2
    assert compilations(loss, real, [torch.tensor(s) for s in steps]) == 1


def test_one_tensor_in_two_arguments_is_one_graph():
    x = torch.randn(5, requires_grad=True)
    for kind in ("bce", "rabce"):
        compiled_gradients(lambda x, kind=kind: genkern.gan_d_loss(x, x, kind=kind), [x])


def test_an_op_inside_of_a_condition_is_one_graph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x):
        branches = (lambda x: genkern.gan_g_loss(x), lambda x: genkern.gan_g_loss(-x))
        return torch.cond(x.sum() > 0, *branches, (x,))

    x = torch.randn(4)
    want = genkern.gan_g_loss(x if x.sum() > 0 else -x)
    torch.testing.assert_close(loss(x), want)
    torch.testing.assert_close(loss(-x), genkern.gan_g_loss(-x if x.sum() < 0 else x))


def test_scales_have_one_dtype():
    x = torch.randn(3)
    with pytest.raises(
        RuntimeError, match=r"fake_logits\[1\] must be float32 like .*; got float64"
    ):
        genkern.gan_d_loss([x, x.double()], [x, x.double()])
