"""The Triton kernels of filtered_act, interpreted: values, both orders of gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.core.strategies import examples
from tests.core.triton_kit import interpreted, launches
from tests.filtered_act.values import FILTERS, check, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@examples(0.2)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    with interpreted("filtered_act"):
        check(inputs, upstream, **options)


def test_launches_of_each_order_and_several_tiles():
    x, b = torch.randn(1, 1, 7, 21, requires_grad=True), torch.randn(1, requires_grad=True)
    options = FILTERS | {"padding": (4, 3), "act": "swish"}
    with interpreted("filtered_act"), launches() as names:
        y = genkern.filtered_act(x, b, **options)
        found = torch.autograd.grad(y.sum(), (x, b), create_graph=True)
        sum(g.sum() for g in found).backward()
    tall, last = "filtered_act_tall_kernel", "filtered_act_last_kernel"
    assert names == [tall, last] * 3  # the sum's gradient is a constant
    with genkern.use_backend("reference"):
        want = genkern.filtered_act(x, b, **options)
    torch.testing.assert_close(y, want)
