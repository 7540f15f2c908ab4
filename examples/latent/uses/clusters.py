"""Clusters of codes beside clusters of pixels, and the principal components of the codes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from examples.latent.uses.report import Report
from examples.latent.uses.runs import coded, codes_of, pixels


def purity(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Share of items whose class is the commonest of their cluster."""
    from sklearn.metrics.cluster import contingency_matrix

    return float(contingency_matrix(labels, clusters).max(axis=0).sum() / len(labels))


def cluster(values: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> tuple[float, float]:
    """Purity and normalised mutual information of k-means with as many clusters as classes."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    classes = len(labels.unique())
    found = KMeans(classes, n_init=10, random_state=seed).fit_predict(values.double().numpy())
    return purity(found, labels.numpy()), float(normalized_mutual_info_score(labels.numpy(), found))


def components(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal components: codes in them (N, latent), and their shares of the variance."""
    centred = (codes - codes.mean(0)).double()
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes.T, values.square() / values.square().sum()


def scatter(codes: torch.Tensor, labels: torch.Tensor, path: Path) -> None:
    """The first two components, coloured by class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    placed, shares = components(codes)
    figure = Figure(figsize=(6.4, 5.4), dpi=75, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xlabel=f"component 1, {shares[0]:.0%} of the variance",
        ylabel=f"component 2, {shares[1]:.0%}",
    )
    drawn = axes.scatter(placed[:, 0], placed[:, 1], c=labels, cmap="tab10", s=6)
    axes.legend(*drawn.legend_elements(), loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    figure.savefig(path)


def main(runs: Sequence[Path], report: Report) -> None:
    model, dataset = coded(runs[0])
    items, labels = dataset.splits["train"], dataset.labels["train"]
    codes = codes_of(model, items)
    for name, values in (("codes", codes), ("pixels", pixels(model, items))):
        pure, information = cluster(values, labels)
        report.say(f"k-means of {name}: purity {pure:.3f}, NMI {information:.3f}")
    shares = components(codes)[1]
    report.say("PCA of codes, shares of the variance: " + " ".join(f"{s:.2f}" for s in shares[:8]))
    caption = "Codes in their first two principal components, coloured by class"
    scatter(codes, labels, report.picture("components", caption))
