"""Samples of any model, with labels or pictures where it takes them."""

import torch

from examples import registry
from examples.errors import UsageError, wrong
from examples.model import Batch, DataSpec, GenerativeModel


def num_samples(spec: DataSpec) -> int:
    """So many make a picture: fewer of large images, which cost a forward pass for each place."""
    return 64 if spec.dims <= 1024 else 4


def draw(
    name: str,
    model: GenerativeModel,
    num_samples: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    label: int | None = None,
    batch: Batch | None = None,
    classes_of: torch.Tensor | None = None,
) -> torch.Tensor:
    """Samples of the model ``name``: of class ``label``, or of each class in turn, or of the
    classes ``classes_of`` (num_samples,).

    A model that is given images takes them from ``batch``, one after the other.
    """
    classes, entry = model.spec.classes, registry.entry(name)
    if (entry.pictures or not entry.labels) and label is not None:
        raise wrong("--label", "nothing where MODEL takes no labels", label, name)
    if entry.pictures:
        if batch is None:
            command = "examples complete" if entry.exact else "examples.adversarial.translate"
            how = f"python -m {command} {name}"
            raise UsageError(f"MODEL: {name} draws what belongs to a picture ({how})")
        chosen = torch.arange(num_samples) % len(batch)
        labels = None if batch.labels is None else batch.labels[chosen]
        given = model.given(Batch(batch.items[chosen], labels))
        return model.sample(num_samples, generator, temperature, given)
    if not entry.labels:
        return model.sample(num_samples, generator, temperature)
    assert classes is not None  # `registry.refusal` has seen to it
    if label is not None and label >= classes:
        raise wrong("--label", f"a class from 0 to {classes - 1}", label)
    labels = torch.arange(num_samples, device=generator.device) % classes
    if classes_of is not None:
        labels = classes_of
    if label is not None:
        labels = torch.full_like(labels, label)
    return model.sample(num_samples, generator, temperature, labels)
