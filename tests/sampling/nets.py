"""Small networks in which every path matters, one for each kind of output."""

from typing import NamedTuple

import torch
from torch import nn

from genkern import sampling
from genkern.nn import MaskedConv2d


class Net(nn.Module):
    """Two masked convolutions; a vector or a map of the condition is added between them."""

    def __init__(self, colours: int, outputs: int, ordered: bool, condition: int = 0) -> None:
        super().__init__()
        order = {"data_channels": colours if ordered else 1}
        self.first = MaskedConv2d(colours, 12, 3, mask_type="A", **order)
        self.second = MaskedConv2d(12, 12, 3, **order)
        self.dropout = nn.Dropout(0.5)
        self.head = MaskedConv2d(12, outputs, 1, **order)
        self.condition = nn.Conv2d(condition, 12, 1) if condition else None

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        x = self.first(x)
        if self.condition is not None:
            x = x + self.condition(condition if condition.ndim == 4 else condition[..., None, None])
        return self.head(self.dropout(self.second(x.relu()).relu()))


class Case(NamedTuple):
    model: nn.Module
    shape: tuple[int, int, int]
    output: sampling.Output
    condition: torch.Tensor | None = None


OUTPUTS = {
    "bernoulli": ((1, 5, 3), sampling.Bernoulli(inputs="unit")),
    "bernoulli-rgb": ((3, 2, 4), sampling.Bernoulli()),
    "categorical": ((1, 3, 7), sampling.Categorical(6)),
    "categorical-rgb": ((3, 3, 4), sampling.Categorical(4, inputs="index")),
    "mixture": ((1, 3, 5), sampling.LogisticMixture(16, 2)),
    "mixture-rgb": ((3, 3, 3), sampling.LogisticMixture(256, 2)),
    "gaussian": ((2, 3, 4), sampling.Gaussian(9, inputs=(0.5, -2.0))),
}
CONDITIONS = ("", "vector", "map")
N = 5


def make(kind: str, condition: str = "", dtype: torch.dtype = torch.float64) -> Case:
    """A network with large weights, in eval mode; a condition for `N` images."""
    torch.manual_seed(1)
    shape, output = OUTPUTS[kind]
    C, H, W = shape
    channels = 3 if condition else 0
    model = Net(C, output.channels(C), output.by_colour, channels).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    sizes = {"": None, "vector": (N, 3), "map": (N, 3, H, W)}[condition]
    given = None if sizes is None else torch.randn(sizes, dtype=dtype)
    return Case(model, shape, output, given)


def noise(case: Case, seed: int = 0, count: int = N) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sampling.draw_noise(count, shape=case.shape, output=case.output, generator=generator)


def drawn(case: Case, count: int = N, **options) -> torch.Tensor:
    """Images, of the noise of seed 0 unless it is given."""
    if not {"noise", "generator", "choose"} & set(options):
        options["noise"] = noise(case, count=count)
    given = {"shape": case.shape, "output": case.output, "condition": case.condition}
    return sampling.sample(case.model, count, **{**given, **options})
