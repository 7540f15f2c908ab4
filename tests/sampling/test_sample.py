"""`genkern.sampling.sample`: every method draws what the definition draws, and what it says."""

import math

import pytest
import torch
from torch import nn

from genkern import sampling
from tests.sampling.nets import CONDITIONS, OUTPUTS, N, drawn, make, noise

METHODS = [method for method in sampling.METHODS if method != "auto"]
OTHERS = [method for method in METHODS if method != "naive"]
STEPS = [method for method in METHODS if method != "jacobi"]
EACH = [(kind, "") for kind in OUTPUTS] + [("categorical", c) for c in CONDITIONS[1:]]


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("kind, condition", EACH)
def test_every_method_draws_the_same_images_from_the_same_noise(kind, condition, method):
    case = make(kind, condition)
    expected = drawn(case, method="naive")
    assert sampling.last_report() == ("naive", case.shape[1] * case.shape[2] * (
        case.shape[0] if case.output.by_colour else 1
    ), "")  # fmt: skip
    assert len({tuple(image.flatten().tolist()) for image in expected}) == N
    assert torch.equal(drawn(case, method=method), expected)
    assert sampling.last_report().method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_image_does_not_depend_on_the_batch_or_the_threads(kind, method):
    case, threads = make(kind, dtype=torch.float32), torch.get_num_threads()
    generator = torch.Generator().manual_seed(3)
    whole = drawn(case, generator=generator, method=method)
    assert torch.equal(drawn(case, 2, generator=generator.manual_seed(3), method=method), whole[:2])
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        assert torch.equal(drawn(case, generator=generator.manual_seed(3), method=method), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bernoulli", "categorical-rgb", "mixture-rgb"])
def test_drawing_goes_on_from_any_pixel(kind, method):
    """Given the first pixels of an image, the same noise draws the others as before."""
    case = make(kind)
    whole = drawn(case, method=method)
    H, W = case.shape[1:]
    for first in [*range(1, H * W, 5), H * W]:
        given = (torch.arange(H * W) < first).view(H, W).expand(whole.shape)
        partial = torch.where(given, whole.long(), -1)
        assert torch.equal(drawn(case, partial=partial, method=method), whole)
        junk = torch.where(given, whole.long(), case.output.levels + 7)
        assert torch.equal(drawn(case, partial=(junk, given), method=method), whole)
    other = drawn(case, partial=partial, noise=noise(case, 1), method=method)
    assert torch.equal(other, whole)  # nothing was left to draw


@pytest.mark.parametrize("method", METHODS)
def test_pixels_given_anywhere_are_kept_and_the_rest_follows_them(method):
    case = make("categorical")
    partial = torch.full((N, *case.shape), -1)
    partial[:, :, 1, 2:5] = torch.tensor([5, 0, 3])
    partial[2] = 1
    found = drawn(case, partial=partial, method=method)
    assert torch.equal(found[partial >= 0].long(), partial[partial >= 0])
    alike = drawn(case, method="naive", choose=as_given(case, partial))
    assert torch.equal(found, alike)


def as_given(case, partial):
    """What draws as `Output.draw` does, but takes what is given."""
    uniform = noise(case)

    def choose(params, step):
        at = (slice(None), slice(step.colours.start, step.colours.stop), step.rows, step.cols)
        found = case.output.draw(params, uniform[at], 1.0, None)
        return torch.where(partial[at] >= 0, partial[at], found)

    return choose


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("kind", ["bernoulli-rgb", "categorical", "mixture-rgb"])
def test_choose_sees_the_parameters_of_each_place_once_and_decides_them(kind, method):
    case = make(kind)
    wanted = drawn(case, noise=noise(case, 5)).long()
    with torch.no_grad():
        whole = case.model(case.output.to_inputs(wanted, torch.float64))
    seen = torch.zeros(wanted.shape, dtype=torch.int64)
    steps = []

    def choose(params, step):
        at = (slice(None), slice(step.colours.start, step.colours.stop), step.rows, step.cols)
        expected = case.output.at(whole, step.colours.start)[:, :, step.rows, step.cols]
        torch.testing.assert_close(params, expected, rtol=1e-12, atol=1e-12)
        seen[at] += 1
        steps.append(step.number)
        return wanted[at]

    assert torch.equal(drawn(case, choose=choose, method=method).long(), wanted)
    assert (seen == 1).all() and steps == list(range(len(steps)))


class Constant(nn.Module):
    """The same parameters for every place."""

    def __init__(self, params) -> None:
        super().__init__()
        self.params = nn.Parameter(torch.tensor(params))

    def forward(self, x):
        return self.params[None, :, None, None].expand(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("temperature, top_k", [(1.0, None), (0.5, None), (2.0, 3), (1.0, 1)])
def test_temperature_and_top_k_have_the_frequencies_of_multinomial(temperature, top_k):
    logits, count = torch.tensor([0.3, -1.0, 1.2, 0.9, -0.4]), 20000
    kept = logits if top_k is None else logits.masked_fill(logits.argsort().argsort() < 5 - top_k,
                                                           -torch.inf)  # fmt: skip
    chances = (kept / temperature).softmax(0)
    ours = sampling.sample(
        Constant(logits.tolist()), 20, shape=(1, 20, 50), output=sampling.Categorical(5),
        temperature=temperature, top_k=top_k,
    )  # fmt: skip
    theirs = torch.multinomial(chances, count, replacement=True)
    for found in (ours.flatten(), theirs):
        frequency = found.long().bincount(minlength=5) / count
        error = (chances * (1 - chances) / count).sqrt()
        assert ((frequency - chances).abs() <= 4.5 * error).all()


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_a_level_without_weight_is_never_drawn(u):
    shape, output = (1, 1, 1), sampling.Categorical(4)
    edge = torch.full((1, *shape), u)
    for logits in ([-math.inf, 1.0, 0.0, -math.inf], [0.0, 5.0, 5.0, 0.0]):
        found = sampling.sample(
            Constant(logits), 1, shape=shape, output=output, noise=edge, top_k=2
        )
        assert found.item() == (1 if u == 0 else 2)


def test_temperature_zero_takes_the_likeliest():
    case = make("categorical")
    found = drawn(case, temperature=0.0)
    logits = case.model(case.output.to_inputs(found, torch.float64))
    assert torch.equal(logits.argmax(1), found[:, 0].long())
    binary = sampling.sample(
        Constant([-0.1]), 3, shape=(1, 2, 2), output=sampling.Bernoulli(), temperature=0.0
    )
    assert not binary.any()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_in_training_samples_without_dropout_and_stays_in_training(method):
    case = make("categorical")
    expected = drawn(case, method=method)
    case.model.train()
    case.model.second.eval()
    modes = [m.training for m in case.model.modules()]
    assert torch.equal(drawn(case, method=method), expected)
    assert [m.training for m in case.model.modules()] == modes

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(case, method=method, progress=stop)
    assert [m.training for m in case.model.modules()] == modes
    for parameter in case.model.parameters():  # a step of training
        parameter.data.mul_(-1)
    assert not torch.equal(drawn(case, method=method), expected)


@pytest.mark.parametrize("method", ["auto", *OTHERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes(dtype, method):
    case = make("categorical", dtype=dtype)
    if dtype == torch.bfloat16 and method in ("incremental", "wavefront"):
        with pytest.raises(ValueError, match=f"{method}' here: the model must be in float32 or"):
            drawn(case, method=method)
        return
    found = drawn(case, method=method)
    assert found.dtype == torch.uint8
    assert torch.equal(found, drawn(case, method="naive"))


def choosing(params, step):
    return params.argmax(1, keepdim=True)


def test_auto_takes_the_fastest_method_that_works_and_says_why_none_before_it():
    case = make("categorical")
    drawn(case)
    assert sampling.last_report()[::2] == ("incremental", "")
    drawn(case, choose=choosing)
    assert sampling.last_report()[::2] == ("wavefront", "")
    narrow = case._replace(shape=(1, 5, 2))
    drawn(narrow, choose=choosing)
    method, _, reason = sampling.last_report()
    assert method == "incremental" and reason.startswith("wavefront: ")
    with pytest.raises(ValueError, match="method must not be 'wavefront' here: "):
        drawn(narrow, method="wavefront")
    case.model.head = nn.Sequential(case.model.head, Sorted())
    for options, taken, words in (
        ({}, "jacobi", ("incremental: ", "aten::sort", "register_step", "wavefront: ")),
        ({"choose": choosing}, "naive", ("jacobi: choose would see", "aten::sort")),
    ):
        drawn(case, **options)
        method, _, reason = sampling.last_report()
        assert method == taken and all(word in reason for word in words)
        with pytest.raises(
            ValueError, match=r"method must not be 'incremental' here: .*aten::sort"
        ):
            drawn(case, method="incremental", **options)


class Sorted(nn.Module):
    """What has no rule."""

    def forward(self, x):
        return x.sort(1).values


def test_a_model_that_sees_the_future_is_refused_by_the_steps():
    future = nn.Conv2d(1, 6, 3, padding=1).double()
    case = make("categorical")._replace(model=future)
    for method in ("incremental", "wavefront"):
        with pytest.raises(ValueError, match=f"method must not be '{method}' here: "):
            drawn(case, method=method)


def test_levels_beyond_a_byte_are_int32():
    found = sampling.sample(Constant([0.0] * 300), 2, shape=(1, 1, 2),
                            output=sampling.Categorical(300, inputs=(0.5, -1.0)))  # fmt: skip
    assert found.dtype == torch.int32


@pytest.mark.parametrize("method", METHODS)
def test_progress_ends_with_all_places_done(method):
    case, calls = make("categorical"), []
    whole = drawn(case, method=method, progress=lambda *done: calls.append(done))
    assert calls == sorted(calls) and len(calls) > 1
    assert calls[-1][0] == calls[-1][1] and len({total for _, total in calls}) == 1
    given = (torch.arange(21) < 9).view(3, 7).expand(whole.shape)
    partial, again = torch.where(given, whole.long(), -1), []
    found = drawn(case, method=method, partial=partial, progress=lambda *done: again.append(done))
    assert torch.equal(found, whole) and again == sorted(again) and again[-1] == calls[-1]


def test_jacobi_stops_as_soon_as_nothing_changes():
    shape, output = (1, 4, 4), sampling.Categorical(5)
    sampling.sample(Constant([0.1] * 5), 3, shape=shape, output=output, method="jacobi")
    assert sampling.last_report().steps == 2
    drawn(make("categorical"), method="jacobi")
    assert 2 < sampling.last_report().steps < 21  # places


def test_noise_of_a_place_is_its_own():
    shape, output = (3, 2, 5), sampling.LogisticMixture(256, 1)
    generator = torch.Generator().manual_seed(1)
    large = sampling.draw_noise(4, shape=shape, output=output, generator=generator)
    small = sampling.draw_noise(
        2, shape=shape, output=output, generator=torch.Generator().manual_seed(1)
    )
    assert large.shape == (4, 4, 2, 5) and torch.equal(large[:2], small)
    assert len(large.unique()) == large.numel() and large.min() > 0 and large.max() <= 1
    again = sampling.draw_noise(2, shape=shape, output=output, generator=generator)
    assert not torch.equal(again, small)
