"""Ops of public models, each between two masked convolutions; MADE, NADE and the like; refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genkern
from examples.autoregressive.fvsbn import FVSBN
from examples.autoregressive.made import MADE
from examples.autoregressive.nade import NADE
from examples.fast_sampling.public import public
from examples.model import DataSpec
from genkern import sampling
from genkern.nn import MaskedConv2d
from genkern.ops.bias_act import ACTIVATIONS
from genkern.sampling import chances, incremental, methods
from genkern.sampling.incremental import Stepper
from tests.sampling.test_stepper import forced

C, H, W, LEVELS, N = 6, 3, 4, 4, 3
METHODS = ("incremental", "wavefront")  # which have a rule for each op; jacobi calls the model


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(C)
    for name, values in norm.named_buffers():
        if values.is_floating_point():
            values.copy_(0.2 + torch.rand(C) * (3 if "var" in name else 1))
    return norm


class Moved(nn.Module):
    """A layer over what ``there`` makes of features, and back."""

    def __init__(self, layer, there, back) -> None:
        super().__init__()
        self.layer, self.there, self.back = layer, there, back

    def forward(self, x):
        return self.back(self.layer(self.there(x)), x)


def channels_last(layer) -> nn.Module:
    return Moved(layer, lambda x: x.permute(0, 2, 3, 1), lambda y, x: y.permute(0, 3, 1, 2))


def sequence(layer) -> nn.Module:
    return Moved(layer, lambda x: x.flatten(2).mT, lambda y, x: y.mT.unflatten(2, x.shape[2:]))


def bias_act(act: str):
    bias = torch.linspace(-1, 1, C).double()
    return lambda x: genkern.bias_act(x, bias.to(x), act=act, alpha=0.3, gain=1.3, clamp=0.9)


MASK = torch.arange(H * W).view(H, W) % 3 == 0
OPS = {
    "batch_norm": batch_norm,
    "batch_norm_plain": lambda: nn.BatchNorm2d(C, affine=False),
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "prelu": lambda: nn.PReLU(C),
    "prelu_one": nn.PReLU,
    "elu": lambda: nn.ELU(0.7),
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": lambda: nn.Softplus(beta=2.0, threshold=1.0),
    "hardtanh": nn.ReLU6,
    "clamp": lambda: lambda x: x.clamp(-0.2, 0.3) + x.clamp(min=0.1) + x.clamp_max(0.2),
    "dropout": lambda: lambda x: F.dropout(F.dropout2d(x, training=False), training=False),
    "constants": lambda: lambda x: 1 - (2 * x + torch.linspace(-1, 1, C).view(C, 1, 1)) / 3,
    "where": lambda: lambda x: torch.where(MASK, x, 0.5) + torch.where(~MASK, torch.ones(()), x),
    "masked_fill": lambda: lambda x: x.masked_fill(MASK, -2.0).square(),
    "round": lambda: lambda x: (8 * x).round() / 8 + x.trunc(),
    "permute": lambda: channels_last(lambda x: x * torch.linspace(-1, 1, C).double().to(x)),
    "stack": lambda: lambda x: torch.stack(x.unbind(1)[::-1], 1) + x.flip(3).flip(3)[:, ::1],
    "layer_norm": lambda: channels_last(nn.LayerNorm(C)),
    "layer_norm_of_rows": lambda: sequence(nn.LayerNorm(C, 0.1, elementwise_affine=False)),
    "mean": lambda: (
        lambda x: x.mean(1, keepdim=True) / (x.square().sum(1) + 1)[:, None].sqrt() - x[:, :, :1]
    ),
    "rms": lambda: channels_last(lambda x: x * (x.square().mean(-1, keepdim=True) + 0.1).rsqrt()),
    "repeated": lambda: lambda x: x / (2 + x[:, :1]) + torch.ones(C, 1, 1) / (2 + x[:, 1:2].tanh()),
    "index": lambda: lambda x: x[:, torch.arange(C).flip(0)].flatten(1).unflatten(1, (C, H, W)),
}
OPS |= {f"bias_act_{act}": lambda act=act: bias_act(act) for act in ACTIVATIONS}


class Net(nn.Module):
    def __init__(self, op) -> None:
        super().__init__()
        self.first, self.head = MaskedConv2d(1, C, 3, mask_type="A"), MaskedConv2d(C, LEVELS, 1)
        self.op = op

    def forward(self, x):
        return self.head(self.op(self.first(x)))


class Embedded(nn.Module):
    """Levels enter through a table, as the codes of a VQ-VAE do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layers = nn.Embedding(LEVELS, C), MaskedConv2d(C, LEVELS, 3, mask_type="A")

    def forward(self, x):
        return self.layers(self.table(x.squeeze(1).long()).permute(0, 3, 1, 2))


