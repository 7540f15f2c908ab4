"""Plain calls on CPU tensors go past the dispatcher, and nothing else does."""

import pickle
from unittest import mock

import pytest
import torch
from contract import python
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import genkern
from genkern import library

pytestmark = pytest.mark.skipif(
    not library.has_direct_calls, reason="no compiled part, or a torch without the DLPack table"
)


class Dispatched:
    """Names of genkern's ops that go through the dispatcher inside of the block."""

    def __enter__(self):
        names: list[str] = []
        original = torch._ops.OpOverload.__call__

        def counted(op, /, *args, **kwargs):
            if op.namespace == "genkern":
                names.append(op._opname)
            return original(op, *args, **kwargs)

        self.patch = mock.patch.object(torch._ops.OpOverload, "__call__", counted)
        self.patch.__enter__()
        return names

    def __exit__(self, *exception):
        self.patch.__exit__(*exception)


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).requires_grad_()


def images(dtype=torch.float32):
    return leaf(2, 3, 5, 4, dtype=dtype).to(memory_format=torch.channels_last).detach()


CALLS = {
    "gan_loss": lambda d: genkern.gan_d_loss(leaf(7, dtype=d), leaf(7, dtype=d)),
    "gaussian": lambda d: genkern.gaussian_kl_rsample(leaf(3, 4, dtype=d), leaf(3, 4, dtype=d)),
    "masked_conv2d": lambda d: genkern.masked_conv2d(
        images(d).requires_grad_(), leaf(2, 3, 3, 3, dtype=d), leaf(2, dtype=d)
    ),
    "row_lstm": lambda d: genkern.row_lstm(leaf(2, 8, 3, 4, dtype=d), leaf(8, 2, 3, dtype=d))[0],
}


def values_and_gradients(op, dtype):
    torch.manual_seed(1)
    outputs = CALLS[op](dtype)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    leaves = [node.variable for node, _ in outputs[0].grad_fn.next_functions if node]
    upstream = [torch.ones_like(y) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, upstream)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", CALLS)
def test_a_plain_call_goes_past_the_dispatcher_with_the_same_bits(op, dtype):
    with Dispatched() as names:
        direct = values_and_gradients(op, dtype)
    assert names == []
    with torch.autograd.profiler.profile(), Dispatched() as names:
        through = values_and_gradients(op, dtype)
    assert names == [f"{op}_forward", f"{op}_backward"]
    for x, y in zip(direct, through, strict=True):
        assert x.dtype == y.dtype == dtype and x.stride() == y.stride()
        assert torch.equal(x, y)


def test_what_comes_back_is_an_ordinary_tensor_that_outlives_the_inputs():
    x = torch.randn(3, 5)
    y = genkern.gaussian_rsample(x, x, eps=torch.zeros(3, 5))
    del x
    before = y.clone()
    assert type(y) is torch.Tensor and y.device.type == "cpu" and y._version == 0
    assert y.is_contiguous() and y.storage_offset() == 0 and not y.requires_grad
    assert torch.equal(pickle.loads(pickle.dumps(y)), before)
    assert torch.equal(torch.from_numpy(y.numpy()), before)
    view = y[1:].T
    del y
    assert torch.equal(view.add_(1), before[1:].T + 1) and view._version == 1


def test_the_memory_of_a_result_is_returned():
    code = """
import resource, torch, genkern
x = torch.randn(1 << 22)
size = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for i in range(40):
    genkern.gan_g_loss(x, reduction="none")
    if i == 2: before = size()
print(size() - before < 2 * (1 << 14))
"""
    assert python(code) == "True\n"


class Watching(TorchDispatchMode):
    names: tuple = ()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names += (str(function),)
        return function(*args, **(kwargs or {}))


class FunctionWatching(TorchFunctionMode):
    names: tuple = ()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names += (str(function),)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Watching, FunctionWatching])
def test_modes_see_the_call(mode):
    x = torch.randn(4)
    with mode() as watching:
        genkern.gan_g_loss(x)
    assert any("genkern.gan_loss_forward" in name for name in watching.names)


def test_a_fake_tensor_stays_fake():
    with FakeTensorMode():
        assert isinstance(genkern.gan_g_loss(torch.empty(4)), FakeTensor)


def test_the_profiler_sees_the_call():
    x = torch.randn(4)
    with torch.profiler.profile() as profile:
        genkern.gan_g_loss(x)
    assert "genkern::gan_loss_forward" in {event.key for event in profile.key_averages()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_holds_the_op_and_not_its_result():
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: genkern.gan_g_loss(x), torch.randn(4))
    assert "genkern::gan_loss_forward" in str(traced.graph)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "unusual",
    [
        torch.randn(4).as_subclass(Subclass),
        torch.empty(0),
        torch.empty(4, device="meta"),
        torch.randn(4).to_sparse(),
        torch.zeros(4, dtype=torch.int32),
        torch.randn(4).numpy(),
        None,
    ],
    ids=lambda x: type(x).__name__,
)
def test_other_arguments_are_left_to_the_dispatcher(unusual):
    direct = library.compiled.gan_loss_forward
    plain = torch.randn(4)
    assert direct(plain, plain, 0, 0, 0.0, 1) is not NotImplemented
    assert direct(plain, unusual, 0, 0, 0.0, 1) is NotImplemented


@pytest.mark.parametrize(
    "options", [(0, 0, 0.0), (0, 0, 0, 1), (0, 0.0, 0.0, 1), (True, 0, 0.0, 1), (2**70, 0, 0.0, 1)]
)
def test_other_options_are_left_to_the_dispatcher(options):
    plain = torch.randn(4)
    assert library.compiled.gan_loss_forward(plain, plain, *options) is NotImplemented


def test_an_error_inside_of_an_op_is_raised():
    image = torch.randn(1, 1, 4, 4)
    with pytest.raises(RuntimeError, match="dim"):
        library.compiled.masked_conv2d_forward(image[0], image[0], None, False, 1, 1, False)


def test_without_the_table_every_call_takes_the_dispatcher():
    code = """
import torch
del torch.Tensor.__dlpack_c_exchange_api__
import genkern
from genkern import library
x = torch.ones(4)
plain = library.compiled.gan_loss_forward(x, x, 0, 0, 0.0, 1)
print(library.has_direct_calls, plain is NotImplemented, round(genkern.gan_d_loss(x, x).item(), 4))
"""
    assert python(code) == "False True 1.6265\n"
