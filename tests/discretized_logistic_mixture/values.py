"""discretized_logistic_mixture_nll and discretized_logistic_mixture_sample."""

import functools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import genkern
from benchmarks import discretized_logistic_mixture as cases
from genkern import random
from genkern.reference import discretized_logistic_mixture as reference
from tests.core.helpers import double, run
from tests.core.strategies import DTYPES, backend, lay_out, layouts, sizes, tensors
from tests.core.tolerance import assert_close

F64 = torch.float64
STEM = "discretized_logistic_mixture"
nll = genkern.discretized_logistic_mixture_nll
sample = genkern.discretized_logistic_mixture_sample


def planes(colours):
    """Of the planes of a component, the places of its log-scales."""
    return [2] if colours == 1 else [2, 5, 8]


def shaped(params, colours, by=-3.0):
    """Log-scales around ``by``."""
    params = params.unflatten(1, (reference.PARAMETERS[colours], -1)).clone()
    params[:, planes(colours)] += by
    return params.flatten(1, 2)


def integers(shape, levels, dtype=torch.int64):
    """Drawn targets, the first and the last level among them."""
    generator = torch.Generator().manual_seed(len(shape) + levels)
    values = torch.randint(0, levels, shape, generator=generator, device="cpu").flatten()
    values[::7], values[3::11] = 0, levels - 1
    return values.view(shape).to(torch.get_default_device(), dtype)


# ---- against the reference -------------------------------------------------------------------


def magnitudes(params, target, levels, upstream):
    """Sizes of what is rounded: of the nats, and of the gradients.

    Rounding a mean moves log P by t times its parts; a gradient is a share r of a component times
    a slope of at most t, and log P moves the share.
    """
    colours = target.shape[1]
    x = reference.on_the_grid(target.to(F64), levels)
    logits, means, log_scales, k = reference.unpack(params, colours)
    parts, joint = [], logits
    for c in range(colours):
        mean = reference.shift(means, k, x, c)
        log_p = reference.log_probability(mean, log_scales[:, c], target[:, c : c + 1], levels)
        joint = joint + log_p
        size = x[:, c : c + 1].abs() + reference.shift(means.abs(), k.abs(), x.abs(), c)
        parts.append(2 + size * torch.exp(-log_scales[:, c]) + log_scales[:, c].abs())
    t, share, prior = torch.exp(-log_scales), joint.softmax(1), logits.softmax(1)
    sizes = torch.stack(parts, 1)
    size = logits.abs() + sizes.sum(1)
    mean_size = (share * size).sum(1, keepdim=True) + (prior * logits.abs()).sum(1, keepdim=True)
    moved = 2 + size + mean_size
    up = upstream.abs().view(-1, 1, 1, 1)
    d = [up * (prior + share) * moved]
    for c in range(colours):
        d += [up * share * moved * t[:, c], up * share * moved * (2 + sizes[:, c])]
        d += [up * share * moved * t.amax(1)] if colours == 3 else []
    return mean_size.flatten(1).sum(1), torch.cat(d, 1)


def check(inputs, upstream, target, levels=256, function=nll, definition=reference.nll):
    """Nats and gradients of ``function`` against the float64 definition."""
    (params,) = inputs
    (got,), (grad,) = run(lambda p: function(p, target, levels=levels), inputs, upstream)
    want = run(lambda p: definition(p, target, levels), double(inputs), double(upstream))
    scale, grad_scale = magnitudes(params.double(), target, levels, upstream[0].double())
    pixels = max(1, target[:1].numel())
    assert got.dtype == params.dtype
    assert_close(got, want[0][0], terms=pixels, scale=scale, name="nats")
    assert grad.dtype == params.dtype
    assert_close(grad, want[1][0], scale=grad_scale, name="d_params")


@st.composite
def problems(draw):
    N, K, H, W = draw(sizes(3)), draw(st.integers(1, 4)), draw(sizes(5)), draw(sizes(20))
    colours, levels = draw(st.sampled_from([1, 3])), draw(st.sampled_from([2, 3, 16, 256, 1000]))
    shape, dtype = (N, reference.PARAMETERS[colours] * K, H, W), draw(st.sampled_from(DTYPES))
    params = draw(tensors(shape, dtype, draw(st.sampled_from([0.3, 1.0, 3.0]))))
    if draw(st.booleans()):
        params = shaped(params, colours)
    kinds = [torch.int32, torch.int64] + ([torch.uint8] if levels <= 256 else [])
    target = integers((N, colours, H, W), levels, draw(st.sampled_from(kinds)))
    order = draw(st.sampled_from(["contiguous", "permuted", "channels_last", "expanded"]))
    return [params], [draw(tensors((N,), dtype))], lay_out(target, order), levels


@given(problems())
def test_nats_and_gradients_match_the_float64_reference(problem):
    params = problem[0][0]
    log_scales = reference.unpack(params.double(), problem[2].shape[1])[2]
    if (log_scales + 7).abs().lt(1e-3).logical_and(log_scales != -7).any():
        return  # next to the clamp the two precisions may fall on different sides
    check(*problem)
    assert genkern.last_backend(STEM) == backend()


