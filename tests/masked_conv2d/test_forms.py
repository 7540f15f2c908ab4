"""masked_conv2d: the forms without dead taps, colours in parts, windows, interleaved colours."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import nn as torch_nn
from torch._dynamo.testing import CompileCounter

import genkern
from genkern import nn
from genkern.ops.masked_conv2d import MASK_TYPES
from tests.core.tolerance import assert_close
from tests.masked_conv2d.values import bits, live_taps, problems

# name: kernel, mask_type, how public code pads (left, right, top, bottom), what it moves.
PUBLISHED = {
    "down_shifted_conv2d": ((2, 3), "rows", (1, 1, 1, 0), None),
    "down_right_shifted_conv2d": ((2, 2), "left", (1, 0, 1, 0), None),
    "down_shift of down_shifted_conv2d": ((2, 3), "rows_above", (1, 1, 1, 0), "down"),
    "down_shift of a 1x3": ((1, 3), "rows_above", (1, 1, 0, 0), "down"),
    "right_shift of a 2x1": ((2, 1), "left_before", (0, 0, 1, 0), "right"),
    "gated, vertical 5x5": ((3, 5), "rows", (2, 2, 2, 0), None),
    "gated, horizontal 5": ((1, 3), "left", (2, 0, 0, 0), None),
    "gated, first horizontal 5": ((1, 2), "left_before", (1, 0, 0, 0), "right"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shifted_convolutions_of_published_models(name):
    kernel, mask_type, padding, moved = PUBLISHED[name]
    x, w = torch.randn(2, 3, 6, 7), torch.randn(5, 3, *kernel)

    def published(x, w):
        y = F.conv2d(F.pad(x, padding), w)
        if moved == "down":
            y = F.pad(y, (0, 0, 1, 0))[:, :, :-1]
        return F.pad(y, (1, 0))[:, :, :, :-1] if moved == "right" else y

    got = genkern.masked_conv2d(x, w, mask_type=mask_type)
    scale = published(x.double().abs(), w.double().abs())
    assert_close(got, published(x.double(), w.double()), terms=w[0].numel(), scale=scale)


class Gated(torch_nn.Module):
    """Two stacks of Gated PixelCNN, as the table of MaskedConv2d puts them together."""

    def __init__(self, colours, C=6, layers=3, k=3):
        super().__init__()
        half, channels = k // 2, [colours] + [C] * layers
        self.vertical = torch_nn.ModuleList(
            nn.MaskedConv2d(i, C, (half + 1, k), mask_type="rows") for i in channels[:layers]
        )
        self.first = nn.MaskedConv2d(
            colours, 2 * C, (1, k), mask_type="A", data_channels=colours, parts=2
        )
        self.horizontal = torch_nn.ModuleList(
            nn.MaskedConv2d(
                C, 2 * C, (1, half + 1), mask_type="left", data_channels=colours, parts=2
            )
            for _ in range(layers - 1)
        )
        self.link = torch_nn.ModuleList(torch_nn.Conv2d(C, 2 * C, 1) for _ in range(layers))
        self.head = nn.MaskedConv2d(C, 2 * colours, 1, data_channels=colours)

    def forward(self, v):
        h = v
        for i, (convolution, link) in enumerate(zip(self.vertical, self.link, strict=True)):
            v = convolution(v)
            a = self.first(h) if i == 0 else self.horizontal[i - 1](h)
            a = a + link(F.pad(v, (0, 0, 1, 0))[:, :, :-1])
            new = genkern.gated_activation(a)
            h = new if i == 0 else h + new
        return self.head(h)


@pytest.mark.parametrize("colours", [1, 3])
def test_two_stacks_see_every_earlier_value_and_no_later_one(colours):
    H, W = 4, 4  # as far as three layers of 3x3 see
    model, x = Gated(colours), torch.randn(1, colours, H, W)
    jacobian = torch.autograd.functional.jacobian(model, x)[0, :, :, :, 0]
    # From (output channel, y, x, colour, y', x') to [value, value that it sees], in their order.
    seen = jacobian.ne(0).unflatten(0, (colours, 2)).any(1)
    order = seen.permute(1, 2, 0, 4, 5, 3).reshape(H * W * colours, H * W * colours)
    assert torch.equal(order, torch.ones_like(order).tril(-1))


def test_parts_are_convolutions_of_their_own():
    x, w, b = torch.randn(2, 7, 4, 5), torch.randn(15, 7, 3, 3), torch.randn(15)
    got = genkern.masked_conv2d(x, w, b, mask_type="A", data_channels=3, parts=3)
    own = [
        genkern.masked_conv2d(x, w[i : i + 5], b[i : i + 5], mask_type="A", data_channels=3)
        for i in (0, 5, 10)
    ]
    torch.testing.assert_close(got, torch.cat(own, 1))


# ---- windows -------------------------------------------------------------------------------


@given(problems(), st.data())
def test_a_window_has_the_bits_of_the_whole_output(problem, data):
    inputs, _, settings = problem
    (top, bottom), (left, right) = window = [
        sorted(data.draw(st.integers(0, size)) for _ in range(2)) for size in inputs[0].shape[2:]
    ]
    want = genkern.masked_conv2d(*inputs, **settings)[:, :, top:bottom, left:right]
    got = genkern.masked_conv2d(*inputs, **settings, window=window)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.equal(bits(got), bits(want)), (window, settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_every_pixel_by_itself_has_the_bits_of_the_whole(mask_type, dtype):
    for C, kernel, last in ((1, (3, 3), 0), (1, (1, 1), 0), (20, (2, 3), 1), (40, (1, 1), 0)):
        x, w = torch.randn(2, C, 4, 19).to(dtype), torch.randn(9, C, *kernel).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        whole = genkern.masked_conv2d(x, w, mask_type=mask_type)
        for y in range(4):
            row = genkern.masked_conv2d(x, w, mask_type=mask_type, window=((y, y + 1), slice(None)))
            assert torch.equal(bits(row), bits(whole[:, :, y : y + 1]))
            for column in (0, 1, 9, 18):
                window = (slice(y, y + 1), (column, column + 1))
                got = genkern.masked_conv2d(x, w, mask_type=mask_type, window=window)
                assert torch.equal(bits(got), bits(whole[:, :, window[0], column : column + 1]))


def test_a_window_reads_what_its_taps_reach_alone():
    x, w = torch.full((1, 5, 9, 9), math.nan), torch.randn(3, 5, 3, 3)
    x[:, :, 3:5, 3:6] = torch.randn(5, 2, 3)
    got = genkern.masked_conv2d(x, w, window=((4, 5), (4, 5)))
    assert got.isfinite().all()
    for backend in ("cpu", "reference"):
        with genkern.use_backend(backend):
            one = genkern.masked_conv2d(x[0], w, window=((4, 5), (4, 5)))
        torch.testing.assert_close(one, got[0])


def test_a_window_is_an_op_to_torch():
    x, w = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3)
    options = (0, 1, 1, 1, False, 1, 3, 2, 6)
    torch.library.opcheck(torch.ops.genkern.masked_conv2d_window.default, (x, w, None, *options))
    assert genkern.masked_conv2d(x.to("meta"), w.to("meta"), window=((1, 3), (2, 6))).shape == (
        2, 4, 2, 4,
    )  # fmt: skip
    counter = CompileCounter()
    compiled = torch.compile(
        lambda x, w: genkern.masked_conv2d(x, w, window=((1, 3), slice(2, None))),
        fullgraph=True, backend=counter,
    )  # fmt: skip
    want = genkern.masked_conv2d(x, w)[:, :, 1:3, 2:]
    assert torch.equal(compiled(x, w), want) and counter.frame_count == 1
    mapped = torch.func.vmap(lambda x: genkern.masked_conv2d(x, w, window=((1, 3), (2, 6))))(x)
    torch.testing.assert_close(mapped, want)
    with torch.no_grad():
        assert torch.equal(
            genkern.masked_conv2d(x, w.requires_grad_(), window=((1, 3), (2, 6))), want
        )


# ---- interleaved colours -------------------------------------------------------------------


def interleaved_mask(C_out, C_in, k, mask_type, groups, parts=1):
    mask = live_taps(C_out, C_in, k, k, mask_type, 1)
    out, seen = torch.arange(C_out) % (C_out // parts) % groups, torch.arange(C_in) % groups
    sees = seen < out[:, None] if mask_type == "A" else seen <= out[:, None]
    mask[:, :, k // 2, k // 2] = sees
    return mask.float()


class Interleaved(torch_nn.Conv2d):
    """A layer of public code: channel c belongs to colour c mod 3."""

    def __init__(self, C_in, C_out, k, mask_type):
        super().__init__(C_in, C_out, k, padding=k // 2)
        self.register_buffer("mask", interleaved_mask(C_out, C_in, k, mask_type, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def test_a_checkpoint_with_interleaved_colours_loads_after_one_permutation():
    def stack(layer):
        return torch_nn.Sequential(
            layer(3, 8, 5, mask_type="A"), torch_nn.BatchNorm2d(8), torch_nn.ReLU(),
            layer(8, 12, 3, mask_type="B"),
        ).eval()  # fmt: skip

    theirs = stack(Interleaved)
    ours = stack(lambda *a, **k: nn.MaskedConv2d(*a, data_channels=3, **k))
    with torch.no_grad():
        for tensor in (*theirs[1].parameters(), theirs[1].running_mean):
            tensor.normal_()
    text = r"see genkern.nn.contiguous_colours: its colours are interleaved"
    with pytest.raises(RuntimeError, match=text):
        ours.load_state_dict(theirs.state_dict())
    state = {name: nn.contiguous_colours(t, 3) for name, t in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():  # value v of colour c: channel 3 v + c of theirs, 4 c + v of ours
        want = theirs(x).unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)
        torch.testing.assert_close(ours(x), want)


@pytest.mark.parametrize("channels", [3, 4, 5, 17])
def test_interleaved_halves(channels):
    mask = interleaved_mask(2 * channels, channels, 3, "B", 3, parts=2)
    got = nn.contiguous_colours(mask, 3, parts=2)
    assert torch.equal(got != 0, live_taps(2 * channels, channels, 3, 3, "B", 3, 2))


def test_the_order_of_interleaved_channels():
    ten, twelve = torch.arange(10), torch.arange(12)
    assert nn.contiguous_colours(ten, 3).tolist() == [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]
    halves = nn.contiguous_colours(twelve, 3, parts=2).tolist()
    assert halves == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    table = torch.arange(60).view(10, 6)
    assert torch.equal(nn.contiguous_colours(table, 2, dims=(1,)), table[:, [0, 2, 4, 1, 3, 5]])
    assert torch.equal(nn.contiguous_colours(torch.tensor(3), 3), torch.tensor(3))
