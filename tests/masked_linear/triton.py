"""The masked linear layer's Triton kernels, interpreted: values, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

from tests.core.triton_kit import few_examples, interpreted, launches
from tests.masked_linear import values
from tests.masked_linear.values import check, fused, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@few_examples
def test_values_and_gradients_match_the_float64_reference(problem):
    with interpreted("masked_linear"):
        check(*problem)


@pytest.mark.parametrize("strict", [False, True])
def test_dead_weights_leak_nothing_and_get_no_gradient(strict):
    with interpreted("masked_linear"):
        values.test_dead_weights_leak_nothing_and_get_no_gradient(strict)


def test_tiles_that_are_dead_mixed_and_whole():
    degrees = torch.arange(100), torch.arange(0, 300, 3)
    inputs = [torch.randn(70, 100), torch.randn(100, 100), torch.randn(100)]
    with interpreted("masked_linear"):
        check(inputs, [torch.randn(70, 100)], degrees, False)


def test_one_launch_forward_and_two_backward():
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    call = fused((torch.arange(5), torch.arange(4)), False)
    with interpreted("masked_linear"), launches() as names:
        call(x, w, None).sum().backward()
    kinds = [name.removeprefix("masked_linear_").removesuffix("_kernel") for name in names]
    assert kinds == ["forward", "backward", "weight"]
