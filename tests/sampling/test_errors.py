"""Wrong arguments: a sentence each, before anything is drawn."""

import warnings

import pytest
import torch
from torch import nn

import genkern
from genkern import sampling
from genkern.sampling import methods
from tests.sampling.nets import N, drawn, make, noise

CASE = make("categorical")
SHAPE = (N, *CASE.shape)


def integers(value=0, shape=SHAPE):
    return torch.full(shape, value)


WRONG = [
    ({"method": "jacobbi"}, ValueError, r"method must be one of .*'jacobi'.*did you mean 'jacobi'"),
    ({"method": 3}, TypeError, "method must be one of"),
    ({"shape": (3, 7)}, ValueError, r"shape must be \(C, H, W\) of one image; got \(3, 7\)"),
    ({"shape": (1, 0, 7)}, ValueError, "shape must be at least 1; got 0"),
    ({"output": "categorical"}, TypeError, "output must be a genkern.sampling.Output; got str"),
    ({"output": sampling.Categorical(7)}, ValueError, r"model must return shape \(5, 7, 3, 7\)"),
    ({"output": sampling.LogisticMixture(9, 2), "shape": (2, 3, 3)}, ValueError, "1 or 3 colours"),
    ({"temperature": -1.0}, ValueError, r"temperature must be in \[0.0, 1e\+30\]; got -1.0"),
    ({"temperature": "warm"}, TypeError, "temperature must be a number"),
    ({"top_k": 0}, ValueError, r"top_k must be in \[1, 6\]; got 0"),
    ({"top_k": 7}, ValueError, r"top_k must be in \[1, 6\]; got 7"),
    ({"condition": torch.zeros(4, 3)}, ValueError, r"condition must be a Tensor with 5 rows"),
    ({"condition": [0] * N}, ValueError, "condition must be a Tensor with 5 rows.*got list"),
    ({"partial": integers(6)}, ValueError, r"partial must be in \[-1, 5\]; got 6"),
    ({"partial": integers(-2)}, ValueError, r"partial must be in \[-1, 5\]; got -2"),
    ({"partial": integers(0, (N, 1, 7, 3))}, ValueError, "partial must have shape"),
    ({"partial": torch.zeros(SHAPE)}, TypeError, "partial must be integers, -1 where to draw"),
    ({"partial": (integers(), integers(1))}, TypeError, r"partial\[1\] must be bool"),
    ({"partial": (integers(-1), integers() == 0)}, ValueError, r"partial must be in \[0, 5\]"),
    ({"noise": noise(CASE)[:4]}, ValueError, r"noise must have shape \(num_samples, draws, H, W\)"),
    ({"noise": noise(CASE) + 1}, ValueError, r"noise must be in \[0, 1\]"),
    ({"noise": "white"}, TypeError, "noise must be a Tensor; got str"),
    ({"noise": noise(CASE), "generator": torch.Generator()}, ValueError, "generator must be None"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator; got int"),
    ({"choose": 3}, TypeError, "choose must be callable or None; got int"),
    ({"choose": print, "noise": noise(CASE)}, ValueError, "noise must be None where choose"),
    ({"choose": print, "method": "jacobi"}, ValueError, "parameters of images that are not final"),
    ({"choose": lambda params, step: None}, ValueError, "choose must return integers.*NoneType"),
    ({"choose": lambda params, step: params[:, :1]}, ValueError, "choose must return integers"),
    ({"choose": lambda params, step: integers(6, (N, 1, 1))}, ValueError, r"in \[0, 5\]; got 6"),
    ({"progress": True}, TypeError, "progress must be callable or None; got bool"),
    ({"return_log_prob": 1}, TypeError, "return_log_prob must be a bool"),
]


@pytest.mark.parametrize("options, error, text", WRONG, ids=map(str, range(len(WRONG))))
def test_wrong_arguments(options, error, text):
    before = sampling.last_report()
    with pytest.raises(error, match=rf"^sample: .*{text}"):
        drawn(CASE, **options)
    assert sampling.last_report() is before


def test_a_model_must_be_callable_and_a_number_of_samples_must_be_one():
    for model, count, error in ((3, 1, "model must be callable"), (CASE.model, -1, "num_samples")):
        with pytest.raises((TypeError, ValueError), match=f"sample: {error}"):
            sampling.sample(model, count, shape=CASE.shape, output=CASE.output)


def test_outputs_refuse_wrong_options():
    for make_output, text in (
        (lambda: sampling.Categorical(1), r"Categorical: levels must be in \[2, "),
        (lambda: sampling.Categorical(5, inputs="symetric"), "did you mean 'symmetric'"),
        (lambda: sampling.Bernoulli(inputs=(float("nan"), 0.0)), "Bernoulli: inputs must be in"),
        (lambda: sampling.LogisticMixture(256, 0), "num_mixtures must be at least 1; got 0"),
        (lambda: sampling.Gaussian(9, inputs=(-1.0, 0.0)), "Gaussian: inputs must have a positive"),
    ):
        with pytest.raises(ValueError, match=text):
            make_output()


def test_top_k_of_what_has_no_softmax_is_refused():
    with pytest.raises(ValueError, match=r"top_k must be None for Bernoulli"):
        drawn(make("bernoulli"), top_k=1)


@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "mixture", "gaussian"])
@pytest.mark.parametrize("method", ["naive", "jacobi", "incremental", "wavefront"])
def test_nan_is_an_error_and_no_level(kind, method):
    case = make(kind)
    case.model.head.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="model must return finite parameters"):
        drawn(case, method=method)


