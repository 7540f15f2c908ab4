"""Samples of any model, with labels where it takes them."""

import torch

from examples import registry
from examples.errors import wrong
from examples.model import GenerativeModel


def draw(
    name: str,
    model: GenerativeModel,
    num_samples: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    label: int | None = None,
) -> torch.Tensor:
    """Samples of the model ``name``: of class ``label``, or of each class in turn."""
    classes = model.spec.classes
    if not registry.entry(name).labels:
        if label is not None:
            raise wrong("--label", "nothing where MODEL takes no labels", label, name)
        return model.sample(num_samples, generator, temperature)
    assert classes is not None  # `registry.refusal` has seen to it
    if label is not None and label >= classes:
        raise wrong("--label", f"a class from 0 to {classes - 1}", label)
    labels = torch.arange(num_samples, device=generator.device) % classes
    if label is not None:
        labels = torch.full_like(labels, label)
    return model.sample(num_samples, generator, temperature, labels=labels)
