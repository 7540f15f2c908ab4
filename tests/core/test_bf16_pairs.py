"""bfloat16 multiplied in pairs, as CPUs with AVX512-BF16 do it, on any machine and at every level.

Each check runs three times at least: as this machine multiplies, and in fresh processes that are
told to (GENKERN_BF16_PAIRS=1; an AVX-512 build needs the instruction for it) or not to (=0).
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import genkern
from genkern.reference import row_lstm as reference
from tests.core.helpers import bf16_pairs, machine_levels, probe
from tests.core.strategies import sizes
from tests.masked_conv2d.values import check, fused, kernels, live_taps, options, plain
from tests.row_lstm.values import F64, check_closely, make
from tests.row_lstm.values import fused as row_lstm

BF16 = torch.bfloat16
ROOT = Path(__file__).parents[2]
channels = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 32, 33, 40, 65]))


def normal(*shape):
    return torch.randn(shape).to(BF16)


@given(st.data(), channels, channels, kernels, sizes(9), st.one_of(sizes(35), st.just(131)))
@settings(max_examples=40)
def test_convolution_and_every_gradient(data, C_in, C_out, kernel, H, W):
    chosen = data.draw(options(C_in, C_out))
    inputs = [normal(2, C_in, H, W), normal(C_out, C_in, *kernel), normal(C_out)]
    last = data.draw(st.booleans())
    inputs[0] = inputs[0].to(memory_format=torch.channels_last if last else torch.contiguous_format)
    check(fused(chosen), plain(chosen), inputs, normal(2, C_out, H, W), chosen)


@given(st.data(), st.integers(1, 20), st.integers(1, 40), kernels, sizes(7), sizes(20))
@settings(max_examples=20)
def test_sums_of_integers_are_exact(data, C_in, C_out, kernel, H, W):
    chosen = data.draw(options(C_in, C_out))
    shapes = ((2, C_in, H, W), (C_out, C_in, *kernel), (C_out,), (2, C_out, H, W))
    *inputs, upstream = [torch.randint(-4, 5, s).to(BF16).requires_grad_() for s in shapes]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got = genkern.masked_conv2d(*inputs, **chosen)
    want = plain(chosen)(*exact)
    got.backward(upstream)
    want.backward(upstream.double())
    assert torch.equal(got, want.to(BF16))
    for a, b in zip(inputs, exact, strict=True):
        assert torch.equal(a.grad, torch.zeros_like(a) if b.grad is None else b.grad.to(BF16))


@given(st.data(), st.integers(1, 19), st.integers(1, 7), kernels, st.integers(1, 6), sizes(20))
@settings(max_examples=30)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_pixel_reaches_what_the_mask_allows_and_nothing_else(
    value, data, C_in, C_out, kernel, H, W
):
    chosen, W = data.draw(options(C_in, C_out)), max(1, W)
    d, mask = chosen["dilation"], live_taps(C_out, C_in, *kernel, chosen["mask_type"],
                                            chosen["data_channels"])  # fmt: skip
    weight = normal(C_out, C_in, *kernel)
    weight = torch.where(weight == 0, torch.ones_like(weight), weight)
    input = normal(2, C_in, H, W)
    before = genkern.masked_conv2d(input, weight, **chosen)
    i, y, x = (data.draw(st.integers(0, n - 1)) for n in (C_in, H, W))
    input[1, i, y, x] = value
    after = genkern.masked_conv2d(input, weight, **chosen)
    taps = mask[:, i].nonzero().tolist()
    reached = torch.zeros(2, C_out, H, W, dtype=torch.bool)
    for o, ty, tx in taps:
        row, column = y - d * (ty - kernel[0] // 2), x - d * (tx - kernel[1] // 2)
        if 0 <= row < H and 0 <= column < W:
            reached[1, o, row, column] = True
    assert torch.equal(~after.isfinite(), reached)
    assert torch.equal(after[~reached], before[~reached])


@given(st.data(), st.integers(1, 6), st.integers(1, 18), kernels, st.integers(1, 9))
@settings(max_examples=30)
def test_masked_taps_and_pixels_that_no_tap_meets_stay_out_of_the_gradients(
    data, C_in, C_out, kernel, W
):
    chosen = data.draw(options(C_in, C_out))
    mask = live_taps(C_out, C_in, *kernel, chosen["mask_type"], chosen["data_channels"])
    shapes = (C_out, C_in, *kernel), (C_out,), (1, C_out, 3, W)
    weight, bias, upstream = (normal(*s) for s in shapes)
    input = normal(1, C_in, 3, W)
    input[0, :, 2, W - 1] = math.nan  # seen by the last pixel alone, if at all
    weight[~mask] = math.nan
    leaves = [t.requires_grad_() for t in (input, weight, bias)]
    genkern.masked_conv2d(*leaves, **chosen).backward(upstream)
    cy, cx = kernel[0] // 2, kernel[1] // 2
    assert not weight.grad[~mask].any() and input.grad.isfinite().all()
    weight.grad[:, :, cy, cx] = 0
    assert weight.grad.isfinite().all()


# ---- Row LSTM ----------------------------------------------------------------------------------

SHAPES = [(3, 16, 5, 28, 3), (2, 17, 5, 13, 5), (1, 64, 4, 9, 3), (4, 1, 7, 1, 1), (2, 33, 3, 2, 3)]


@pytest.mark.parametrize("shape, states", [(s, True) for s in SHAPES] + [(SHAPES[0], False)])
def test_row_lstm_and_every_gradient(shape, states):
    check_closely(row_lstm, reference.forward, *make(*shape, BF16, states=states))


def test_row_lstm_keeps_pixels_and_unused_lanes_apart():
    (gates, weight, h0, c0), _ = make(1, 5, 6, 15, 3, BF16)
    before = genkern.row_lstm(gates, weight, h0, c0)[0]
    gates[0, 3, 2, 7] = math.nan
    after = genkern.row_lstm(gates, weight, h0, c0)[0]
    row, column = torch.meshgrid(torch.arange(6), torch.arange(15), indexing="ij")
    cone = (row > 2) & ((column - 7).abs() <= row - 2)
    assert after[0, :, cone].isnan().all() and torch.equal(
        before[0, :, row < 2], after[0, :, row < 2]
    )
    outside = ~cone & (row != 2)
    assert torch.equal(before[0, :, outside], after[0, :, outside])
    h = genkern.row_lstm(gates[:, :, :1], weight.abs(), torch.full_like(h0, math.inf), c0)[0]
    assert h.isfinite().all()


def test_the_cell_stays_in_float32():
    gates = torch.zeros(1, 4, 300, 1, dtype=BF16)
    gates[:, 1], gates[:, 3] = 20.0, 0.01
    c_n = genkern.row_lstm(gates, torch.zeros(4, 1, 1, dtype=BF16))[1][1]
    want = reference.forward(gates.double(), torch.zeros(4, 1, 1, dtype=F64))[2]
    assert abs(c_n.item() - want.item()) <= 2**-8 * want.item()


# ---- machines --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", machine_levels())
def test_thread_count_does_not_change_a_bit(level):
    code = """
