"""The gated activation's Triton kernels, interpreted: values, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.core.triton_kit import few_examples, interpreted, launches
from tests.gated_activation.values import check, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems(longest=13))
@few_examples
def test_values_and_gradients_match_the_float64_reference(problem):
    with interpreted("gated_activation"):
        check(*problem)


def test_one_launch_forward_and_one_backward():
    x, c = torch.randn(2, 6, 3, 5, requires_grad=True), torch.randn(2, 6, requires_grad=True)
    with interpreted("gated_activation"), launches() as names:
        genkern.gated_activation(x, c).sum().backward()
    assert names == ["gated_activation_forward_kernel", "gated_activation_backward_kernel"]


def test_planes_of_many_tiles_and_views():
    image = torch.randn(1, 4, 70, 40)
    with interpreted("gated_activation"):
        check([image[:, :, ::2, 1:], torch.randn(1, 4)], [torch.randn(1, 2, 35, 39)])
        check([image.transpose(2, 3), None], [torch.randn(1, 2, 70, 40).transpose(2, 3)])
