"""The Triton kernels of norm_act, interpreted: values, both orders of gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from tests.core.triton_kit import few_examples, interpreted, launches
from tests.norm_act.values import ACTIVATIONS, check, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@few_examples
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    with interpreted("norm_act"):
        check(inputs, upstream, **options)


@pytest.mark.parametrize("act", ACTIVATIONS[::3])
def test_activations_through_classes(act):
    x, d = (torch.randn(3, 2, 4, 5, dtype=torch.float64) for _ in range(2))
    w, b = (torch.randn(3, 2, dtype=torch.float64) for _ in range(2))
    with interpreted("norm_act"):
        check([x, w, b], [d], act=act, over_batch=True, labels=torch.tensor([2, 0, 2]))


def test_planes_of_many_tiles():
    inputs = [torch.randn(2, 3, 1100) * 2 + 5, torch.randn(3), torch.randn(3)]
    with interpreted("norm_act"):
        for over_batch in (False, True):
            check(inputs, [torch.randn(2, 3, 1100)], act="elu", over_batch=over_batch)


def test_launches_of_each_order():
    x, w = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    with interpreted("norm_act"), launches() as names:
        y = genkern.instance_norm_act(x, w, act="relu")
        (g,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        torch.autograd.grad(g, w, torch.ones_like(g))
    short = [name.removeprefix("norm_act_").removesuffix("_kernel") for name in names]
    assert short == ["moments", "forward", "sums", "backward", "sums"]


def test_the_image_of_a_label_that_is_no_class_is_nan():
    x, w, labels = torch.randn(3, 2, 4, 4), torch.randn(2, 2), torch.tensor([0, 5, 1])
    with interpreted("norm_act"):
        y, _, _ = genkern.conditional_batch_norm(x, labels, w, w, None, None, training=True)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()
