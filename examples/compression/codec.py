"""Images to the words of an entropy coder and back, through `choose` of `genkern.sampling.sample`.

Both ways take the same steps through the network, on the same integers, and so see the same bits
of every probability; a full forward pass would round them otherwise.
"""

import numpy as np
import torch

from examples.autoregressive.raster import RasterModel
from examples.errors import UsageError
from genkern import sampling

WORD = np.dtype("<u4")


def coder():
    """The range coder of `constriction`: first in, first out, as images are drawn."""
    try:
        import constriction
    except ImportError:
        raise UsageError("compress needs the package constriction, of genkern[examples]") from None
    return constriction.stream


class Writer:
    """A `choose` that takes the given integers, and encodes them."""

    def __init__(self, output: sampling.Output, method: str) -> None:
        self.output, self.method = output, method
        self.stream = coder()
        self.encoder = self.stream.queue.RangeEncoder()
        self.family = self.stream.model.Categorical(perfect=False)
        self.images = torch.empty(0)

    def labels(self, labels: torch.Tensor, classes: int) -> None:
        """Classes, each as likely as the others."""
        model = self.stream.model.Uniform(classes)
        self.encoder.encode(labels.to(torch.int32).numpy(), model)

    def batch(self, model: RasterModel, images: torch.Tensor, labels: torch.Tensor | None) -> None:
        self.images = images.long()
        options = {"output": self.output, "condition": labels, "method": self.method}
        sampling.sample(
            model.features, len(images), shape=model.spec.shape, choose=self.choose, **options
        )

    def choose(self, params: torch.Tensor, step: sampling.Step) -> torch.Tensor:
        colours = slice(step.colours.start, step.colours.stop)
        values = self.images[:, colours, step.rows, step.cols]
        for c in range(len(step.colours)):
            table = rows(self.output.probabilities(params, values[:, :c]))
            self.encoder.encode(values[:, c].flatten().int().numpy(), self.family, table)
        return values

    def words(self) -> bytes:
        return self.encoder.get_compressed().astype(WORD).tobytes()


class Reader:
    """A `choose` that decodes the integers."""

    def __init__(self, output: sampling.Output, method: str, words: bytes) -> None:
        self.output, self.method = output, method
        self.stream = coder()
        given = np.frombuffer(words, WORD).astype(np.uint32)
        self.decoder = self.stream.queue.RangeDecoder(given)
        self.family = self.stream.model.Categorical(perfect=False)

    def labels(self, count: int, classes: int) -> torch.Tensor:
        found = self.decoder.decode(self.stream.model.Uniform(classes), count)
        return torch.from_numpy(found).long()

    def batch(self, model: RasterModel, count: int, labels: torch.Tensor | None) -> torch.Tensor:
        options = {"output": self.output, "condition": labels, "method": self.method}
        return sampling.sample(
            model.features, count, shape=model.spec.shape, choose=self.choose, **options
        )

    def choose(self, params: torch.Tensor, step: sampling.Step) -> torch.Tensor:
        count, places = len(params), len(step.rows)
        values = torch.empty(count, 0, places, dtype=torch.int64)
        for _ in step.colours:
            table = rows(self.output.probabilities(params, values))
            found = torch.from_numpy(self.decoder.decode(self.family, table))
            values = torch.cat([values, found.long().view(count, 1, places)], dim=1)
        return values


def rows(chances: torch.Tensor) -> np.ndarray:
    """(N, levels, P) as the coder takes them: a row for each place of each image."""
    return chances.transpose(1, 2).flatten(0, 1).contiguous().numpy()


def encode(
    model: RasterModel,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    method: str,
    batch: int,
) -> tuple[bytes, str]:
    """Images (N, C, H, W) of levels to words, and the method that was taken for "auto"."""
    writer = Writer(model.distribution, method)
    for part in torch.arange(len(images)).split(batch):
        given = None if labels is None else labels[part]
        if given is not None:
            writer.labels(given, model.spec.classes)
        writer.batch(model, images[part], given)
        writer.method = sampling.last_report().method
    return writer.words(), writer.method


def decode(
    model: RasterModel, words: bytes, *, count: int, method: str, batch: int
) -> torch.Tensor:
    """Words to images (N, C, H, W): those that were encoded, with the same options."""
    reader, found = Reader(model.distribution, method, words), []
    for part in torch.arange(count).split(batch):
        given = reader.labels(len(part), model.spec.classes) if model.condition else None
        found.append(reader.batch(model, len(part), given))
    return torch.cat(found)
