"""The sampler's Triton kernels, interpreted: what steps compute and draw, and their launches."""

from unittest import mock

import pytest
import torch
from torch import nn

pytest.importorskip("triton")
import genkern
from examples.model import DataSpec
from genkern.nn import MaskedConv2d
from genkern.sampling import compiled
from genkern.sampling.incremental import Stepper
from genkern.triton_kernels.sampler import kernels, plan, runner
from tests.core.triton_kit import interpreted, launches
from tests.sampling import test_rules
from tests.sampling.nets import Case, Net, drawn, make
from tests.sampling.test_rules import OPS, Embedded, PublicMADE, randomised
from tests.sampling.test_rules import Net as NetOf
from tests.sampling.test_stepper import forced
from tests.sampling.test_stepper import make as make_model

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
GREY, RGB = DataSpec((1, 3, 4), 4, 3), DataSpec((3, 3, 3), 4, 3)
OF_EXAMPLES = {
    "pixel_cnn": RGB, "gated": GREY, "of_class": GREY, "row": GREY, "diagonal": GREY, "pp": GREY,
}  # fmt: skip


class Everything(nn.Module):
    """A gated layer with a condition, a residual block, rows above, constants among features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MaskedConv2d(1, 10, 3, mask_type="A")
        self.condition = nn.Conv2d(2, 10, 1)
        self.residual = nn.Conv2d(10, 5, 1)
        self.above = MaskedConv2d(1, 3, (2, 1), mask_type="rows_above", bias=False)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        h = genkern.gated_activation(self.first(x), self.condition(condition))
        h = h + 0.5 * self.residual(genkern.concat_elu(h))
        return self.head(torch.cat([h, self.above(x), condition], 1))


def check_parameters(model, images, *condition, order="raster") -> None:
    """Step by step those of a full forward pass in float64."""
    with torch.no_grad():
        full = model.double()(images.double(), *(c.double() for c in condition))
    model.to(images.dtype)
    with interpreted("sampler"):
        stepper = Stepper(model, torch.full_like(images, torch.nan), *condition, order=order)
        found = forced(stepper, images)
    bound = 1e-12 if images.dtype == torch.float64 else 1e-5 * full.abs().max().item()
    torch.testing.assert_close(found.double(), full, rtol=0, atol=bound)


@pytest.mark.parametrize(
    "shape, dtype, order",
    [((2, 2), torch.float64, "raster"), ((2, 3), torch.float32, "wavefront")],
    ids=str,
)
def test_parameters_are_those_of_a_full_forward_pass(shape, dtype, order):
    images, condition = (torch.randn(2, c, *shape, dtype=dtype) for c in (1, 2))
    check_parameters(Everything(), images, condition, order=order)


def test_several_tiles(monkeypatch):
    """A few rows, units and factors are more than one of them."""
    monkeypatch.setattr(runner, "tile_of", lambda *_: runner.Tile(2, 8, 8))
    images, condition = (torch.randn(3, c, 1, 2).double() for c in (1, 2))
    check_parameters(Everything(), images, condition)


def test_weights_of_each_place_and_rows_that_integers_name(monkeypatch):
    monkeypatch.setattr(test_rules, "H", 1)
    check_parameters(randomised(PublicMADE()), torch.randn(2, 1, 1, 4).double())
    check_parameters(randomised(Embedded()), torch.randint(4, (2, 1, 1, 2)).double())


@pytest.mark.deep
@pytest.mark.parametrize("name", OF_EXAMPLES)
def test_models_of_the_examples(name):
    model, images, condition = make_model(name, OF_EXAMPLES[name])
    with torch.no_grad():
        full = model.features(images, *condition)
    with interpreted("sampler"):
        found = forced(Stepper(model.features, images, *condition), images)
    torch.testing.assert_close(found, full, rtol=0, atol=1e-12)


@pytest.mark.deep
@pytest.mark.parametrize("name", OPS)
def test_ops_of_public_models(name):
    torch.manual_seed(3)
    check_parameters(randomised(NetOf(OPS[name]())), torch.randn(2, 1, 3, 4).double())


DRAWS = [
    ("bernoulli", (1, 2, 2), {}),
    ("bernoulli-rgb", (3, 1, 1), {"partial": 0.4, "temperature": 2.0}),
    ("categorical", (1, 1, 2), {"top_k": 2, "temperature": 0.7}),
    ("categorical", (1, 1, 2), {"temperature": 0.0}),
    ("categorical-rgb", (3, 1, 2), {}),
    ("mixture", (1, 1, 2), {}),
    ("mixture-rgb", (3, 1, 2), {"partial": 0.4}),
    ("mixture-rgb", (3, 1, 1), {"temperature": 0.0}),
]


@pytest.mark.parametrize("kind, shape, options", DRAWS, ids=str)
def test_the_same_noise_is_the_same_image_and_log_p(kind, shape, options):
    case = make(kind)._replace(shape=shape)
    options = {"count": 3, "return_log_prob": True, "method": "incremental", **options}
    if "partial" in options:
        values = torch.randint(case.output.levels, (3, *shape))
        options["partial"] = torch.where(torch.rand(3, *shape) < options["partial"], values, -1)
    expected, log_prob = drawn(case, **options)
    with interpreted("sampler"):
        found, log_p = drawn(case, **options)
    assert torch.equal(found, expected)
    assert len(found.unique()) > 1 or options.get("temperature") == 0.0
    torch.testing.assert_close(log_p, log_prob, rtol=1e-12, atol=1e-12)


def test_a_condition_and_a_start_in_the_middle():
    case = make("categorical", "map")
    case = case._replace(shape=(1, 3, 2), condition=case.condition[:2, :, :3, :2])
    given = torch.full((2, *case.shape), -1)
    given[:, :, :2] = 3
    options = {"count": 2, "method": "incremental", "partial": given}
    expected = drawn(case, **options)
    with interpreted("sampler"), launches() as names:
        assert torch.equal(drawn(case, **options), expected)
    assert names.count("sampler_categorical_kernel") == 2  # pixels of the last row
    assert len(names) <= 3 * 4 + 2  # three layers of two rows that are given, and of two pixels


def test_nan_is_an_error():
    case = make("categorical")
    with torch.no_grad():
        case.model.head.bias.fill_(torch.nan)
    with interpreted("sampler"), pytest.raises(ValueError, match="finite parameters; got NaN"):
        drawn(case._replace(shape=(1, 1, 1)), count=1, method="incremental")


def test_every_operation_has_its_code():
    known = {name: getattr(kernels, name.upper()).value for name in compiled.FUNCTIONS}
    assert known == compiled._CODES
    assert kernels.LOOKUP.value == compiled._LOOKUP == plan.LOOKUP


def test_the_recorded_model_is_on_the_device_of_the_images():
    """Meta stands for CUDA: without a device of their own, features would be on the CPU."""
    model = Net(1, 4, True).to("meta").eval()
    stepper = Stepper(model, torch.empty(2, 1, 2, 3, device="meta"))
    assert {t.device.type for t in stepper._engine.caches.values()} == {"meta"}


def test_a_pattern_is_launched_then_captured_then_replayed(monkeypatch):
    """Also that replays draw what launches draw: the step is not part of what is captured."""
    captured, replayed = [], []

    def capture(call):
        captured.append(call)
        return mock.Mock(replay=lambda: replayed.append(call) or call())

    monkeypatch.setattr(runner, "has_graphs", lambda tensor: True)
    monkeypatch.setattr(runner, "capture", capture)
    case: Case = make("categorical")._replace(shape=(1, 1, 5))
    options = {"count": 2, "method": "incremental"}
    expected = drawn(case, **options)
    with interpreted("sampler"):
        assert torch.equal(drawn(case, **options), expected)
    assert set(replayed) == set(captured) and 1 <= len(captured) <= 2
    assert 5 - 2 * len(captured) <= len(replayed) < 5  # pixels
