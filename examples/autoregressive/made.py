"""MADE. Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation"."""

import math

import torch
from torch import nn

from examples.autoregressive.sequence import SequenceModel, check_size
from examples.model import Batch, DataSpec
from genkern import masked_linear, sampling


class MADE(SequenceModel):
    r"""An autoencoder whose masks let output d see inputs before d in an order, and no others.

    .. math:: p(x) = \frac{1}{K} \sum_k \prod_d p(x_{o_k(d)} \mid x_{o_k(<d)})

    Ensemble of K orders and of the connections of the hidden units (sec. 4.2 and 4.3): all share
    the weights, a training step draws one of them, and the model is their mixture. The first
    is the raster order.

    Args:
        spec: small images of integer levels.
        hidden: units of a hidden layer (the paper: 500 to 8000).
        layers: hidden layers.
        orders: K; 1 is the raster order alone (the paper: up to 32 masks).
    """

    own_steps = True

    def __init__(
        self, spec: DataSpec, *, hidden: int = 256, layers: int = 2, orders: int = 8
    ) -> None:
        super().__init__(spec)
        check_size("made", spec, max(hidden, spec.dims))
        sizes = [spec.dims, *[hidden] * layers]
        self.hidden = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))
        self.output = nn.Linear(hidden, spec.dims * spec.levels)
        self.direct = nn.Linear(spec.dims, spec.dims * spec.levels, bias=False)
        for layer in (self.output, self.direct):  # near to equal probabilities
            nn.init.normal_(layer.weight, std=0.1 * layer.in_features**-0.5)
        members = [self.draw(which) for which in range(orders)]
        drawn = [torch.stack(degrees) for degrees in zip(*members, strict=True)]
        for number, degrees in enumerate(drawn):
            self.register_buffer(f"degrees{number}", degrees)

    def draw(self, which: int) -> list[torch.Tensor]:
        """Degrees of the inputs, from 0, and of each hidden layer, of one member: by its number."""
        generator, dims = torch.Generator().manual_seed(which), self.spec.dims
        degrees = [torch.randperm(dims, generator=generator) if which else torch.arange(dims)]
        for layer in self.hidden:
            low = int(degrees[-1].min())
            size, high = (layer.out_features,), max(low + 1, dims - 1)
            degrees.append(torch.randint(low, high, size, generator=generator))
        return degrees

    def degrees(self, which: int) -> list[torch.Tensor]:
        return [getattr(self, f"degrees{i}")[which] for i in range(1 + len(self.hidden))]

    @property
    def orders(self) -> int:
        return len(self.degrees0)

    def outputs(self, values: torch.Tensor, which: int = 0) -> torch.Tensor:
        degrees, hidden = self.degrees(which), values
        for layer, below, above in zip(self.hidden, degrees[:-1], degrees[1:], strict=True):
            ends = {"in_degrees": below, "out_degrees": above}
            hidden = torch.relu(masked_linear(hidden, layer.weight, layer.bias, **ends))
        last = {"out_degrees": degrees[0].repeat_interleave(self.spec.levels), "strict": True}
        logits = masked_linear(
            hidden, self.output.weight, self.output.bias, in_degrees=degrees[-1], **last
        ) + masked_linear(values, self.direct.weight, in_degrees=degrees[0], **last)
        return logits.view(-1, self.spec.dims, self.spec.levels)

    def member_nll(self, images: torch.Tensor, which: int) -> torch.Tensor:
        """-log p(x) (N,) by one order, nats per image."""
        values = self.spec.scale(images, self.output.weight).permute(0, 2, 3, 1).flatten(1)
        levels = images.permute(0, 2, 3, 1).flatten(1).long()
        logits = self.outputs(values, which).transpose(1, 2)
        return nn.functional.cross_entropy(logits, levels, reduction="none").sum(1)

    def nll(self, images: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        members = torch.stack([-self.member_nll(images, k) for k in range(self.orders)])
        return math.log(self.orders) - members.logsumexp(0)

    def loss(
        self, batch: Batch, generator: torch.Generator, player: str = "model"
    ) -> dict[str, torch.Tensor]:
        if not self.training:
            return {"loss": self.nll(batch.items).mean()}
        which = torch.randint(self.orders, (), generator=generator, device=generator.device)
        return {"loss": self.member_nll(batch.items, int(which)).mean()}

    def draw_images(
        self,
        images: torch.Tensor,
        generator: torch.Generator,
        temperature: float,
        given: torch.Tensor | None,
    ) -> None:
        """Each sample by an order drawn at random; what `sample` completes is in raster order."""
        size, device = (len(images),), images.device
        which = torch.randint(self.orders, size, generator=generator, device=device)
        for k in which.unique().tolist():
            part = (which == k).nonzero()[:, 0]
            found = sampling.sample(
                Member(self, k),
                len(part),
                shape=(1, 1, self.spec.dims),
                output=self.distribution,
                temperature=temperature,
                generator=generator,
            )
            C, H, W = self.spec.shape
            places = found[:, 0, 0, self.degrees0[k]].view(-1, H, W, C)
            images[part] = places.permute(0, 3, 1, 2).to(images)


class Member(nn.Module):
    """One order of a MADE: places (N, 1, 1, D) in that order to their logits (N, levels, 1, D)."""

    def __init__(self, model: MADE, which: int) -> None:
        super().__init__()
        self.model, self.which = model, which

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        degrees = self.model.degrees(self.which)[0]
        logits = self.model.outputs(row.flatten(1)[:, degrees], self.which)
        return logits[:, degrees.argsort()].transpose(1, 2).unsqueeze(2)