results = []
cases = (3, 20, 35, 17, 19, 5, 1), (1, 1, 17, 40, 301, 7, 1), (9, 7, 9, 8, 9, 3, 3)
for N, C, O, H, W, k, g in cases:
    x, w, b = torch.randn(N, C, H, W), torch.randn(O, C, k, k), torch.randn(O)
    x, w, b = (t.bfloat16().requires_grad_() for t in (x, w, b))
    y = genkern.masked_conv2d(x, w, b, data_channels=g)
    y.square().sum().backward()
    results += [y, x.grad, w.grad, b.grad]
for N, hidden, H, W, k in ((1, 64, 6, 29, 3), (5, 17, 7, 11, 3), (70, 24, 3, 9, 5)):
    x = [torch.randn(N, 4 * hidden, H, W), torch.randn(4 * hidden, hidden, k) / hidden]
    x = [t.bfloat16().requires_grad_() for t in x]
    h, (h_n, c_n) = genkern.row_lstm(*x)
    (h.square().sum() + c_n.square().sum()).backward()
    results += [h, h_n, c_n, *(t.grad for t in x)]
print(genkern.library.compiled.bf16_pairs, digest(*results))
"""
    environment = {"GENKERN_BF16_PAIRS": "1"}
    one, two, three = (
        probe(code, level=level, threads=t, environment=environment) for t in (1, 2, 3)
    )
    assert one == two == three
    assert level == "avx512" or one.startswith("True")


@pytest.mark.skipif("GENKERN_BF16_PAIRS" in os.environ, reason="is one of the processes below")
@pytest.mark.parametrize("level", machine_levels())
@pytest.mark.parametrize("pairs", ["0", "1"])
def test_every_check_of_this_file_at_every_level_with_and_without_pairs(level, pairs):
    if pairs == "0" and not bf16_pairs():
        pytest.skip("is what ran above")
    environment = {**os.environ, "GENKERN_BF16_PAIRS": pairs, "GENKERN_CPU_ISA": level}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += ["-k", "not thread_count"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
