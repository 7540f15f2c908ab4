"""The stepper against full forward passes of the models of the examples."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from benchmarks.sampling import Layer, Net
from examples.autoregressive.gated_pixel_cnn import ClassGatedPixelCNN, GatedPixelCNN
from examples.autoregressive.pixel_cnn import PixelCNN
from examples.autoregressive.pixel_cnn_pp import PixelCNNPP
from examples.autoregressive.pixel_rnn import DiagonalPixelRNN, PixelRNN
from examples.model import DataSpec
from genkern.sampling import incremental
from genkern.sampling.execute import Execution
from genkern.sampling.fuse import stages_of
from genkern.sampling.graph import NoRule, Product
from genkern.sampling.incremental import Draw, Stepper, wavefront_reason

GREY, RGB = DataSpec((1, 5, 7), 4, 3), DataSpec((3, 4, 5), 4, 3)
MODELS = {
    "pixel_cnn": lambda spec: PixelCNN(spec, hidden=6, blocks=2),
    "gated": lambda spec: GatedPixelCNN(spec, hidden=6, layers=3),
    "of_class": lambda spec: ClassGatedPixelCNN(spec, hidden=6, layers=2),
    "row": lambda spec: PixelRNN(spec, hidden=4, layers=2),
    "diagonal": lambda spec: DiagonalPixelRNN(spec, hidden=4, layers=2),
    "pp": lambda spec: PixelCNNPP(spec, hidden=6, scales=2, components=2),
}
WAVES = ("pixel_cnn", "row")
DEEP = ("gated", "diagonal")  # whose slope grows with the depth, up to the width


def make(name: str, spec: DataSpec, dtype: torch.dtype = torch.float64):
    """A model whose start states and biases are not the zeros that they begin as."""
    torch.manual_seed(7)
    model = MODELS[name](spec).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    condition = (torch.tensor([2, 0, 1]),) if model.condition else ()
    images = 2 * torch.rand(3, *spec.shape, dtype=dtype) - 1
    return model, images, condition


def forced(stepper: Stepper, images: torch.Tensor, first: int = 0) -> torch.Tensor:
    """The parameters that the steps tell, each of which is then told the next places of
    ``images``; NaN elsewhere."""
    found = None
    for k in range(first, len(stepper.steps)):
        rows, columns = zip(*stepper.steps[k].places, strict=True)
        params, colour = stepper.parameters(k), stepper.steps[k].colour
        each = params.shape[1]
        if found is None:
            count = each if colour is None else each * images.shape[1]
            found = params.new_full((len(images), count, *images.shape[2:]), torch.nan)
        start = 0 if colour is None else colour * each
        found[:, start : start + each, rows, columns] = params
        channels = slice(None) if colour is None else slice(colour, colour + 1)
        stepper.accept(k, images[:, channels, rows, columns])
    return found


CASES = [(name, spec, "raster") for name in MODELS for spec in (GREY, RGB)]
CASES += [(name, spec, "wavefront") for name in WAVES for spec in (GREY, RGB)]
CASES += [(name, GREY, "wavefront") for name in DEEP]


ENGINES = [(*case, False) for case in CASES]
PLAIN = [(*case, True) for case in CASES if case[1:] == (GREY, "raster")]
PLAIN += [("pixel_cnn", RGB, "wavefront", True)]
ENGINES += [pytest.param(*case, marks=pytest.mark.deep) for case in PLAIN]


@pytest.mark.parametrize("name, spec, order, plain", ENGINES)
def test_parameters_are_those_of_a_full_forward_pass(name, spec, order, plain, monkeypatch):
    if plain:
        monkeypatch.setattr(incremental.compiled, "is_available", lambda: False)
    model, images, condition = make(name, spec)
    with torch.no_grad():
        full = model.features(images, *condition)
    # What is not drawn yet must not be read.
    stepper = Stepper(model.features, torch.full_like(images, torch.nan), *condition, order=order)
    torch.testing.assert_close(forced(stepper, images), full, rtol=0, atol=1e-12)
    torch.testing.assert_close(stepper.images, images, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_float32_is_close(name):
    model, images, condition = make(name, GREY, torch.float32)
    with torch.no_grad():
        full = model.double().features(images.double(), *condition)
    found = forced(Stepper(model.float().features, images, *condition), images)
    bound = 1e-5 * full.abs().max().item()
    torch.testing.assert_close(found.double(), full, rtol=1e-5, atol=bound)


GIVEN = [(*case, first) for case, first in zip(CASES, itertools.cycle((1, 9, 17)), strict=False)]


@pytest.mark.parametrize("name, spec, order, first", GIVEN)
def test_steps_go_on_from_any_pixel(name, spec, order, first):
    model, images, condition = make(name, spec)
    with torch.no_grad():
        full = model.features(images, *condition)
    given = images.clone()
    stepper = Stepper(model.features, given, *condition, order=order, first=first)
    found = forced(stepper, images, first)
    known = ~found.isnan()
    torch.testing.assert_close(found[known], full[known], rtol=0, atol=1e-12)
    kinds = {step.colour for step in stepper.steps}
    told = sum(len(step.places) for step in stepper.steps[first:])
    assert known.sum() * len(kinds) == told * full[:, :, 0, 0].numel()


@pytest.mark.parametrize("name", MODELS)
def test_bits_depend_on_neither_batch_nor_threads_nor_order(name):
    model, images, condition = make(name, RGB, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(forced(Stepper(model.features, images, *condition), images))
        one = tuple(c[1:2] for c in condition)
        single = forced(Stepper(model.features, images[1:2], *one), images[1:2])
        assert torch.equal(single, found[0][1:2])
    finally:
        torch.set_num_threads(threads)
    if name in WAVES:
        stepper = Stepper(model.features, images, *condition, order="wavefront")
        found.append(forced(stepper, images))
    assert all(torch.equal(other, found[0]) for other in found)


@pytest.mark.parametrize("name, spec, order", CASES)
def test_a_run_draws_what_the_parameters_say(name, spec, order):
    model, images, condition = make(name, spec)
    mixture = name == "pp"
    C, H, W = spec.shape
    noise = torch.rand(3, C + mixture, H, W, dtype=images.dtype)
    table = spec.scale(torch.arange(spec.levels).view(1, 1, 1, -1), images).flatten()
    draw = Draw("logistic_mixture" if mixture else "categorical", spec.levels, table)
    stepper = Stepper(model.features, 0 * images, *condition, order=order)
    drawn, log_prob = stepper.run(draw, noise)
    with torch.no_grad():
        torch.testing.assert_close(-log_prob, model.nll(drawn, *condition), rtol=0, atol=1e-10)
        params = model.features(spec.scale(drawn, images), *condition)
    if mixture:
        again = incremental_sample(params, spec, noise)
    else:
        logits = params.view(3, C, spec.levels, H, W)
        again = (logits.softmax(2).cumsum(2)[:, :, :-1] <= noise[:, :, None]).sum(2)
    assert torch.equal(drawn, again)


def incremental_sample(params, spec, noise):
    import genkern

    options = {"levels": spec.levels, "data_channels": spec.shape[0], "noise": noise}
    return genkern.discretized_logistic_mixture_sample(params, **options).long()


def test_a_run_keeps_what_is_given_and_stops_where_it_is_told():
    model, images, _ = make("pixel_cnn", GREY)
    table = torch.linspace(-1, 1, 4, dtype=images.dtype)
    noise = torch.rand(3, *GREY.shape, dtype=images.dtype)
    draw, given = Draw("categorical", 4, table), torch.full((3, *GREY.shape), -1)
    given[:, :, ::2, 1] = torch.randint(4, (3, 1, 3))
    whole, log_prob = Stepper(model.features, images).run(draw, noise, given=given)
    assert torch.equal(whole[given >= 0], given[given >= 0])
    stepper = Stepper(model.features, images)
    parts = [stepper.run(draw, noise, given=given, last=last) for last in (4, 20, None)]
    assert (parts[0][0] >= 0).sum() == 3 * 4
    assert torch.equal(torch.stack([p[0] for p in parts]).amax(0), whole)
    torch.testing.assert_close(sum(p[1] for p in parts), log_prob, rtol=1e-14, atol=0)


@pytest.mark.parametrize("temperature, top_k", [(0.5, 0), (0.0, 0), (1.0, 2)])
def test_temperature_and_top_k(temperature, top_k):
    model, images, _ = make("pixel_cnn", GREY)
    table = torch.linspace(-1, 1, 4, dtype=images.dtype)
    noise = torch.rand(3, *GREY.shape, dtype=images.dtype)
    draw = Draw("categorical", 4, table, temperature, top_k)
    drawn, _ = Stepper(model.features, images).run(draw, noise)
    with torch.no_grad():
        logits = model.features(GREY.scale(drawn, images))[:, None]
    if top_k:
        least = logits.topk(top_k, dim=2).values[:, :, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if temperature == 0:
        expected = logits.argmax(2)
    else:
        chances = (logits / temperature).softmax(2)
        expected = (chances.cumsum(2)[:, :, :-1] <= noise[:, :, None]).sum(2)
    assert torch.equal(drawn, expected)


def test_bernoulli():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 1, (1, 2)).double()
    model = lambda x: layer(F.pad(x, (2, 0)))[..., :-1]  # noqa: E731
    noise = torch.rand(4, 1, 3, 5, dtype=torch.float64)
    table = torch.tensor([0.0, 1.0])
    stepper = Stepper(model, 0 * noise)
    drawn, log_prob = stepper.run(Draw("bernoulli", 2, table), noise)
    with torch.no_grad():
        logits = model(drawn.double())
    assert torch.equal(drawn, (noise < logits.sigmoid()).long())
    nats = F.binary_cross_entropy_with_logits(logits, drawn.double(), reduction="none")
    torch.testing.assert_close(-log_prob, nats.flatten(1).sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reach", range(8))
def test_a_wavefront_is_no_steeper_than_the_model_needs(reach):
    """A pixel that sees ``reach`` columns beyond its own in the row above waits for them."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 1, (1, reach + 1)).double()
    model = lambda x: layer(F.pad(x, (0, reach, 1, 0)))[:, :, :-1]  # noqa: E731
    images = torch.rand(2, 1, 3, 9, dtype=torch.float64)
    stepper = Stepper(model, torch.full_like(images, torch.nan), order="wavefront")
    assert len(stepper.steps) == 2 * (reach + 1) + 9
    torch.testing.assert_close(forced(stepper, images), model(images).detach(), rtol=0, atol=1e-12)