def test_sizes_around_the_blocks():
    for pixels in (63, 64, 65, 200):
        for colours in (1, 3):
            params = shaped(torch.randn(2, reference.PARAMETERS[colours] * 3, 1, pixels), colours)
            target = integers((2, colours, 1, pixels), 256, torch.uint8)
            check([params], [torch.randn(2)], target)
            last = params.view(2, -1, pixels, 1).to(memory_format=torch.channels_last)
            check([last], [torch.randn(2)], target.view(2, -1, pixels, 1))


# ---- all levels together --------------------------------------------------------------------


def probabilities(params, levels, colours):
    """exp(-nll) of every pixel value; params (planes, K)."""
    axes = [torch.arange(levels)] * colours
    values = torch.cartesian_prod(*axes).view(-1, colours, 1, 1)
    given = params.reshape(1, -1, 1, 1).expand(len(values), -1, -1, -1)
    return torch.exp(-nll(given, values, levels=levels).double())


@pytest.mark.parametrize(
    "levels, colours", [(2, 1), (3, 1), (16, 1), (256, 1), (1000, 1), (2, 3), (6, 3)]
)
def test_the_probabilities_of_all_levels_sum_to_one(levels, colours):
    for by in (-9.0, -4.0, 0.0, 4.0):
        params = shaped(torch.randn(1, reference.PARAMETERS[colours] * 3, 1, 1), colours, by)
        assert abs(probabilities(params, levels, colours).sum().item() - 1) < 2e-6


# ---- edges -----------------------------------------------------------------------------------


def grey(logits, mean, log_scale, v, levels=256):
    """nats and gradients of one grey pixel."""
    params = torch.tensor([*logits, *mean, *log_scale]).view(1, -1, 1, 1).requires_grad_()
    nats = nll(params, torch.tensor(v).view(1, 1, 1, 1), levels=levels)
    return nats.item(), torch.autograd.grad(nats.sum(), params)[0].flatten().tolist()


def test_log_scales_below_minus_7_are_clamped_without_a_gradient():
    at, d_at = grey([0.0], [0.2], [-7.0], 140)
    below, d_below = grey([0.0], [0.2], [-7.5], 140)
    assert at == below and d_at[1] == d_below[1]
    assert d_at[2] != 0 and d_below[2] == 0


def test_large_inputs_give_limits_and_never_nan():
    inf = math.inf
    assert grey([0.0], [1e30], [0.0], 255) == (0.0, [0.0, 0.0, 0.0])  # certain
    assert grey([0.0], [inf], [0.0], 255) == (0.0, [0.0, 0.0, 0.0])
    assert grey([0.0], [inf], [0.0], 7)[0] == inf
    nats, d = grey([0.0], [3.0], [500.0], 7)  # a density of e^-500 / 4 times 2 / 255
    assert abs(nats / (500 - math.log(2 / 255 / 4)) - 1) < 1e-6 and abs(d[2] - 1) < 1e-6
    nats, d = grey([0.0, -inf], [0.1, 0.2], [-1.0, -1.0], 7)
    assert nats == grey([0.0], [0.1], [-1.0], 7)[0] and d[1] == d[3] == d[5] == 0
    nats, d = grey([500.0, -500.0], [0.1, 60.0], [-7.0, -7.0], 7)
    assert math.isfinite(nats) and all(map(math.isfinite, d))
    assert math.isnan(grey([0.0], [math.nan], [0.0], 7)[0])
    assert math.isnan(grey([math.nan, 0.0], [0.0, 0.0], [0.0, 0.0], 7)[0])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("value", [-1, 16, 256, 2**31 - 1])
def test_a_target_that_is_no_level_is_an_error(dtype, value):
    params, target = torch.randn(2, 30, 3, 50), torch.zeros(2, 3, 3, 50, dtype=dtype)
    target[1, 2, 2, 49] = value
    for name in (backend(), "reference"):
        with genkern.use_backend(name), pytest.raises(ValueError, match=rf"got {value}$"):
            nll(params, target, levels=16)


def test_wide_scales_agree_with_the_usual_loss():
    case = cases.nll_case(2, 5, 8)
    (params,) = case.inputs().values()
    sub_pixels = 3 * 64
    got, usual = case.genkern(params), case.eager(params.double())
    assert ((got - usual).abs() / sub_pixels).max() < 1e-4  # its density, where bins are improbable


# ---- samples ---------------------------------------------------------------------------------


def near_a_boundary(params, noise, levels, colours, temperature):
    """Pixels whose samples change when the noise or the parameters are moved a little."""
    moves = ((0, 0, 0), (2e-5, 0, 0), (-2e-5, 0, 0), (0, 1e-6, 0), (0, -1e-6, 0))
    moves += ((0, 0, 1e-6), (0, 0, -1e-6))
    moved = [reference.sample(params * (1 + p), noise * (1 + e) + a, levels, colours, temperature)
             for e, a, p in moves]  # fmt: skip
    return functools.reduce(torch.logical_or, [m != moved[0] for m in moved]).any(1, keepdim=True)


