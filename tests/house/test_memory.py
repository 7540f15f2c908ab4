"""Most bytes that a call holds at once, beyond its arguments: no op may grow it unseen."""

import pytest
import torch

import genkern
from benchmarks.core.cpu import allocator_peak

pytestmark = pytest.mark.skipif(
    genkern.library.compiled is None, reason="GENKERN_BUILD=none: the references promise no peak"
)
FLOAT, SEED = 4, 8  # bytes
SLACK = 2**16  # alignment and rounding of scratch


def forward_backward(function, *inputs):
    """A call that returns what is alive at its end: outputs, gradients, saved tensors."""

    def call():
        outputs = function(*inputs)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
        upstream = [torch.zeros(()).expand_as(y) for y in outputs]
        return outputs, torch.autograd.grad(outputs, inputs, upstream)

    return call


def leaves(*shapes):
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def test_gaussian_kl_rsample_saves_its_arguments_and_eight_bytes_of_seed():
    mu, logvar = leaves((512, 300), (512, 300))
    z, kl = mu.numel() * FLOAT, 512 * FLOAT
    results = allocator_peak(lambda: genkern.gaussian_kl_rsample(mu, logvar))
    assert results == z + kl + SEED  # the noise is not kept, e^{l/2} neither
    upstream = z + kl  # dense copies of the expanded gradients
    both = allocator_peak(forward_backward(genkern.gaussian_kl_rsample, mu, logvar))
    assert z + kl + SEED + 2 * z <= both <= z + kl + SEED + 2 * z + upstream + FLOAT * 2


def test_gaussian_kl_holds_one_number_a_row():
    mu, logvar = leaves((512, 300), (512, 300))
    assert allocator_peak(lambda: genkern.gaussian_kl(mu, logvar)) == 512 * FLOAT


@pytest.mark.parametrize("kind", ["bce", "hinge", "lsgan", "wgan", "rabce"])
def test_gan_losses_hold_the_loss_and_the_gradients(kind):
    real, fake = leaves(100_000, 70_000)

    def loss(real, fake):
        return genkern.gan_d_loss(real, fake, kind=kind)

    with torch.no_grad():
        assert allocator_peak(lambda: loss(real, fake)) == FLOAT
    both = allocator_peak(forward_backward(loss, real, fake))
    assert 0 <= both - (real.numel() + fake.numel() + 1) * FLOAT <= 2 * FLOAT


@pytest.mark.parametrize("k", [1, 3, 7])
def test_masked_conv2d_scratch_is_a_padded_copy_of_the_image(k):
    x, w = leaves((2, 8, 256, 256), (8, 8, k, k))
    y = x.numel() * FLOAT
    image = y * (256 + k - 1) / 256
    forward = allocator_peak(lambda: genkern.masked_conv2d(x, w))
    assert y <= forward <= y + image + w.numel() * FLOAT + SLACK  # im2col would be k^2 / 2 images
    both = allocator_peak(forward_backward(genkern.masked_conv2d, x, w))
    assert both <= 2 * y + 2 * image + 4 * w.numel() * FLOAT + SLACK


def test_row_lstm_saves_gates_and_cells():
    N, hidden, H, W = 2, 16, 64, 48
    gates, weight = leaves((N, 4 * hidden, H, W), (4 * hidden, hidden, 3))
    h, state = N * hidden * H * W * FLOAT, 2 * N * hidden * W * FLOAT

    def layer(gates, weight):
        return genkern.row_lstm(gates, weight)[0]

    with torch.no_grad():
        assert allocator_peak(lambda: layer(gates, weight)) == h + state
    saved = 5 * h  # four gates and the cell
    assert allocator_peak(lambda: layer(gates, weight)) == h + state + saved
    both = allocator_peak(forward_backward(layer, gates, weight))
    d_gates, upstream = 4 * h, h
    rings = N * (2**20 + SLACK)  # rows of each image: about its cache
    most = h + state + saved + d_gates + upstream + rings + 2 * weight.numel() * FLOAT + SLACK
    assert both <= most
