"""row_lstm: threads, levels, compilers, errors, the module, mutants."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern import nn
from genkern.reference import row_lstm as reference
from tests.core.helpers import check_compiled, double, machine_levels, probe
from tests.row_lstm.values import F64, check_closely, fused, make

# ---- machines --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", machine_levels())
def test_thread_count_does_not_change_a_bit(level):
    # Few images, whose rows are divided; many; a weight gradient of each image, and of groups.
    code = """
shapes = [(1, 64, 6, 29, 3), (1, 80, 4, 16, 3), (5, 17, 7, 11, 3), (70, 24, 3, 9, 5)]
for shape in (*shapes, (3, 128, 4, 12, 3), (300, 8, 3, 4, 3)):
    N, hidden, H, W, k = shape
    x = [torch.randn(N, 4 * hidden, H, W), torch.randn(4 * hidden, hidden, k) / hidden]
    x = [t.requires_grad_() for t in (*x, torch.randn(N, hidden, W), torch.randn(N, hidden, W))]
    h, (h_n, c_n) = genkern.row_lstm(*x)
    (h.square().sum() + h_n.sum() + c_n.square().sum()).backward()
    print(digest(h, h_n, c_n, *(t.grad for t in x)))
"""
    one, two, three = (probe(code, level=level, threads=t) for t in (1, 2, 3))
    assert one == two == three


@pytest.mark.parametrize("level", machine_levels())
def test_every_level_matches_the_float64_reference(level):
    code = """
import sys
sys.path.insert(0, ".")
from tests.row_lstm.values import check, fused, make, reference
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for shape in ((2, 17, 3, 13, 3), (1, 1, 2, 1, 1), (2, 40, 4, 20, 5)):
        check(fused, reference.forward, *make(*shape, dtype))
