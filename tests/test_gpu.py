"""The Triton backend on a CUDA device: `make gpu-test` runs this file; elsewhere it is skipped."""

import importlib
import importlib.util
import shutil
import subprocess
import sys

import pytest
import torch
from contract import double, run
from tolerance import assert_close

import genkern
from genkern import random
from genkern.reference import gan_loss as gan_loss_reference
from genkern.reference import gaussian as gaussian_reference
from genkern.reference import masked_conv2d as masked_conv2d_reference
from genkern.reference import row_lstm as row_lstm_reference

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FAMILIES = ("gaussian", "gan_loss", "masked_conv2d", "row_lstm")
PROPERTY = "match_the_float64_reference"
F64 = torch.float64


@pytest.fixture(autouse=True)
def on_cuda():
    """New tensors are on the GPU, and anything but Triton raises."""
    with torch.device("cuda"), genkern.use_backend("triton"):
        yield


def properties() -> list[tuple[str, str]]:
    """The property tests of the CPU suite: (module, test)."""
    found = []
    for family in FAMILIES:
        if importlib.util.find_spec(f"test_{family}") is None:
            continue
        module = importlib.import_module(f"test_{family}")
        tests = [n for n, f in vars(module).items() if PROPERTY in n and hasattr(f, "hypothesis")]
        found += [(f"test_{family}", name) for name in tests]
    return found


@pytest.mark.parametrize("module, name", properties())
def test_property_of_the_cpu_suite(module, name):
    getattr(importlib.import_module(module), name)()


def enough_memory(gigabytes: float) -> None:
    if torch.cuda.mem_get_info()[0] < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GiB of free device memory")


@pytest.fixture(autouse=True)
def memory_is_given_back():
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- sizes -----------------------------------------------------------------------------------


def both(function, definition, inputs, upstream, terms=1, scale=1.0):
    """Values and gradients in float64 against the reference."""
    got, want = run(function, inputs, upstream), run(definition, inputs, upstream)
    for g, w in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert_close(g, w, terms=terms, scale=scale * max(1.0, w.abs().max().item()))


@pytest.mark.parametrize("N", [65_535, 65_536, 65_537])
def test_batches_around_the_limit_of_the_other_grid_axes(N):
    x = [torch.randn(N, 3, dtype=F64) for _ in range(3)]
    both(
        lambda *t: genkern.gaussian_kl_rsample(t[0], t[1], eps=t[2]),
        lambda *t: (gaussian_reference.rsample(*t), gaussian_reference.kl(t[0], t[1])),
        x, [x[0], x[1][:, 0]], terms=3, scale=8.0,
    )  # fmt: skip
    both(genkern.gan_d_loss, gan_loss_reference.d_loss, x[:2], [torch.ones((), dtype=F64)])
    image, weight = torch.randn(N, 1, 3, 3, dtype=F64), torch.randn(2, 1, 3, 3, dtype=F64)
    both(
        lambda i, w: genkern.masked_conv2d(i, w, mask_type="A"),
        lambda i, w: masked_conv2d_reference.forward(i, w, None, "A"),
        [image, weight], [torch.randn(N, 2, 3, 3, dtype=F64)], terms=9 * N, scale=8.0,
    )  # fmt: skip
    gates, weight = torch.randn(N, 4, 2, 3, dtype=F64), torch.randn(4, 1, 3, dtype=F64)
    both(
        lambda g, w: genkern.row_lstm(g, w)[0],
        lambda g, w: row_lstm_reference.forward(g, w)[0],
        [gates, weight], [torch.randn(N, 1, 2, 3, dtype=F64)], terms=6 * N, scale=8.0,
    )  # fmt: skip


def test_gaussian_beyond_2_to_the_31_elements():
    enough_memory(32)
    D, N = 4096, 2**19 + 3
    mu, logvar = (torch.zeros(N, D, dtype=torch.bfloat16) for _ in range(2))
    mu[-1], logvar[-1] = torch.randn(2, D).bfloat16()
    z, kl = genkern.gaussian_kl_rsample(mu, logvar, eps=mu)
    last = double([mu[-1:], logvar[-1:]])
    assert_close(z[-1:], gaussian_reference.rsample(*last, last[0]), scale=16.0)
    assert_close(kl[-1:], gaussian_reference.kl(*last), terms=D, scale=4.0 * D)
    assert not z[:-1].any() and not kl[:-1].any()


