"""Whose an exception is while a model is recorded, what is said of it, and rules of others."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import genkern
from genkern import sampling
from genkern.sampling import methods, record
from genkern.sampling.graph import Graph, NoRule, Term
from genkern.sampling.incremental import Stepper

OPTIONS = {"shape": (1, 3, 4), "output": sampling.Categorical(4)}


class Net(nn.Module):
    def __init__(self, op) -> None:
        super().__init__()
        self.first = genkern.nn.MaskedConv2d(1, 6, 3, mask_type="A")
        self.inner, self.last = op, nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


class Op(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(methods, "_told", set())


def draws_like_the_definition(network, method, words) -> None:
    noise = sampling.draw_noise(3, **OPTIONS)
    with pytest.warns(RuntimeWarning, match=words):
        found = sampling.sample(network, 3, noise=noise, **OPTIONS)
    assert sampling.last_report().method == method
    assert re.search(words.removeprefix("Net is drawn by "), sampling.last_report().reason)
    assert torch.equal(
        found, sampling.sample(network, 3, noise=noise, method="naive", **OPTIONS)
    )  # fmt: skip


ERRORS = [RuntimeError("broken"), ValueError("broken"), TypeError("broken"), KeyError("broken")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("method", ["auto", "incremental", "wavefront"])
def test_a_fault_of_a_rule_is_not_taken_for_an_op_without_one(error, method, monkeypatch):
    def broken(graph, x):
        raise error

    monkeypatch.setitem(record._rules, "aten::relu", broken)
    with pytest.raises(type(error), match="broken"):
        sampling.sample(Net(nn.ReLU()), 2, method=method, **OPTIONS)


def test_a_fault_of_a_rule_comes_out_of_a_model_that_goes_on_after_it(monkeypatch):
    monkeypatch.setitem(record._rules, "aten::relu", lambda graph, x: x.no_such_thing)

    def careful(x):
        try:
            return x.relu()
        except AttributeError as error:
            raise RuntimeError("mine") from error

    with pytest.raises(AttributeError, match="no_such_thing"):
        sampling.sample(Net(Op(careful)), 2, **OPTIONS)


def test_a_fault_of_the_planner_is_not_hidden(monkeypatch):
    from genkern.sampling import schedule

    def broken(*ignored):
        raise ValueError("no such ring")

    monkeypatch.setattr(schedule, "slots_of", broken)
    with pytest.raises(ValueError, match="no such ring"):
        sampling.sample(Net(nn.ReLU()), 2, **OPTIONS)


HOST = {
    "item": (lambda x: x + 0 * x.argmax().item(), "aten::argmax .*register_step"),
    "bool": (lambda x: x if (x > 0).any() else 2 * x, "aten::gt .*register_step"),
    "numpy": (lambda x: x + 0 * float(x.detach().numpy().sum()), "without data; it raised"),
    "sort": (lambda x: x.sort(1).values, r"aten::sort .*register_step\('aten::sort', rule"),
    "option": (lambda x: x.div(2, rounding_mode="floor"), "no rule covers aten.div"),
    "raises": (lambda x: x if len(str(x)) > 80 else {}[3], "it raised KeyError"),
}


@pytest.mark.parametrize("name", HOST)
def test_what_a_model_does_that_has_no_rule_is_drawn_otherwise_and_said(name, told):
    call, words = HOST[name]
    torch.manual_seed(0)
    words = rf"Net is drawn by .*{words}.*; in inner \(Op\)"
    draws_like_the_definition(Net(Op(call)), "jacobi", words)


def test_a_value_that_is_read_is_named(told):
    model = lambda x: torch.zeros(1, 4, 1, 1) * x.item()  # noqa: E731
    with pytest.warns(RuntimeWarning, match=r"values of features, which it reads .*\.item\(\)"):
        sampling.sample(model, 1, **{**OPTIONS, "shape": (1, 1, 1)})
    assert sampling.last_report().method == "jacobi"
    assert "_local_scalar_dense" in sampling.last_report().reason


def test_it_is_said_once_for_a_class_and_a_reason(told):
    with pytest.warns(RuntimeWarning) as seen:
        for op in (Op(torch.cos), Op(torch.cos), nn.InstanceNorm2d(6)):
            sampling.sample(Net(op), 2, **OPTIONS)
            sampling.sample(Net(op), 2, **OPTIONS)
    assert ["aten::cos" in str(s.message) for s in seen] == [True, False]
    assert "in inner (InstanceNorm2d)" in str(seen[1].message)
    assert seen[0].filename == __file__


def test_an_error_of_the_model_is_its_own():
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        sampling.sample(Net(Op(lambda x: x + torch.zeros(5, 1, 1))), 2, **OPTIONS)


class Apart(nn.Module):
    """Colours that see earlier pixels, and not each other."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            genkern.nn.MaskedConv2d(3, 12, 3, mask_type="A"), nn.Tanh(), nn.Conv2d(12, outputs, 1)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("output", [sampling.Categorical(4), sampling.Bernoulli()], ids=repr)
