"""The Triton kernels of bias_act, interpreted: values, both orders of gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.bias_act.values import ACTIVATIONS, check, problems
from tests.core.strategies import examples
from tests.core.triton_kit import interpreted, launches

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@examples(0.5)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    with interpreted("bias_act"):
        check(inputs, upstream, **options)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_over_its_range(act):
    for dtype in (torch.float32, torch.float64):
        x = torch.cat([torch.linspace(-30, 30, 61), torch.tensor([1e-6, -1e-6, -80.0])]).to(dtype)
        with interpreted("bias_act"):
            check([x.view(4, 16), None], [torch.randn(4, 16).to(dtype)], act=act)


def test_one_launch_for_each_order():
    x, b = torch.randn(2, 6, 3, 5, requires_grad=True), torch.randn(6, requires_grad=True)
    with interpreted("bias_act"), launches() as names:
        y = genkern.bias_act(x, b, act="swish")
        found = torch.autograd.grad(y.square().sum(), (x, b), create_graph=True)
        sum(g.square().sum() for g in found).backward()
    backward = "bias_act_backward_kernel"  # of double backward, and of y behind the square
    assert names == ["bias_act_forward_kernel", *[backward] * 3]


def test_sums_of_many_tiles_and_channels_last():
    with interpreted("bias_act"):
        check([torch.randn(3, 2, 1100), torch.randn(2)], [torch.randn(3, 2, 1100)], act="elu")
        x = torch.randn(2, 35, 4, 9).to(memory_format=torch.channels_last)
        check([x, torch.randn(35)], [torch.randn(2, 35, 4, 9)], act="tanh", clamp=0.5)
