"""`genkern.sampling.unchanged`: what is kept draws what a model that is recorded anew draws."""

import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

from genkern import sampling
from genkern.sampling import incremental, kept
from tests.sampling.nets import N, drawn, make, noise

KINDS = [
    ("categorical", "vector"), ("categorical", "map"), ("gaussian", "map"), ("mixture-rgb", ""),
]  # fmt: skip


@pytest.fixture
def recorded(monkeypatch):
    """Plans that are made."""
    plans, plan = [], incremental.Plan

    def counted(*args, **kwargs):
        plans.append(plan(*args, **kwargs))
        return plans[-1]

    monkeypatch.setattr(incremental, "Plan", counted)
    return plans


@pytest.mark.parametrize("method", ["incremental", "wavefront"])
@pytest.mark.parametrize("kind, condition", KINDS)
def test_calls_draw_the_same_with_one_recording(kind, condition, method, recorded):
    case = make(kind, condition)
    calls = []
    for seed in range(3):
        given = None if case.condition is None else case.condition * (1 - seed)
        partial = torch.full((N, *case.shape), -1)
        partial[:, :, 1, 1] = seed
        calls.append({"condition": given, "partial": partial, "noise": noise(case, seed)})
    expected = [drawn(case, method="naive", **call) for call in calls]
    assert len({tuple(images.flatten().tolist()) for images in expected}) == 3
    recorded.clear()
    with sampling.unchanged(case.model):
        for call, images in zip(calls, expected, strict=True):
            assert torch.equal(drawn(case, method=method, **call), images)
    assert len(recorded) == 1 and not kept._models
    for call, images in zip(calls, expected, strict=True):
        assert torch.equal(drawn(case, method=method, **call), images)
    assert len(recorded) == 4


def test_a_start_in_the_middle_and_other_batches_are_kept_beside(recorded):
    case = make("categorical")
    whole = drawn(case, method="naive")
    given = (torch.arange(21) < 9).view(3, 7).expand(whole.shape)
    partial = torch.where(given, whole.long(), -1)
    recorded.clear()
    with sampling.unchanged(case.model):
        for _ in range(2):
            assert torch.equal(drawn(case, partial=partial), whole)
            assert torch.equal(drawn(case), whole)
            few = drawn(case, 2, noise=noise(case)[:2])
            assert torch.equal(few, whole[:2])
            chosen = drawn(case, choose=lambda params, step: whole[:, :, step.rows, step.cols])
            assert torch.equal(chosen, whole)
    assert len(recorded) == 4  # of 5 images, from a pixel on, of 2 images, by wavefronts


def test_weights_that_are_written_to_are_seen(recorded):
    case = make("categorical")
    optimizer = torch.optim.SGD(case.model.parameters(), 5.0)
    with sampling.unchanged(case.model):
        first = drawn(case)
        for parameter in case.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        second = drawn(case)
        assert not torch.equal(first, second)
        assert torch.equal(second, drawn(case))
    assert len(recorded) == 2
    assert torch.equal(second, drawn(case, method="naive"))


class Decides(nn.Module):
    """Of which a condition is more than an argument of ops."""

    def __init__(self, how) -> None:
        super().__init__()
        self.case, self.how = make("categorical", "vector"), how
        self.model = self.case.model

    def forward(self, x, condition):
        return self.model(x, self.how(condition))


WAYS = {
    "branch": lambda c: c if c[0, 0] > 0 else -c,
    "writes": lambda c: c.clone().mul_(2),
    "numpy": lambda c: torch.from_numpy(2 * c.numpy()),
}


@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_kept_where_values_of_a_condition_decide(name, recorded):
    model = Decides(WAYS[name])
    case = model.case._replace(model=model)
    given = [case.condition, -case.condition]
    expected = [drawn(case, method="naive", condition=c) for c in given]
    with sampling.unchanged(model), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for condition, images in zip(given, expected, strict=True):
            assert torch.equal(drawn(case, condition=condition), images)
    assert [w.category for w in seen] == [RuntimeWarning]
    assert "nothing is kept of the model" in str(seen[0].message)
    assert len(recorded) == 2


def test_blocks_nest_and_let_go():
    case = make("categorical")
    with sampling.unchanged(case.model):
        with sampling.unchanged(case.model):
            drawn(case)
        (steps,) = kept._models[id(case.model)].steps.values()
        ref = weakref.ref(steps.stepper)
        del steps
    gc.collect()
    assert ref() is None and not kept._models


@pytest.mark.parametrize("model", [3, lambda x: x], ids=["int", "function"])
def test_only_modules_are_kept(model):
    text = f"unchanged: model must be a Module .*got {type(model).__name__}"
    with pytest.raises(TypeError, match=text), sampling.unchanged(model):
        pass


def test_a_method_of_a_module_is_a_model_too(recorded):
    case = make("categorical", dtype=torch.float32)
    method = case.model.forward
    for subject in (case.model, method):
        with sampling.unchanged(subject):
            found = [drawn(case._replace(model=method)) for _ in range(2)]
        assert torch.equal(*found)
    assert len(recorded) == 2