def test_colours_that_do_not_see_each_other_are_drawn_in_one_step(output):
    model, shape = Apart(output.channels(3)).double().eval(), (3, 3, 4)
    with torch.no_grad():
        model.layers[2].weight.mul_(6)
    given = {"shape": shape, "output": output}
    given["noise"] = sampling.draw_noise(3, **given)
    expected, log_p = sampling.sample(model, 3, method="naive", return_log_prob=True, **given)
    assert len(expected.unique()) == output.levels
    for method in ("incremental", "wavefront", "jacobi"):
        found, own = sampling.sample(model, 3, method=method, return_log_prob=True, **given)
        assert torch.equal(found, expected)
        torch.testing.assert_close(own, log_p, rtol=1e-12, atol=1e-12)
    sampling.sample(model, 3, **given)
    assert sampling.last_report() == ("incremental", 12, "")
    with torch.no_grad():
        whole = model(output.to_inputs(expected, torch.float64))
    seen = []

    def choose(params, step):
        seen.append((step.number, step.colours))
        own = output.at(whole, step.colours.start)[:, :, step.rows, step.cols]
        torch.testing.assert_close(params, own, rtol=1e-12, atol=1e-12)
        return expected[:, step.colours.start :][:, :1, step.rows, step.cols].long()

    del given["noise"]
    for method in ("naive", "incremental"):
        found = sampling.sample(model, 3, choose=choose, method=method, **given)
        assert torch.equal(found, expected)
        assert seen == [(i, range(i % 3, i % 3 + 1)) for i in range(36)]
        seen.clear()


def test_parameters_that_do_not_depend_on_the_images_are_drawn_by_steps():
    weights = torch.randn(1, 4, 3, 4)
    noise = sampling.draw_noise(5, **OPTIONS)
    model = lambda x: weights.expand(len(x), -1, -1, -1)  # noqa: E731
    found = sampling.sample(model, 5, noise=noise, **OPTIONS)
    assert sampling.last_report().method == "incremental"
    assert torch.equal(found, sampling.sample(model, 5, noise=noise, method="naive", **OPTIONS))


WRONG = [
    ((3, None), TypeError, "op must be a str; got int"),
    (("relu", None), ValueError, "\"namespace::name\".*got 'relu'"),
    (("aten::add.Tensor", None), ValueError, "without an overload"),
    (("aten::relu_", None), ValueError, 'or a last "_"'),
    (("aten::rleu", None), ValueError, "defined in torch before its rule.*got 'aten::rleu'"),
    (("no_such::relu", None), ValueError, "defined in torch before its rule"),
    (("aten::cos", 3), TypeError, "rule must be callable or None; got int"),
]