def test_gan_loss_beyond_2_to_the_31_elements():
    enough_memory(20)
    logits = torch.zeros(2**31 + 4099, dtype=torch.bfloat16)
    logits[-1] = 3.0
    loss = genkern.gan_g_loss(logits, reduction="none")
    want = gan_loss_reference.softplus(-logits[-2:].double())
    assert_close(loss[-2:], want, scale=want)
    total = genkern.gan_d_loss(logits[-5:], logits, kind="wgan", reduction="sum")
    assert total.item() == 0.0


def test_masked_conv2d_beyond_2_to_the_31_elements():
    enough_memory(24)
    N, C, side = 2**15 + 1, 16, 64
    image, weight = torch.zeros(N, C, side, side, dtype=torch.bfloat16), torch.randn(C, C, 3, 3)
    image[-1] = torch.randn(C, side, side).bfloat16()
    weight = weight.bfloat16()
    output = genkern.masked_conv2d(image, weight)
    want = masked_conv2d_reference.forward(*double([image[-1:], weight]))
    assert_close(output[-1:], want, terms=5 * C, scale=8.0)
    assert not output[:-1].any()


# ---- noise, graphs, streams ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5), (7, 1000), (1, 100_001)])
def test_noise_is_the_stream_of_the_cpu(shape, dtype):
    zeros, seed = torch.zeros(shape, dtype=dtype), torch.tensor([123456789012345678])
    forward = torch.ops.genkern.gaussian_forward.default
    z, _ = forward(zeros, zeros, None, None, None, seed, None, 0.0, False)
    want = random.philox_normal(seed.cpu(), shape, F64)
    assert_close(z.cpu(), want, scale=0.125)


def captured(function):
    """A CUDA graph of one call, after the warm-up that compiles the kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


def test_replays_of_a_graph_draw_different_noise():
    mu, logvar = torch.zeros(64, 33), torch.zeros(64, 33)
    graph, z = captured(lambda: genkern.gaussian_rsample(mu, logvar))
    draws = []
    for _ in range(2):
        graph.replay()
        draws.append(z.clone())
    assert not torch.equal(*draws)
    assert draws[0].std().sub(1).abs() < 0.1


@pytest.mark.parametrize("op", ["split rows", "sum", "step"])
def test_replays_of_a_graph_repeat_the_result(op):
    x = torch.randn(2, 100_000, requires_grad=True)

    def call():
        if op == "split rows":
            return genkern.gaussian_kl(x.detach(), x.detach())
        if op == "sum":
            return genkern.gan_d_loss(x.detach(), x.detach())
        (grad,) = torch.autograd.grad(genkern.gaussian_kl(x, x).sum(), x)
        return grad

    expected = call()
    graph, result = captured(call)
    for _ in range(3):
        result.zero_()
        graph.replay()
        assert torch.equal(result, expected)


def test_two_streams_do_not_disturb_each_other():
    x = [torch.randn(2, 200_000), torch.randn(3, 150_000)]
    expected = [(genkern.gaussian_kl(t, t), genkern.gan_d_loss(t, t)) for t in x]
    streams = [torch.cuda.Stream() for _ in x]
    results = [[] for _ in x]
    torch.cuda.synchronize()
    for _ in range(50):
        for t, stream, found in zip(x, streams, results, strict=True):
            with torch.cuda.stream(stream):
                found.append((genkern.gaussian_kl(t, t), genkern.gan_d_loss(t, t)))
    torch.cuda.synchronize()
    for want, found in zip(expected, results, strict=True):
        assert all(torch.equal(a, b) for pair in found for a, b in zip(pair, want, strict=True))


def test_tensors_on_different_devices_are_named():
    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="logvar must be on cuda:0 like mu; got cpu"):
        genkern.gaussian_kl(x, x.cpu())
    with pytest.raises(RuntimeError, match="must be on cuda:0 like real_logits; got cpu"):
        genkern.gan_d_loss(x, x.cpu())


SANITIZED = """
import torch, genkern
with torch.device("cuda"), genkern.use_backend("triton"):
    for shape in ((3, 5), (2, 130), (1, 9001)):
        mu, logvar = (torch.randn(shape, requires_grad=True) for _ in range(2))
        z, kl = genkern.gaussian_kl_rsample(mu, logvar)
        loss = genkern.gan_d_loss(z, mu) + genkern.gan_d_loss(z, mu, kind="rabce")
        (z.sum() + kl.sum() + loss).backward()
    torch.cuda.synchronize()
print("finished")
"""


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool, monkeypatch):
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")  # every tensor has its own bounds
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    command += [sys.executable, "-c", SANITIZED]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and "finished" in result.stdout, result.stdout + result.stderr
