"""What codes are used for, and which posterior makes them: `python -m examples.latent.uses`."""

import json
import math

import numpy as np
import pytest
import torch

from examples import data
from examples.cli import main
from examples.latent.uses import __main__ as uses
from examples.latent.uses import clusters, few_labels, gradients, richer_posterior, walks
from examples.latent.uses.runs import codes_of, images_of
from tests.examples.test_examples import make, noise

F64 = torch.float64


def test_slerp_goes_along_the_circle_at_even_speed():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    t = torch.linspace(0, 1, 4)[:, None]
    found = walks.slerp(a, b, t)
    angles = torch.atan2(found[:, 1], found[:, 0])
    torch.testing.assert_close(angles, t[:, 0] * math.pi / 2)
    torch.testing.assert_close(found.norm(dim=1), 2 + 2 * t[:, 0])
    torch.testing.assert_close(walks.slerp(a, 3 * a, t), torch.lerp(a, 3 * a, t))
    assert walks.slerp(a, -a, t).isfinite().all()


def test_attributes_are_ink_and_lean_and_their_vectors_raise_them():
    lines = torch.zeros(3, 1, 7, 7, dtype=torch.uint8)
    rows = torch.arange(7)
    lines[0, 0, rows, 3], lines[1, 0, rows, 6 - rows], lines[2, 0, rows, rows] = 16, 16, 16
    found = walks.attributes(lines)
    assert found["lean"].tolist() == pytest.approx([0.0, 1.0, -1.0])
    assert found["ink"].tolist() == pytest.approx([16 / 7] * 3)
    codes = torch.arange(9.0)[:, None] * torch.tensor([2.0, 0.0])
    vector = walks.attribute_vector(codes, torch.arange(9.0))
    torch.testing.assert_close(vector, torch.tensor([12.0, 0.0]))


def test_walks_and_scatter_of_a_small_model(tmp_path):
    model, items = make("vae").eval(), data.load("digits").splits["test"]
    codes = codes_of(model, items)
    assert walks.traversals(codes).shape == (4 * 9, 4) and walks.strips(codes).shape == (8 * 9, 4)
    torch.testing.assert_close(walks.strips(codes)[::9], codes[:8])
    assert images_of(model, codes).shape == items.shape
    placed, shares = clusters.components(codes)
    assert shares.sum().item() == pytest.approx(1.0) and (shares.diff() <= 1e-9).all()
    covariance = placed.T.cov()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-6, rtol=0)


def test_purity_and_information_of_known_clusters():
    labels = torch.arange(3).repeat_interleave(20)
    apart = labels[:, None] * 10.0 + torch.rand(60, 2, generator=noise())
    assert clusters.cluster(apart, labels) == (1.0, pytest.approx(1.0))
    assert clusters.purity(torch.zeros(4).numpy(), torch.tensor([0, 1, 1, 2]).numpy()) == 0.5


def test_few_labels_are_balanced_and_the_two_starts_differ_in_their_weights_only():
    labels = data.load("digits").labels["train"]
    chosen = few_labels.labelled(labels, 50, seed=3)
    assert labels[chosen].bincount().tolist() == [5] * 10 and len(chosen.unique()) == 50
    model = make("autoencoder", form="convolutional")
    nets = [few_labels.classifier(model, 10, pretrained=p) for p in (True, False)]
    assert torch.equal(nets[0][0][0].weight, model.encoder[0].weight)
    assert not torch.equal(nets[1][0][0].weight, model.encoder[0].weight)
    assert [p.shape for p in nets[0].parameters()] == [p.shape for p in nets[1].parameters()]
    found = few_labels.compare(make("vae"), data.load("digits"), 50, seeds=2, steps=60)
    assert all(0.3 < value < 1 for values in found.values() for value in values)