@pytest.mark.parametrize("arguments, error, text", WRONG, ids=map(str, range(len(WRONG))))
def test_what_is_registered_is_checked(arguments, error, text):
    with pytest.raises(error, match=f"^register_step: .*{text}"):
        sampling.register_step(*arguments)
    with pytest.raises(TypeError, match="rule must be callable"):
        sampling.register_step("aten::cos")(3)


RESULTS = [
    (lambda graph, x: None, TypeError, "must return a View; got NoneType"),
    (lambda graph, x: torch.zeros(1), TypeError, "must return a View; got Tensor"),
    (lambda graph, x: [x], TypeError, "must return a View; got list"),
    (lambda graph, x: x.narrow(0, 2), ValueError, r"shapes \[\(2, 6, 3, 4\)\].*\[\(2, 2, 3, 4\)\]"),
    (lambda graph, x: [x, x], TypeError, "must return a View; got list"),
]


@pytest.mark.parametrize("rule, error, text", RESULTS, ids=map(str, range(len(RESULTS))))
def test_what_a_rule_returns_is_checked(rule, error, text, monkeypatch):
    monkeypatch.setitem(record._rules, "aten::cos", rule)
    with pytest.raises(error, match=f"register_step: the rule of aten::cos .*{text}"):
        sampling.sample(Net(Op(torch.cos)), 2, **OPTIONS)


def test_a_rule_of_other_arguments_is_named_as_a_rule(monkeypatch, told):
    monkeypatch.setitem(record._rules, "aten::cos", lambda graph: graph)
    reason = "no rule covers aten.cos.default with such arguments: its rule has too many positional"
    draws_like_the_definition(Net(Op(torch.cos)), "jacobi", reason)


def test_a_rule_may_refuse(monkeypatch, told):
    def rule(graph, x):
        raise NoRule("never on a Monday")

    monkeypatch.setitem(record._rules, "aten::cos", rule)
    draws_like_the_definition(Net(Op(torch.cos)), "jacobi", r"never on a Monday; in inner \(Op\)")


def test_what_the_page_shows_runs(monkeypatch):
    monkeypatch.setattr(record, "_rules", dict(record._rules))
    page = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(blocks) == 3
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, "sampling.md", "exec"), names)


def test_a_stepper_names_the_module_too():
    with pytest.raises(NoRule, match=r"aten::cos.*; in inner \(Op\)"):
        Stepper(Net(Op(torch.cos)), torch.zeros(1, 1, 3, 4))


def _graph():
    graph = Graph(2)
    return graph, *(graph.constant(torch.randn(n, 1, 1), n, (3, 3)) for n in (8, 8, 4))


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda g, x, y, z: g.pointwise("add", x, y), "add must have a number; got None"),
        (
            lambda g, x, y, z: g.pointwise("mul", x, y, number=2.0),
            "mul takes no number; got 2.0",
        ),
        (lambda g, x, y, z: g.pointwise("add", x, number=1.0), "add must be of 2 views; got 1"),
        (lambda g, x, y, z: g.pointwise("tanh", x, y), "tanh must be of 1 views; got 2"),
        (lambda g, x, y, z: g.pointwise("erf", x), "function must be one of .*relu.*'erf'"),
        (lambda g, x, y, z: g.pointwise("mul", x, z), "equal channels and grids; got .8, .*4, "),
        (lambda g, x, y, z: _product(g, x, torch.ones(2, 8)), r"must have shape \(8, 8\); got"),
        (lambda g, x, y, z: _product(g, x, torch.ones(8, 9)), r"must have shape \(8, 8\); got"),
        (
            lambda g, x, y, z: _product(g, x, torch.ones(8, 8), torch.ones(1)),
            r"bias must have shape \(8,\); got \(1,\)",
        ),
    ],
)
def test_what_a_rule_asks_of_the_graph_is_checked(ask, text):
    """A weight of another shape would read memory that is not its own."""
    with pytest.raises(ValueError, match=text):
        ask(*_graph())


def _product(graph, x, weight, bias=None):
    return graph.product(8, (3, 3), [Term(x.pieces[0], weight)], bias)
