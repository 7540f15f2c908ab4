"""The Triton kernels of masked_conv2d, interpreted, on images of more than 2^31 elements."""

import importlib
import math

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
from genkern.triton_kernels.masked_conv2d import plan
from tests.core.tolerance import assert_close
from tests.core.triton_kit import last_programs, sparse
from tests.masked_conv2d.triton import backward, forward, reference_of

# The package has a function of this name.
parts = importlib.import_module("genkern.triton_kernels.masked_conv2d.backward")


def far_image(C, side, last):
    """More than 2^31 elements, zeros but for the last image; those in use alone are in memory."""
    shape = (2**31 // (C * side * side) + 1, C, side, side)
    layout = torch.channels_last if last else torch.contiguous_format
    strides = torch.empty(shape, device="meta", memory_format=layout).stride()
    far = sparse(math.prod(shape), np.float16).as_strided(shape, strides)
    far[-1] = torch.randn(shape[1:]).half()
    return far


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("C, side", [(16, 64), (1, 256)])
def test_offsets_beyond_32_bits(C, side, last):
    """(1, 256): more than 2^31 pixels, too."""
    far, far_upstream = (far_image(C, side, last) for _ in range(2))
    weight, needs = torch.randn(C, C, 3, 3).half(), (True, False, False)
    with last_programs():
        got = forward(far, weight, None, last=last)
        got_gradient = backward(far_upstream, far, weight, last=last, needs=needs)[0]
    inputs = [far[-1:], weight, torch.zeros(C).half()]
    want, (want_gradient, *_) = reference_of(inputs, far_upstream[-1:], "B", 1, 1)
    for found, wanted in ((got, want), (got_gradient, want_gradient)):
        assert_close(found[-1, :, -1, -16:], wanted[0, :, -1, -16:], terms=5 * C, scale=16.0)


@pytest.mark.parametrize("last", [False, True])
def test_parts_of_a_weight_gradient_beyond_2_to_the_31_elements(last, monkeypatch):
    monkeypatch.setattr(parts, "PROGRAMS", 2**40)  # parts as short as they may be
    monkeypatch.setattr(parts, "PARTIAL_BYTES", 2**60)
    C = 16
    far, weight = far_image(C, 64, last), torch.empty(C, C, 3, 3, dtype=torch.float16)
    facts = plan.facts(far, weight, plan.B, 1, 1, last)
    with last_programs():
        part = parts._Parts(far, weight, facts, 5, True)
        parts._launch_parts(far, far, weight, far[:0], part, facts, 5, 1)
    # The last program has the last pixels, and of the taps the centre.
    pixels = parts.SHORTEST_PART * part.tile.pixels
    tail = far[-1].double().flatten(1)[:, -pixels:]
    found, scale = part.weight[-1].view(C, 5, C)[:, 4], tail.abs() @ tail.abs().T
    assert_close(found, tail @ tail.T, terms=pixels, scale=scale)
