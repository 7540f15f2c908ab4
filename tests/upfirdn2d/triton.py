"""The Triton kernel of upfirdn2d, interpreted: values, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.core.triton_kit import few_examples, interpreted, launches
from tests.upfirdn2d.values import BLUR, call, check, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems(widest=9, longest=6))
@few_examples
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    with interpreted("upfirdn2d"):
        check(inputs, upstream, **options)


def test_one_launch_for_each_order():
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    with interpreted("upfirdn2d"), launches() as names:
        y = genkern.upfirdn2d(x, BLUR, down=2, padding=1)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert names == ["upfirdn2d_kernel"] * 4


def test_many_tiles_and_views():
    image = torch.randn(1, 2, 10, 36)[:, ::2, ::2, 1:]
    cases = (
        (image, {"filter": BLUR, "up": 2, "padding": (2, 1)}),
        (image.transpose(2, 3), {"filter": BLUR, "down": 2, "padding": (1, 1, 1, 0)}),
    )
    with interpreted("upfirdn2d"):
        for x, options in cases:
            check([x], [torch.randn_like(call(x, **options))], **options)