class PublicMADE(nn.Module):
    """Masks multiply the weights of F.linear."""

    def __init__(self) -> None:
        super().__init__()
        places, hidden = torch.arange(H * W), torch.arange(20) % (H * W - 1)
        self.first, self.last = nn.Linear(H * W, 20), nn.Linear(20, H * W * LEVELS)
        self.live = [
            (hidden[:, None] >= places).double(),
            (places.repeat_interleave(LEVELS)[:, None] > hidden).double(),
        ]

    def forward(self, x):
        first, last = (live.to(x) for live in self.live)
        x = F.linear(x.reshape(-1, H * W), self.first.weight * first, self.first.bias).relu()
        x = F.linear(x, self.last.weight * last, self.last.bias)
        return x.view(-1, H * W, LEVELS).transpose(1, 2).reshape(-1, LEVELS, H, W)


def randomised(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model.double().eval()


def check(model, shape=(1, H, W), inputs="symmetric", methods=METHODS) -> None:
    """Teacher-forced parameters by both executions, and images by every method."""
    output = sampling.Categorical(LEVELS, inputs=inputs)
    values = torch.randint(LEVELS, (N, *shape), generator=torch.Generator().manual_seed(0))
    images = output.to_inputs(values, torch.float64)
    with torch.no_grad():
        full = model(images)
    for available in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not available:
                patch.setattr(incremental.compiled, "is_available", lambda: False)
            found = forced(Stepper(model, torch.full_like(images, torch.nan)), images)
        torch.testing.assert_close(found, full, rtol=0, atol=1e-12)
    noise = sampling.draw_noise(N, shape=shape, output=output)
    draw = {"shape": shape, "output": output, "noise": noise}
    expected = sampling.sample(model, N, method="naive", **draw)
    assert len(expected.unique()) == LEVELS
    for method in methods:
        assert torch.equal(sampling.sample(model, N, method=method, **draw), expected)
    found = forced(Stepper(model.float(), images.float()), images.float())
    torch.testing.assert_close(found.double(), full, rtol=1e-5, atol=1e-5 * full.abs().max().item())


@pytest.mark.parametrize("name", OPS)
def test_ops_of_public_models(name):
    torch.manual_seed(3)
    pointwise = name.startswith("bias_act")  # one rule for all of them
    check(randomised(Net(OPS[name]())), methods=METHODS[:1] if pointwise else METHODS)


def test_embedding_of_integers():
    torch.manual_seed(3)
    check(randomised(Embedded()), inputs="index")


SEQUENCES = {
    "made": lambda spec: MADE(spec, hidden=20),
    "nade": lambda spec: NADE(spec, hidden=5),
    "fvsbn": FVSBN,
}


@pytest.mark.parametrize("shape", [(1, H, W), (3, 2, 2)], ids=["grey", "rgb"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_models_of_whole_images(name, shape):
    torch.manual_seed(3)
    model = Features(randomised(SEQUENCES[name](DataSpec(shape, LEVELS))))
    check(model, shape, methods=("incremental", "jacobi"))
    output = sampling.Categorical(LEVELS)
    draw = {"shape": shape, "output": output, "method": "incremental"}
    draw["noise"] = sampling.draw_noise(N, shape=shape, output=output)
    whole = sampling.sample(model, N, **draw)
    for row, column in ((0, 1), (1, 0)):
        given = torch.zeros(shape[1:], dtype=torch.bool)
        given[:row], given[row, :column] = True, True
        partial = torch.where(given, whole.long(), -1)
        assert torch.equal(sampling.sample(model, N, partial=partial, **draw), whole)


def test_masks_that_multiply_weights():
    torch.manual_seed(3)
    check(randomised(PublicMADE()), methods=("incremental",))


class Coloured(nn.Module):
    """Masks of colours that multiply the kernels of F.conv2d."""

    def __init__(self) -> None:
        super().__init__()
        layers = [MaskedConv2d(3, 9, 3, mask_type="A", data_channels=3),
                  MaskedConv2d(9, 3 * LEVELS, 3, data_channels=3)]  # fmt: skip
        self.layers = public(nn.Sequential(*layers))

    def forward(self, x):
        return self.layers(x)


def test_masks_of_colours_that_multiply_kernels():
    torch.manual_seed(3)
    check(randomised(Coloured()), (3, 2, 3), methods=("incremental",))


class Features(nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.features(x)


REFUSED = {
    "group_norm": (lambda: nn.GroupNorm(2, C), "group norm must not be part of a causal model"),
    "instance_norm": (lambda: nn.InstanceNorm2d(C), "norm, which does not, is not causal"),
    "layer_norm": (lambda: nn.LayerNorm([C, H, W]), "layer norm over pixels must not be part"),
    "sum": (lambda: lambda x: x / x.sum(), "a sum over pixels must not"),
    "row_mean": (lambda: lambda x: x - x.mean(3, keepdim=True), "a mean over pixels must not"),
    "training": (lambda: lambda x: F.batch_norm(x, None, None, training=True), "of the batch"),
    "mean": (lambda: lambda x: x - x.mean((2, 3), keepdim=True), "a mean over pixels must not"),
    "dropout": (lambda: F.dropout, r"dropout must be off; call F.dropout\(x, training="),
    "cos": (lambda: torch.cos, r"aten::cos .*register_step\('aten::cos', rule\)"),
    "groups": (lambda: nn.Conv2d(C, C, 1, groups=2), "a convolution must have one group"),
    "batch": (lambda: lambda x: x.flatten(0, 1).unflatten(0, (-1, C)), "keep the images a dim"),
    "linear": (
        lambda: channels_last(nn.Linear(C, C)),
        rf"aten::view of features \({N}, {H}, {W}, {C}\) with the images in dim 0 must keep the "
        rf"images .*got sizes \({N * H * W}, {C}\) \(of a linear layer .*a 1x1 convolution.*"
        r"in .*\(Linear\)",
    ),
    "einsum": (
        lambda: lambda x: torch.einsum("nchw,dc->ndhw", x, torch.ones(C, C)),
        "images in dim 0 must keep the images .*of a linear layer or einsum",
    ),
    "condition": (lambda: lambda x: torch.where(x > 0, x, 0.1), "aten::gt"),
    "power": (lambda: lambda x: x**3, "the exponent of pow must be 2; got 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name):
    make, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        Stepper(Net(make()).eval(), torch.zeros(N, 1, H, W))


def test_auto_warns_of_group_norm(monkeypatch):
    monkeypatch.setattr(methods, "_told", set())
    output = sampling.Categorical(LEVELS)
    with pytest.warns(UserWarning, match="causal model alone: group norm must not be part"):
        sampling.sample(Net(nn.GroupNorm(2, C)).eval(), 1, shape=(1, H, W), output=output)


@pytest.mark.parametrize("colours, levels", [(1, 2), (1, 5), (3, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_chances_in_cpp_are_those_in_torch(colours, levels, dtype):
    torch.manual_seed(0)
    params = 2 * torch.randn(7, (3 if colours == 1 else 10) * 3, dtype=dtype)
    params[0, 6:9] = -9.0  # log-scales below the least
    params[1, 3:6] = 40.0  # a mean beyond the last level
    tolerance = 1e-13 if dtype == torch.float64 else 2e-6
    for count in range(colours):
        known = torch.randint(levels, (7, count))
        found = chances.chances_of(params, known, levels, colours)
        expected = chances.in_torch(params.double(), known, levels, colours)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance**1.5)
        torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
        again = chances.chances_of(params[2:3], known[2:3], levels, colours)
        assert torch.equal(again, found[2:3])
