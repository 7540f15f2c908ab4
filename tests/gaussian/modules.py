"""nn.GaussianLatent; annealed options; compiled, traced and exported."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import genkern
from genkern import nn
from tests.core.programs import compilations, compiled_gradients, onnx_outputs, traced


def leaves(count, *shape):
    return [torch.randn(shape, requires_grad=True) for _ in range(count)]


@pytest.mark.parametrize("shape", [(2, 5), (3,), ()])
def test_features_must_be_halves(shape):
    text = r"GaussianLatent: features must have shape \(N, 2 D, ...\), mu and logvar .*; got \("
    with pytest.raises(ValueError, match=text):
        nn.GaussianLatent()(torch.randn(shape))


def test_a_wrong_floor_or_feature_is_named():
    with pytest.raises(TypeError, match="GaussianLatent: free_bits must be a number; got 'x'"):
        nn.GaussianLatent(free_bits="x")
    with pytest.raises(TypeError, match="GaussianLatent: features must be a Tensor; got NoneType"):
        nn.GaussianLatent()(None)


def test_a_floor_may_be_a_tensor():
    mu, logvar = leaves(2, 4, 3)
    for value in (0.0, 0.3, 1.0):
        number = genkern.gaussian_kl(mu, logvar, free_bits=value)
        tensor = genkern.gaussian_kl(mu, logvar, free_bits=torch.tensor(value))
        with genkern.use_backend("reference"):
            plain = genkern.gaussian_kl(mu, logvar, free_bits=torch.tensor(value))
        assert torch.allclose(number, tensor, rtol=0, atol=1e-6)  # 0.3 is no float32
        torch.testing.assert_close(plain, tensor)
        grads = [torch.autograd.grad(x.sum(), (mu, logvar)) for x in (number, tensor, plain)]
        torch.testing.assert_close(grads[0], grads[1])
        torch.testing.assert_close(grads[0], grads[2])


@pytest.mark.parametrize(
    "value, error, text",
    [
        (torch.ones(3), ValueError, r"number or a 0-dim constant Tensor; got shape \(3,\)"),
        (torch.ones((), requires_grad=True), ValueError, "got one that requires grad"),
        (torch.ones((), dtype=torch.int64), TypeError, "free_bits must be one of float32"),
        (torch.ones((), device="meta"), RuntimeError, "free_bits must be on cpu; got meta"),
    ],
)
def test_a_wrong_tensor_for_a_floor_is_refused(value, error, text):
    x = torch.randn(2, 3)
    with pytest.raises(error, match=f"gaussian_kl: .*{text}"):
        genkern.gaussian_kl(x, x, free_bits=value)


def test_numbers_of_samples_do_not_compile_again_each():
    mu, logvar = leaves(2, 3, 4)
    draws = lambda m, n: genkern.gaussian_rsample(m, logvar, num_samples=n)  # noqa: E731
    assert compilations(draws, mu, range(1, 21)) <= 2


def test_one_tensor_in_two_arguments_is_one_graph():
    mu, logvar, prior = leaves(3, 3, 4)
    kl = lambda m, v, p: genkern.gaussian_kl(m, v, prior=(p, p)).square().sum()  # noqa: E731
    compiled_gradients(kl, [mu, logvar, prior])
    compiled_gradients(lambda m: genkern.gaussian_kl(m, m).square().sum(), [mu])


def test_a_checkpointed_latent_is_one_graph():
    features, eps = torch.randn(3, 8, requires_grad=True), torch.randn(3, 4)
    latent = nn.GaussianLatent()

    def loss(features):
        z, kl = checkpoint(latent, features, eps, use_reentrant=False)
        return z.square().sum() + kl.sum()

    compiled_gradients(loss, [features])


def test_traced_and_exported_latents_run_without_genkern(tmp_path):
    features = torch.randn(2000, 8)
    mu, scale = features[:, :4], torch.exp(0.5 * features[:, 4:])
    latent = nn.GaussianLatent(free_bits=0.1)
    kl = latent(features)[1]
    z, traced_kl = traced(latent, features, tmp_path / "latent.pt")(features)
    found = [(z, traced_kl)]
    for dynamo in (True, False):
        outputs = onnx_outputs(latent, features, tmp_path / "latent.onnx", dynamo=dynamo)
        found.append(tuple(map(torch.from_numpy, outputs)))
    for z, exported_kl in found:
        torch.testing.assert_close(exported_kl, kl)
        noise = (z - mu) / scale
        assert noise.mean().abs() < 0.05 and (noise.std() - 1).abs() < 0.05
    assert not torch.equal(found[1][0], found[2][0])


def test_numbers_of_numpy_are_numbers():
    x = torch.randn(2, 3)
    want = genkern.gaussian_kl(x, x, free_bits=0.5)
    for value in (np.float32(0.5), np.float64(0.5), np.float16(0.5)):
        assert torch.equal(genkern.gaussian_kl(x, x, free_bits=value), want)
    assert genkern.gaussian_rsample(x, x, num_samples=np.int64(4)).shape == (4, 2, 3)


def test_given_noise_needs_no_generator():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="generator must be None where eps is given; got both"):
        genkern.gaussian_rsample(x, x, eps=x, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"generator must be a .*Generator; got int"):
        genkern.gaussian_rsample(x, x, generator=3)
