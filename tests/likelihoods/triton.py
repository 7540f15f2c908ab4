"""The likelihoods' Triton kernels, interpreted: nats, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from genkern.triton_kernels import likelihoods as launchers
from tests.core.strategies import examples
from tests.core.triton_kit import interpreted, launches
from tests.likelihoods.values import (
    KINDS,
    NAN,
    STEM,
    check,
    events,
    integers,
    masked,
    near_the_clamp,
    problems,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@examples(0.4)
def test_nats_and_gradients_match_the_float64_reference(problem):
    if near_the_clamp(*problem[:2]):
        return
    with interpreted(STEM):
        check(*problem)


# Row lengths of every tile; 9001 is split over programs.
@pytest.mark.parametrize("D", [31, 33, 257, 9001])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tile_and_the_split_of_long_rows(kind, D):
    a, b, options = torch.randn(2, D), torch.randn(2, D), {"mask": masked((2, D))}
    inputs = [a, None, events(b)]
    if kind == "gaussian":
        inputs[1] = torch.randn(1)
    if kind == "logistic":
        options["target"], inputs = integers((2, D), 16), [a, b, None]
    with interpreted(STEM):
        check((kind, options), inputs, [torch.randn(2)])


def test_the_target_of_several_samples_and_one_launch_each():
    a, x = torch.randn(3, 2, 40, requires_grad=True), torch.rand(2, 40, requires_grad=True)
    with interpreted(STEM), launches() as names:
        check(("gaussian", {}), [a, torch.randn(3, 2, 40), x], [torch.randn(3, 2)])
        check(("bernoulli", {}), [a, None, x], [torch.randn(3, 2)])
    first = ["likelihoods_forward_kernel", "likelihoods_backward_kernel"]
    assert names == [*first, *first, "likelihoods_backward_backward_kernel"] * 2


def test_an_item_with_a_target_that_is_no_level_is_nan():
    mean, v = torch.randn(3, 5), torch.full((3, 5), 3)
    v[1, 2] = 16
    mask = v != 16
    nats, _ = launchers.forward(mean, mean, None, v, None, 3, 0.0, 16, False)
    kept, _ = launchers.forward(mean, mean, None, v, mask, 3, 0.0, 16, False)
    assert nats.isnan().tolist() == [False, True, False] and not kept.isnan().any()


def test_no_launch_for_empty_sizes_and_named_errors():
    for shape in ((0, 3), (3, 0)):
        a, one = (torch.ones(s, requires_grad=True) for s in (shape, 1))
        with interpreted(STEM), launches() as names:
            genkern.gaussian_nll(a, one, a).sum().backward()
        assert not names and torch.equal(one.grad, torch.zeros(1)) and a.grad.shape == shape
    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="mask must be on cpu like location; got meta"):
        launchers.forward(x, None, x, None, x.bool().to("meta"), 0, 0.0, 0, False)
    with pytest.raises(RuntimeError, match="scale must be float32 like location; got float64"):
        launchers.forward(x, x.double(), x, None, None, 2, 0.0, 0, False)
    nan = torch.full((1, 1), NAN)
    with interpreted(STEM):
        assert genkern.bernoulli_nll(nan, nan, continuous=True).isnan().all()
