"""What an exact likelihood is good for: bits, classes by Bayes' rule, outliers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from examples.autoregressive.raster import RasterModel
from examples.data.dataset import Dataset
from examples.harness.recorder import bits_per_dim
from examples.harness.scores import NORMAL
from examples.model import Batch

#: Places of the images in a batch.
PLACES = 2**15
#: Of the training items, as many as are shown to the classifiers that p(y | x) is compared with.
MOST_TRAINING_ITEMS = 5000


@torch.no_grad()
def nats(
    model: RasterModel, items: torch.Tensor, given: torch.Tensor | None = None
) -> torch.Tensor:
    """-log p(x), or -log p(x | given) of a conditional model: (N,) in float64, nats per item."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    size = max(1, PLACES // items[:1].numel()) if len(items) else 1
    for start in range(0, len(items), size):
        part = slice(start, start + size)
        told = None if given is None else given[part].to(device)
        found.append(model.nll(items[part].to(device), told).double().cpu())
    return torch.cat(found)


def nats_of(model: RasterModel, dataset: Dataset) -> torch.Tensor:
    """`nats` of the test split, given what the model is to be told."""
    items = dataset.splits["test"]
    return nats(model, items, model.given(Batch(items, dataset.labels.get("test"))))


def mean_and_half(values: torch.Tensor) -> tuple[float, float]:
    """Mean, and half its 95 % interval: over the items, as if each had been drawn alone."""
    return values.mean().item(), NORMAL * values.std().item() / math.sqrt(len(values))


def likelihood(model: RasterModel, dataset: Dataset) -> dict[str, float]:
    """Exact nats and bits/dim of the test split, with half their 95 % intervals, and perplexity.

    Perplexity: of a level, exp(nats / dims): as uncertain as so many equally likely ones.
    """
    mean, half = mean_and_half(nats_of(model, dataset))
    return {
        "nats": mean,
        "nats_half_width": half,
        "bits_per_dim": bits_per_dim(dataset.spec, mean),
        "bits_per_dim_half_width": bits_per_dim(dataset.spec, half),
        "perplexity": math.exp(mean / dataset.spec.dims),
    }


def log_joint(model: RasterModel, items: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """log p(x | y) + log p(y) for every class (N, classes), nats."""
    classes = range(len(prior))
    found = [-nats(model, items, torch.full((len(items),), label)) for label in classes]
    return torch.stack(found, dim=1) + prior.log()


def prior(dataset: Dataset) -> torch.Tensor:
    """Frequencies of the classes (classes,) in the training data, each seen once more (Laplace)."""
    counts = dataset.labels["train"].bincount(minlength=dataset.spec.classes).double() + 1.0
    return counts / counts.sum()


def marginal(model: RasterModel, dataset: Dataset) -> Callable[[torch.Tensor], torch.Tensor]:
    """Items to -log p(x) (N,), nats; given a class, -log sum_y p(x | y) p(y)."""
    if model.condition != "class":
        return lambda items: nats(model, items)
    classes = prior(dataset)
    return lambda items: -log_joint(model, items, classes).logsumexp(1)


@dataclass(frozen=True)
class Classes:
    """p(y | x) by Bayes' rule.

    Args:
        accuracy: of the likeliest class, in the test split, and half its 95 % interval.
        nats: mean of -log p(y | x), of the right class.
        others: accuracy of classifiers trained on the same items.
    """

    accuracy: tuple[float, float]
    nats: float
    others: dict[str, float]


def classes(model: RasterModel, dataset: Dataset) -> Classes:
    r"""p(y | x) = p(x | y) p(y) / p(x), beside classifiers that model p(y | x) alone."""
    labels = dataset.labels["test"]
    posterior = log_joint(model, dataset.splits["test"], prior(dataset)).log_softmax(1)
    right = (posterior.argmax(1) == labels).double()
    half = NORMAL * right.std().item() / math.sqrt(len(right))
    loss = -posterior.gather(1, labels[:, None]).mean().item()
    return Classes((right.mean().item(), half), loss, discriminative(dataset))


def discriminative(dataset: Dataset) -> dict[str, float]:
    """Test accuracy of scikit-learn's classifiers, with its own options."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    def scaled(split: str) -> np.ndarray:
        levels = dataset.splits[split].flatten(1).numpy()
        return levels / (dataset.spec.levels - 1.0)

    x, y = scaled("train")[:MOST_TRAINING_ITEMS], dataset.labels["train"][:MOST_TRAINING_ITEMS]
    made = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "MLP": MLPClassifier(max_iter=1000, random_state=0),
    }
    test = scaled("test"), dataset.labels["test"].numpy()
    return {name: float(each.fit(x, y.numpy()).score(*test)) for name, each in made.items()}


def outliers(dataset: Dataset, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Items that are not of the data (N, C, H, W), by what was done to those of the test split."""
    items, levels = dataset.splits["test"], dataset.spec.levels
    pixels = items.flatten(2)
    shuffled = [image[:, torch.randperm(pixels.shape[2], generator=generator)] for image in pixels]
    constant = torch.arange(len(items)) % levels
    return {
        "noise": torch.randint(levels, items.shape, generator=generator).to(items.dtype),
        "pixels shuffled": torch.stack(shuffled).view_as(items),
        "levels inverted": levels - 1 - items,
        "upside down": items.flip(2),
        "constant": constant.to(items.dtype)[:, None, None, None].expand_as(items),
        "blank": torch.zeros_like(items),
    }


@dataclass(frozen=True)
class Detection:
    """How well -log p(x) tells a kind of outlier from the test split.

    Args:
        nats: mean of -log p(x), per item.
        low: AUROC of "p(x) is low": 1 is perfect, 0.5 is chance, 0 is the wrong way round.
        untypical: AUROC of "-log p(x) is far from its median over the validation split".
    """

    nats: float
    low: float
    untypical: float


def detect(model: RasterModel, dataset: Dataset, seed: int = 0) -> dict[str, Detection]:
    """Outlier detection by log p(x), for each kind of `outliers`.

    A smooth or constant image may be likelier than any of the data, which are spread over many
    more images: there "low p(x)" fails, and the distance from the typical value does better.
    Sources: Nalisnick et al. 2019, "Do deep generative models know what they don't know?", and
    "Detecting out-of-distribution inputs to deep generative models using typicality".
    """
    from sklearn.metrics import roc_auc_score

    score = marginal(model, dataset)
    inside = score(dataset.splits["test"])
    centre = score(dataset.splits["val"]).median()
    found = {}
    for kind, items in outliers(dataset, torch.Generator().manual_seed(seed)).items():
        outside = score(items)
        truth = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
        both = torch.cat([inside, outside])
        low, untypical = (
            float(roc_auc_score(truth, values)) for values in (both, (both - centre).abs())
        )
        found[kind] = Detection(outside.mean().item(), low, untypical)
    return found
