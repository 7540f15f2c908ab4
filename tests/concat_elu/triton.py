"""The concatenated ELU's Triton kernels, interpreted: values, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.concat_elu.values import check, problems
from tests.core.triton_kit import few_examples, interpreted, launches

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems(longest=13))
@few_examples
def test_values_and_gradients_match_the_float64_reference(problem):
    with interpreted("concat_elu"):
        check(*problem)


def test_one_launch_forward_and_one_backward():
    x = torch.randn(2, 6, 3, 5, requires_grad=True)
    with interpreted("concat_elu"), launches() as names:
        genkern.concat_elu(x).sum().backward()
    assert names == ["concat_elu_forward_kernel", "concat_elu_backward_kernel"]


def test_many_tiles_and_views():
    image = torch.randn(1, 4, 70, 40)
    with interpreted("concat_elu"):
        check([image[:, :, ::2, 1:]], [torch.randn(1, 8, 35, 39)])
        check([image.transpose(2, 3)], [torch.randn(1, 8, 70, 40).transpose(2, 3)])
