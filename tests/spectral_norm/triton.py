"""The Triton kernel of spectral_norm, interpreted: values, gradients, launches."""

import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

from tests.core.strategies import examples
from tests.core.triton_kit import interpreted, launches
from tests.spectral_norm.values import check, problems, scaled, vectors

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@given(problems())
@examples(0.4)
def test_values_and_gradients_match_the_float64_reference(problem):
    inputs, upstream, options = problem
    with interpreted("spectral_norm"):
        check(inputs, upstream, **options)


def test_one_launch_each_way_of_several_programs():
    w = torch.rand(3, 7, 101, requires_grad=True)
    u, v = vectors(w.shape, 1, torch.float32)
    with interpreted("spectral_norm"), launches() as names:
        scaled(w, u=u, v=v, dim=1).sum().backward()
        check([w.detach()], [torch.randn(w.shape)], u=u, v=v, dim=1)
    assert names == ["spectral_norm_scale_kernel"] * 4