def test_gradient_estimators_are_unbiased_with_the_variances_of_the_theory():
    """f = |z|^2 / 2: the pathwise gradient is z; with sigma = 1/2, its variance is 1/4 each."""
    mu, logvar = torch.tensor([[1.0, -2.0]], dtype=F64), torch.full((1, 2), math.log(0.25)).double()
    f = lambda z: 0.5 * z.square().sum(-1)  # noqa: E731
    found = gradients.estimates(f, mu, logvar, 40_000, noise())
    measured = gradients.variances(found)
    assert measured["reparameterised"] == pytest.approx(0.5, rel=0.05)
    # E[(f eps / sigma)^2] of z_i = mu_i + sigma eps_i, by moments of the normal distribution
    exact = exact_score_variance(mu[0].tolist(), 0.5)
    assert measured["score function"] == pytest.approx(exact, rel=0.05)
    assert measured["score function, baseline"] < measured["score function"]
    for g in found.values():
        error = (g.var(0) / len(g)).sqrt()
        assert ((g.mean(0) - mu).abs() < 4 * error).all()


def exact_score_variance(mu: list[float], sigma: float) -> float:
    """Of f eps_i / sigma, summed over i, by quadrature."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(20))
    weights = weights / weights.sum()
    a, b = (m + sigma * nodes for m in mu)
    f = 0.5 * (a[:, None] ** 2 + b[None, :] ** 2)
    joint = weights[:, None] * weights[None, :]
    total = 0.0
    for eps in (nodes[:, None], nodes[None, :]):
        g = f * eps / sigma
        total += ((joint * g * g).sum() - (joint * g).sum() ** 2).item()
    return total


@torch.no_grad()
def test_a_flow_starts_as_the_posterior_that_it_is_put_behind():
    model, items = make("vae").eval(), data.load("digits").splits["test"][:20]
    flow = richer_posterior.with_flow(model, seed=1)
    z, log_q = flow.encode(items).rsample_and_log_prob(torch.Size([5]), noise())
    torch.testing.assert_close(model.encode(items).log_prob(z), log_q, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        flow.reconstruction_nll(items, z), model.reconstruction_nll(items, z), atol=0, rtol=0
    )


def test_a_posterior_is_trained_and_its_decoder_is_not(monkeypatch):
    monkeypatch.setattr(richer_posterior, "STEPS", 60)
    monkeypatch.setattr(richer_posterior, "LR", 1e-2)
    model, items = make("vae").eval(), data.load("digits").splits["test"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = richer_posterior.trained(model, items, 0)
    same = {name: torch.equal(value, before[name]) for name, value in found.state_dict().items()}
    assert len(same) == 12
    assert all(equal == name.startswith("decoder") for name, equal in same.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    first, last = (richer_posterior.elbo(each, items, 8, 0).value for each in (model, found))
    assert last > first + 1


def test_the_page_keeps_what_a_use_says_and_its_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(richer_posterior, "STEPS", 1)
    run, page = str(tmp_path / "vae"), tmp_path / "page"
    small = ["--steps", "1", "--set", "hidden=8", "latent=2"]
    assert main(["train", "vae", "--out", run, *small]) == 0
    capsys.readouterr()
    for use in ("richer_posterior", "clusters"):
        assert uses.main([use, run, "--page", str(page)]) == 0
    out, text = capsys.readouterr().out, (page / "README.md").read_text()
    rows = json.loads((page / "uses.json").read_text())
    assert [(row["use"], row["models"]) for row in rows] == [
        ("clusters", "vae"), ("richer_posterior", "vae"),
    ]  # fmt: skip
    for row in rows:
        assert f"`{row['use']}` of `vae`, digits: {uses.USES[row['use']]}." in text
        assert row["lines"] and all(f"    {line}\n" in text for line in row["lines"])
        assert all(line in out for line in row["lines"])
    assert "over 3 seeds" in rows[1]["lines"][-1]
    ((name, caption),) = rows[0]["pictures"]
    assert f"![{caption}](pictures/{name})" in text and (page / "pictures" / name).is_file()
    assert uses.main(["gradients", run + "2"]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
