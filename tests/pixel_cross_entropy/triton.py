"""The Triton kernels of pixel_cross_entropy, interpreted: values, gradients, launches."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
from hypothesis import given

import genkern
from genkern.triton_kernels import pixel_cross_entropy as launchers
from genkern.triton_kernels.pixel_cross_entropy import plan
from tests.core.triton_kit import few_examples, interpreted, last_programs, launches, sparse
from tests.pixel_cross_entropy import values
from tests.pixel_cross_entropy.values import check, integers, problems

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
OP = "pixel_cross_entropy"


@given(problems(with_head=False))
@few_examples
def test_logits_match_the_float64_reference(problem):
    *arguments, options = problem
    with interpreted(OP):
        check(*arguments, **options)


@given(problems(with_head=True))
@few_examples
def test_features_match_the_float64_reference(problem):
    *arguments, options = problem
    with interpreted(OP):
        check(*arguments, **options)


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.deep)]
)
def test_several_tiles_chunks_and_parts(dtype, monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_BYTES", 1)
    target = integers(70, (2, 2, 9, 10))
    inputs = [torch.randn(2, 75, 9, 10), torch.randn(140, 75), torch.randn(140)]
    with interpreted(OP), launches() as names:
        check([x.to(dtype) for x in inputs], [torch.randn(2).to(dtype)], target,
              data_channels=2, masked=True)  # fmt: skip
    assert len(names) == 2 + 3 * 3 + 1  # 180 pixels, 64 at a time


def test_launches():
    x, target = torch.randn(2, 6, 3, 5, requires_grad=True), integers(6, (2, 1, 3, 5))
    with interpreted(OP), launches() as names:
        genkern.pixel_cross_entropy(x, target).sum().backward()
    assert names == [f"{OP}_{k}_kernel" for k in ("logits", "sum", "logits_backward")]
    weight = torch.randn(6, 6, requires_grad=True)
    with interpreted(OP), launches() as names:
        genkern.pixel_cross_entropy(x, target, weight).sum().backward()
    kinds = ("head", "sum", "slopes", "features", "weight", "parts")
    assert names == [f"{OP}_{k}_kernel" for k in kinds]


def test_what_a_mask_hides_never_leaks():
    with interpreted(OP):
        values.test_what_a_colour_does_not_see_never_leaks_and_gets_no_gradient()


@pytest.mark.parametrize("level", [0, 3, 8])
def test_infinities_and_nan_give_what_torch_gives(level):
    with interpreted(OP):
        values.test_infinities_and_nan_give_what_torch_gives(torch.float32, level)


@pytest.mark.parametrize("levels, channels", [(256, None), (5, 64)])
def test_offsets_beyond_32_bits(levels, channels):
    """Without a head and with one: what the last programs make of the last image."""
    C = channels or levels
    N = 2**31 // (C * 64) + 1
    x = sparse(N * C * 64, np.float16).view(N, C, 8, 8)
    target = sparse(N * 64, np.uint8).view(N, 1, 8, 8)
    x[-1], target[-1] = torch.randn(C, 8, 8), integers(levels, (1, 8, 8))
    head = (torch.randn(levels, C).half(), torch.randn(levels).half()) if channels else (None, None)
    forward, backward = launchers.LAUNCHERS.values()
    upstream, options = torch.full((N,), 2.0, dtype=torch.float16), (False, False)
    needs = True, False, False

    def call(x, target, upstream):
        nats, *saved = forward(x, *head, target, *options, True)
        return nats, backward(upstream, x, *head, target, *saved, *options, *needs)[0]

    with last_programs():
        found = call(x, target, upstream)
    assert x.numel() > 2**31
    want = call(x[-1:].clone(), target[-1:].clone(), upstream[-1:])
    assert all(torch.equal(a[-1:], b) for a, b in zip(found, want, strict=True))


def test_a_target_that_is_no_level_makes_its_image_nan():
    """A launcher reads no target on the host; nothing out of bounds is read on the device."""
    x, weight, target = torch.randn(3, 5, 2, 2), torch.randn(5, 5), integers(5, (3, 1, 2, 2))
    target[0, 0, 0, 0], target[2, 0, 1, 1] = 5, -1
    with interpreted(OP):
        for head in (None, weight):
            nats = genkern.pixel_cross_entropy(x, target, head)
            assert nats.isnan().tolist() == [True, False, True]
