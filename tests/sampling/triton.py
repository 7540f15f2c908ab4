"""The sampler's Triton kernels, interpreted: what steps compute and draw, and their launches."""

from unittest import mock

import pytest
import torch

pytest.importorskip("triton")
from examples.model import DataSpec
from genkern.sampling import compiled
from genkern.sampling.incremental import Stepper
from genkern.triton_kernels.sampler import kernels, runner
from tests.core.triton_kit import interpreted, launches
from tests.sampling.nets import OUTPUTS, drawn, make
from tests.sampling.test_stepper import forced
from tests.sampling.test_stepper import make as make_model

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
GREY, RGB = DataSpec((1, 3, 4), 4, 3), DataSpec((3, 3, 3), 4, 3)
CASES = {
    "pixel_cnn": RGB, "gated": GREY, "of_class": GREY, "row": GREY, "diagonal": GREY, "pp": GREY,
}  # fmt: skip


@pytest.fixture
def small_tiles(monkeypatch):
    """A few rows, units and factors are several tiles."""
    monkeypatch.setattr(runner, "tile_of", lambda *_: runner.Tile(2, 4, 8))


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_a_full_forward_pass(name):
    model, images, condition = make_model(name, CASES[name])
    with torch.no_grad():
        full = model.features(images, *condition)
    with interpreted("sampler"):
        stepper = Stepper(model.features, torch.full_like(images, torch.nan), *condition)
        found = forced(stepper, images)
    torch.testing.assert_close(found, full, rtol=0, atol=1e-12)


def test_float32_several_tiles_and_a_wavefront(small_tiles):
    model, images, _ = make_model("pixel_cnn", DataSpec((1, 3, 5), 4, 3), torch.float32)
    with torch.no_grad():
        full = model.double().features(images.double())
    bound = 1e-5 * full.abs().max().item()
    for order in ("raster", "wavefront"):
        with interpreted("sampler"):
            stepper = Stepper(model.float().features, images, order=order)
            found = forced(stepper, images)
        torch.testing.assert_close(found.double(), full, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_same_noise_is_the_same_image_and_log_p(kind):
    case = make(kind)
    options = {"count": 3, "return_log_prob": True, "method": "incremental"}
    expected, log_prob = drawn(case, **options)
    with interpreted("sampler"):
        found, log_p = drawn(case, **options)
    assert torch.equal(found, expected) and len(found.unique()) > 1
    torch.testing.assert_close(log_p, log_prob, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("categorical", {"top_k": 2, "temperature": 0.7}),
        ("categorical", {"temperature": 0.0}),
        ("mixture-rgb", {"partial": 0.4}),
        ("mixture", {"temperature": 0.0}),
        ("bernoulli-rgb", {"partial": 0.4, "temperature": 2.0}),
    ],
    ids=str,
)
def test_what_is_given_temperature_and_top_k(kind, options):
    case = make(kind)
    case = case._replace(shape=(case.shape[0], 2, 3))
    options = {"count": 2, "method": "incremental", **options}
    if "partial" in options:
        torch.manual_seed(3)
        size = (2, *case.shape)
        values = torch.randint(case.output.levels, size)
        options["partial"] = torch.where(torch.rand(size) < options["partial"], values, -1)
    expected = drawn(case, **options)
    with interpreted("sampler"):
        assert torch.equal(drawn(case, **options), expected)


def test_a_condition_and_a_start_in_the_middle():
    case = make("categorical", "map")
    case = case._replace(condition=case.condition[:2])
    given = torch.full((2, *case.shape), -1)
    given[:, :, :2] = 3
    options = {"count": 2, "method": "incremental", "partial": given}
    expected = drawn(case, **options)
    with interpreted("sampler"), launches() as names:
        assert torch.equal(drawn(case, **options), expected)
    assert names.count("sampler_categorical_kernel") == 7  # pixels of the last row


def test_nan_is_an_error():
    case = make("categorical")
    with torch.no_grad():
        case.model.head.bias.fill_(torch.nan)
    with interpreted("sampler"), pytest.raises(ValueError, match="finite parameters; got NaN"):
        drawn(case._replace(shape=(1, 1, 2)), count=1, method="incremental")


def test_every_operation_has_its_code():
    known = {name: getattr(kernels, name.upper()).value for name in compiled.FUNCTIONS}
    assert known == {name: code for name, code in compiled._CODES.items() if name in known}
    assert sorted(known.values()) == list(range(2, 2 + len(known)))


def test_a_pattern_is_launched_then_captured_then_replayed(monkeypatch):
    """Also that replays draw what launches draw: the step is not part of what is captured."""
    captured, replayed = [], []

    def capture(call):
        captured.append(call)
        return mock.Mock(replay=lambda: replayed.append(call) or call())

    monkeypatch.setattr(runner, "has_graphs", lambda tensor: True)
    monkeypatch.setattr(runner, "capture", capture)
    case = make("categorical")
    options = {"count": 2, "method": "incremental"}
    expected = drawn(case, **options)
    with interpreted("sampler"):
        assert torch.equal(drawn(case, **options), expected)
    assert set(replayed) == set(captured) and 1 <= len(captured) <= 4
    assert 21 - 2 * len(captured) <= len(replayed) < 21  # pixels