print("checked")
"""
    assert probe(code, level=level) == "checked\n"


def test_opcheck():
    inputs, upstream = make(2, 3, 4, 5, 3, torch.float32)
    forward = torch.ops.genkern.row_lstm_forward.default
    backward = torch.ops.genkern.row_lstm_backward.default
    torch.library.opcheck(forward, (*inputs, True))
    torch.library.opcheck(forward, (*inputs[:2], None, None, False))
    gates, cells = forward(*inputs, True)[3:]
    torch.library.opcheck(backward, (*upstream, *inputs[1:], gates, cells, *(True,) * 4))
    none = (None, None)
    saved = forward(*inputs[:2], *none, True)[3:]
    needs = (True, False, False, False)
    torch.library.opcheck(backward, (upstream[0], *none, inputs[1], *none, *saved, *needs))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic):
    inputs, _ = make(2, 3, 4, 5, 3, torch.float32)
    check_compiled(lambda x, *rest: fused(x * 2, *rest), inputs, dynamic=dynamic)


def test_functorch_export_and_the_reference_backend():
    inputs, _ = make(3, 2, 3, 4, 3, torch.float32)
    gates, weight = inputs[:2]
    got = torch.func.vmap(lambda x: genkern.row_lstm(x[None], weight)[0][0])(gates)
    torch.testing.assert_close(got, genkern.row_lstm(gates, weight)[0])

    class Model(torch.nn.Module):
        def forward(self, gates, weight):
            return genkern.row_lstm(gates, weight)[0]

    exported = torch.export.export(Model(), (gates, weight)).module()
    torch.testing.assert_close(exported(gates, weight), genkern.row_lstm(gates, weight)[0])
    with genkern.use_backend("reference"):
        slow = fused(*inputs)
        assert genkern.last_backend("row_lstm") == "reference"
    torch.testing.assert_close(fused(*inputs), slow)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_takes_its_dtype_and_leaves_float64_alone(backend):
    inputs, _ = make(2, 5, 3, 6, 3, torch.float32)
    leaves = [x.requires_grad_() for x in inputs]
    with genkern.use_backend(backend), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = fused(*leaves)
        assert fused(*double(inputs))[0].dtype == F64
    assert all(y.dtype == torch.bfloat16 for y in outputs)
    outputs[0].sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in leaves)
    if backend == "cpu":
        want = fused(*(x.detach().bfloat16() for x in leaves))
        assert all(map(torch.equal, outputs, want))


# ---- errors, for test_errors.py ------------------------------------------------------------

X, K, S = torch.ones(2, 12, 4, 5), torch.ones(12, 3, 3), torch.ones(2, 3, 5)
ERRORS = [
    (lambda: genkern.row_lstm([1.0], K), TypeError,
     "row_lstm: input_gates must be a Tensor; got list"),
    (lambda: genkern.row_lstm(X.int(), K), TypeError,
     "row_lstm: input_gates must be one of float32, float64, bfloat16, float16; got int32"),
    (lambda: genkern.row_lstm(X, K.double()), RuntimeError,
     "row_lstm: weight_hh must be float32 like input_gates; got float64"),
    (lambda: genkern.row_lstm(X, K.to("meta")), RuntimeError,
     "row_lstm: weight_hh must be on cpu like input_gates; got meta"),
    (lambda: genkern.row_lstm(X[0], K), RuntimeError,
     r"row_lstm: input_gates must have shape \(N, 4h, H, W\); got \(12, 4, 5\)"),
    (lambda: genkern.row_lstm(X, K[0]), RuntimeError,
     r"row_lstm: weight_hh must have shape \(4h, h, k\); got \(3, 3\)"),
    (lambda: genkern.row_lstm(X, K[:9]), RuntimeError,
     r"row_lstm: weight_hh must have shape \(4h, h, k\); got \(9, 3, 3\)"),
    (lambda: genkern.row_lstm(X, K[:, :, :2]), RuntimeError,
     r"row_lstm: weight_hh must have an odd width k = shape\[2\]; got \(12, 3, 2\)"),
    (lambda: genkern.row_lstm(X[:, :8], K), RuntimeError,
     r"row_lstm: input_gates.shape\[1\] must equal weight_hh.shape\[0\] = 12; got"),
    (lambda: genkern.row_lstm(X[:, :, :0], K), RuntimeError,
     "the number of rows, must be larger than 0"),
    (lambda: genkern.row_lstm(X, K, S), RuntimeError,
     "row_lstm: h0 and c0 must be given together; got h0 and no c0"),
    (lambda: genkern.row_lstm(X, K, None, S), RuntimeError, "got c0 and no h0"),
    (lambda: genkern.row_lstm(X, K, S, S[:1]), RuntimeError,
     r"row_lstm: c0 must have shape \(N, h, W\) = \(2, 3, 5\); got \(1, 3, 5\)"),
    (lambda: genkern.row_lstm(X, K, S.double(), S), RuntimeError,
     "row_lstm: h0 must be float32 like input_gates; got float64"),
    (lambda: genkern.row_lstm_step(X, S, S, K), RuntimeError,
     r"row_lstm_step: input_gates_row must have shape \(N, 4h, W\); got \(2, 12, 4, 5\)"),
    (lambda: genkern.row_lstm_step(X[:, :, 0], S, None, K), TypeError,
     "row_lstm_step: c must be a Tensor; got NoneType"),
    (lambda: nn.RowLSTM(4, 3, kernel_size=2), ValueError, "kernel_size must be odd; got 2"),
    (lambda: nn.RowLSTM(4, 0), ValueError, "RowLSTM: hidden_size must be at least 1; got 0"),
    (lambda: nn.RowLSTM(4, 3, mask_type="C"), ValueError, "mask_type must be one of 'A', 'B'"),
    (lambda: nn.RowLSTM(4, 3, mask_type="A"), ValueError, "residual must be False with mask_type"),
]  # fmt: skip


# ---- the module ------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("features, hidden", [(6, 3), (12, 6), (7, 4), (9, 8)])
def test_colours_see_earlier_pixels_and_earlier_colours_only(features, hidden, residual):
    """Bitwise: a changed pixel and colour leaves all outputs before it in raster order alone."""
    layer = nn.RowLSTM(features, hidden, data_channels=3, residual=residual)
    input = torch.randn(1, features, 4, 5)
    ends = lambda n: [(n * (g + 1) + 2) // 3 for g in range(3)]  # noqa: E731
    colour_of = lambda n: torch.tensor(  # noqa: E731
        [sum(c >= e for e in ends(n)) for c in range(n)]
    )
    before = layer(input)[0]
    order = lambda n: (  # noqa: E731
        torch.arange(20).view(1, 4, 5) * 3 + colour_of(n).view(n, 1, 1)
    )
    position, source = order(before.shape[0]), order(features)
    for y, x in ((0, 0), (1, 2), (2, 4)):
        for colour in range(3):
            changed = input.clone()
            at = source[:, y, x] == (y * 5 + x) * 3 + colour
            changed[0, at, y, x] += 1.0
            same = layer(changed)[0] == before
            moment = (y * 5 + x) * 3 + colour
            assert same[position < moment].all()
            assert not same[position == moment].all()


def test_colours_split_each_gate():
    layer = nn.RowLSTM(6, 3, data_channels=3, residual=False, learned_state=False)
    input, conv = torch.randn(2, 6, 3, 4), layer.input_to_state
    want = [
        genkern.masked_conv2d(input, w, b, data_channels=3)
        for w, b in zip(conv.weight.chunk(4), conv.bias.chunk(4), strict=True)
    ]
    assert torch.equal(layer(input), genkern.row_lstm(torch.cat(want, 1), layer.weight_hh)[0])


def test_layer_is_convolution_scan_and_residual():
    layer = nn.RowLSTM(6, 4, dtype=F64)
    torch.nn.init.normal_(layer.h0), torch.nn.init.normal_(layer.c0)
    input = torch.randn(2, 6, 3, 5, dtype=F64, requires_grad=True)
    gates = genkern.masked_conv2d(input, layer.input_to_state.weight, layer.input_to_state.bias)
    state = [s[:, None].expand(2, 4, 5) for s in (layer.h0, layer.c0)]
    want = input + layer.output(reference.forward(gates, layer.weight_hh, *state)[0])
    torch.testing.assert_close(layer(input), want)
    wanted = [input, *layer.parameters()]
    got_grads = torch.autograd.grad(layer(input).square().sum(), wanted)
    torch.testing.assert_close(got_grads, torch.autograd.grad(want.square().sum(), wanted))


def test_module_copies_loads_and_casts():
    layer = nn.RowLSTM(6, 4, mask_type="A", residual=False)
    names = {"input_to_state.weight", "input_to_state.bias", "weight_hh", "h0", "c0"}
    assert set(layer.state_dict()) == names and "mask_type='A'" in repr(layer)
    input = torch.randn(1, 6, 3, 5)
    other = nn.RowLSTM(6, 4, mask_type="A", residual=False)
    other.load_state_dict(layer.state_dict())
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(clone(input), layer(input))
    plain = nn.RowLSTM(6, 4, residual=False, learned_state=False)
    assert plain.h0 is None and plain(input).shape == (1, 4, 3, 5)
    assert layer.bfloat16()(input.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain(input).dtype == torch.bfloat16


# ---- tests of the tests ----------------------------------------------------------------------


def permuted(order):
    def function(gates, weight, h0, c0):
        swap = lambda t: torch.cat([t.chunk(4)[i] for i in order])  # noqa: E731
        return reference.forward(swap(gates.transpose(0, 1)).transpose(0, 1), swap(weight), h0, c0)

    return function


def edge_lost(gates, weight, h0, c0):
    wide = F.pad(gates, (0, 1)), weight, F.pad(h0, (0, 1)), F.pad(c0, (0, 1))
    return [t[..., :-1] for t in reference.forward(*wide)]


MUTANTS = {
    "gate order i, f, o, g": permuted((2, 1, 0, 3)),
    "gate order of torch": permuted((2, 1, 3, 0)),
    "h0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0 * 0, c0),
    "c0 dropped": lambda x, w, h0, c0: reference.forward(x, w, h0, c0 * 0),
    "no halo": edge_lost,
    "taps mirrored": lambda x, w, h0, c0: reference.forward(x, w.flip(2), h0, c0),
    "taps shifted": lambda x, w, h0, c0: reference.forward(x, w.roll(1, 2), h0, c0),
    "last unit ignored": lambda x, w, h0, c0: reference.forward(
        x, torch.cat([w[:, :-1], w[:, -1:] * 0], 1), h0, c0
    ),
    "gradient of h0 stopped": lambda x, w, h0, c0: reference.forward(
        x, w, h0.detach() + 0 * h0, c0
    ),
    "gradient of the weight through half of the batch": lambda x, w, h0, c0: tuple(
        torch.cat(pair)
        for pair in zip(
            reference.forward(x[:1], w, h0[:1], c0[:1]),
            reference.forward(x[1:], w.detach(), h0[1:], c0[1:]),
            strict=True,
        )
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_mutants(name, dtype):
    inputs, upstream = make(2, 5, 4, 7, 3, dtype)
    check_closely(fused, reference.forward, inputs, upstream)
    with pytest.raises(AssertionError):
        check_closely(fused, MUTANTS[name], inputs, upstream)