@pytest.mark.parametrize("method", ["naive", "incremental"])
def test_who_chooses_gets_no_nan(method):
    case = make("categorical")
    case.model.head.bias.data[2] = torch.nan
    with pytest.raises(ValueError, match="model must return finite parameters"):
        drawn(case, method=method, choose=lambda params, step: params[:, :1].long())


def test_auto_says_that_a_model_sees_later_pixels(monkeypatch):
    monkeypatch.setattr(methods, "_told", set())
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3, padding=1))
    with pytest.warns(UserWarning, match="causal model alone: the output at a pixel must not see"):
        drawn(CASE._replace(model=model, shape=(1, 3, 7), output=sampling.Categorical(6)))


def test_a_mask_multiplied_into_a_kernel_is_seen():
    """Public code's F.conv2d(x, w * mask) draws by the engine, and in silence."""
    case = make("categorical")
    masked = torch.nn.Conv2d(1, 6, 3, padding=1, dtype=torch.float64)
    with torch.no_grad():
        masked.weight[:, :, 1, 1:] = 0
        masked.weight[:, :, 2] = 0
    case = case._replace(model=masked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(case)
    assert sampling.last_report().method == "incremental"
    assert torch.equal(found, drawn(case, method="naive"))


@pytest.mark.parametrize("method", sampling.METHODS)
def test_no_images_are_no_error(method):
    case = make("categorical")
    assert drawn(case, count=0, method=method).shape == (0, *case.shape)


class InPlace(nn.Module):
    """Writes into halves of its features."""

    def __init__(self):
        super().__init__()
        self.first = genkern.nn.MaskedConv2d(1, 8, 3, mask_type="A")
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        h = self.first(x)
        a, b = h.chunk(2, 1)
        a.tanh_()
        b.sigmoid_()
        return self.last(h)


class Half(InPlace):
    def forward(self, x):
        return self.last(self.first(x)).bfloat16()


class Odd(InPlace):
    def forward(self, x):
        return self.last(self.first(x)) + 0 * float(x.detach().numpy().sum())


@pytest.mark.parametrize(
    ("model", "why"),
    [(InPlace, "write into a view"), (Half, "half precision"), (Odd, "without data")],
)
def test_what_cannot_be_recorded_is_drawn_by_another_method(model, why):
    torch.manual_seed(0)
    network, given = model(), {"shape": (1, 3, 4), "output": sampling.Categorical(4)}
    noise = sampling.draw_noise(8, **given)
    found = sampling.sample(network, 8, noise=noise, **given)
    assert sampling.last_report().method == "jacobi"
    assert why in sampling.last_report().reason
    assert torch.equal(found, sampling.sample(network, 8, noise=noise, method="naive", **given))
    with pytest.raises(ValueError, match=why):
        sampling.sample(network, 8, noise=noise, method="incremental", **given)


def test_autocast_and_no_images_are_no_errors():
    given = {"shape": (1, 3, 4), "output": sampling.Categorical(4)}
    with torch.autocast("cpu", torch.bfloat16):
        assert sampling.sample(InPlace(), 2, **given).shape == (2, 1, 3, 4)
    assert sampling.sample(InPlace(), 0, method="incremental", **given).shape == (0, 1, 3, 4)
