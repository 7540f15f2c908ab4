"""The Triton kernels of gradient_penalty, interpreted: values, both orders, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.core.strategies import examples
from tests.core.triton_kit import interpreted, launches
from tests.gradient_penalty.values import check, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@examples(0.4)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    if options["reduction"] == "mean" and inputs[0].shape[0] == 0:
        return  # the mean of nothing
    with interpreted("gradient_penalty"):
        check(inputs, upstream, **options)


def test_launches_of_each_order():
    g = torch.randn(2, 3, 5, requires_grad=True)
    with interpreted("gradient_penalty"), launches() as names:
        p = genkern.gradient_penalty(g)
        (d,) = torch.autograd.grad(p, g, create_graph=True)
        d.sum().backward()
    sums, items, apply = (f"gradient_penalty_{n}_kernel" for n in ("sums", "items", "apply"))
    assert names == [sums, items, apply, sums, items, apply]


def test_long_rows_many_items_and_the_limits():
    with interpreted("gradient_penalty"):
        check([torch.randn(1, 5000)], [torch.randn(1)], reduction="none", target=70.0)
        check([torch.randn(131, 2)], [torch.tensor(0.5)], one_sided=True)
        g = torch.tensor([[torch.inf, 1.0], [torch.nan, 1.0], [0.0, 0.0]], requires_grad=True)
        p = genkern.gradient_penalty(g, reduction="none")
        assert p[0] == torch.inf and p[1].isnan() and p[2] == 10.0
        (d,) = torch.autograd.grad(p[2], g)
        assert torch.equal(d[2], torch.zeros(2))