@given(st.sampled_from(DTYPES), st.sampled_from([1, 3]), st.sampled_from([2, 16, 256, 1000]),
       st.sampled_from([1.0, 0.5, 0.0]), layouts)  # fmt: skip
def test_samples_are_those_of_the_reference_for_the_same_noise(
    dtype, colours, levels, temperature, layout
):
    params = shaped(torch.randn(2, reference.PARAMETERS[colours] * 3, 5, 30), colours, -2.0)
    params = lay_out(params.to(dtype), layout)
    noise = torch.rand(2, 1 + colours, 5, 30, dtype=F64 if dtype == F64 else torch.float32)
    options = {"levels": levels, "data_channels": colours, "temperature": temperature}
    got = sample(params, noise=noise, **options)
    assert got.dtype == (torch.uint8 if levels <= 256 else torch.int32)
    exact = params.double(), noise.double()
    want = reference.sample(*exact, levels, colours, temperature)
    close = near_a_boundary(*exact, levels, colours, temperature)
    assert close.float().mean() < 0.2
    assert torch.equal(torch.where(close, want, got.to(want.dtype)), want)
    assert genkern.last_backend(STEM) == backend()


@given(sizes(3), st.sampled_from([1, 5, 64, 67, 300]), st.sampled_from([1, 3]), layouts)
def test_noise_is_the_philox_stream_in_logical_order(N, pixels, colours, layout):
    params = shaped(torch.randn(N, reference.PARAMETERS[colours] * 2, 1, pixels), colours)
    params = lay_out(params, layout)
    got = sample(params, data_channels=colours, generator=torch.Generator().manual_seed(7))
    seed = random.draw_seed(params.device, torch.Generator().manual_seed(7))
    noise = random.philox_uniform(seed, (N, 1 + colours, 1, pixels), torch.float32)
    assert torch.equal(got, sample(params, data_channels=colours, noise=noise))


@pytest.mark.parametrize("levels, colours", [(32, 1), (5, 3)])
def test_samples_have_the_chances_that_the_nll_gives(levels, colours):
    params = shaped(torch.randn(1, reference.PARAMETERS[colours] * 3, 1, 1), colours, -1.5)
    count = 60_000
    generator = torch.Generator().manual_seed(1)
    drawn = sample(params.expand(-1, -1, 200, count // 200), levels=levels, data_channels=colours,
                   generator=generator)  # fmt: skip
    place = torch.zeros((), dtype=torch.int64)
    for c in range(colours):
        place = place * levels + drawn[0, c].long()
    expected = count * probabilities(params, levels, colours)
    found = torch.bincount(place.flatten(), minlength=len(expected)).double()
    likely = expected > 5
    rest = torch.stack([found[~likely].sum(), expected[~likely].sum()])
    chi_square = ((found - expected)[likely].square() / expected[likely]).sum()
    if rest[1] > 5:
        chi_square += (rest[0] - rest[1]).square() / rest[1]
    freedom = likely.sum().item()
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_temperature_zero_is_the_mean_of_the_likeliest_component():
    params = torch.tensor([0.1, 0.3, -0.2, 0.5, -0.41, 0.9, 0.0, 0.0, 0.0]).view(1, 9, 1, 1)
    drawn = sample(params.expand(-1, -1, 8, 8), data_channels=1, temperature=0.0)
    assert (drawn == round((1 - 0.41) * 127.5)).all()


def test_noise_at_its_ends_gives_levels():
    params = torch.randn(1, 30, 1, 2)
    for ends in (torch.zeros(1, 4, 1, 2), torch.ones(1, 4, 1, 2)):
        assert (
            sample(params, levels=1000, noise=ends)
            .clamp(0, 999)
            .equal(sample(params, levels=1000, noise=ends))
        )


MUTANTS = {
    "one level less": lambda p, t, n: reference.nll(p, t, n - 1),
    "log-scales off by a hundredth": lambda p, t, n: reference.nll(shaped(p, 3, 0.01), t, n),
    "colours not coupled": lambda p, t, n: reference.nll(
        p.unflatten(1, (10, -1)).index_fill(1, torch.tensor([3, 6, 9]), 0.0).flatten(1, 2), t, n
    ),
    "coefficients swapped": lambda p, t, n: reference.nll(
        p.unflatten(1, (10, -1))[:, [0, 1, 2, 3, 4, 5, 9, 7, 8, 6]].flatten(1, 2), t, n
    ),
    "components share their weight": lambda p, t, n: reference.nll(
        p.unflatten(1, (10, -1)).index_fill(1, torch.tensor([0]), 0.0).flatten(1, 2), t, n
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_property_test_catches_wrong_definitions(name):
    params, target = shaped(torch.randn(2, 30, 3, 4), 3), integers((2, 3, 3, 4), 255)
    check([params], [torch.randn(2)], target)
    with pytest.raises(AssertionError, match="elements off"):
        check([params], [torch.randn(2)], target.clamp(1, 253), definition=MUTANTS[name])