def test_an_op_without_a_rule_is_named():
    with pytest.raises(NoRule, match=r"aten::cos.*register_step\('aten::cos', rule"):
        Stepper(lambda x: F.pad(x, (1, 0))[..., :-1].cos(), torch.zeros(1, 1, 3, 3))


def test_a_model_that_sees_itself_is_refused():
    with pytest.raises(ValueError, match="must not see it or later pixels"):
        Stepper(torch.relu, torch.zeros(1, 1, 3, 3))


def test_what_sees_whole_rows_has_no_wavefront():
    model, images, _ = make("pp", GREY)
    assert "are independent" in (wavefront_reason(model.features, images) or "")
    with pytest.raises(ValueError, match="are independent"):
        Stepper(model.features, images, order="wavefront")


def test_caches_hold_few_rows():
    model, images, _ = make("pixel_cnn", GREY)
    stepper = Stepper(model.features, images)
    assert isinstance(stepper._engine, Execution)
    full = sum(c for c in (1, 12, *[6, 6, 12] * 2, 12, 4)) * 35 * 3 * 8
    assert stepper.cache_bytes < full / 2


def test_a_gate_behind_a_sum_is_in_the_stage_of_the_last_product():
    """Without a pass of its own over memory, nor one more wait of the threads at each pixel."""
    net = Net(Layer, hidden=4, layers=2).double()
    stages, _ = stages_of(Stepper(net, torch.zeros(1, 1, 5, 7, dtype=torch.float64))._plan)
    hosts = [stage.nodes[0] for stage in stages
             if any(getattr(node, "function", "") == "gated" for node in stage.nodes)]  # fmt: skip
    assert hosts
    assert all(isinstance(node, Product) for node in hosts)
