r"""Whether samples follow the likelihood: two estimates of the entropy that must agree.

.. math:: H = E[-\log p(x)] = E\left[\sum_d H\big(p(x_d \mid x_{<d})\big)\right]

Of samples of p, the difference of the two has mean zero for each image, whatever the model is; a
sampler that draws from anything else gives another one. No test data are needed.
"""

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch

from examples import paths, registry
from examples.autoregressive.raster import RasterModel
from examples.errors import UsageError
from examples.harness import checkpoint
from examples.harness.scores import NORMAL
from examples.paths import CHECKPOINT
from genkern import sampling

BATCH = 1000


class Agreement(NamedTuple):
    """Nats per image, and half the 95 % interval of each.

    Args:
        nats: mean of -log p(x), and its half width.
        entropy: mean of the sums of conditional entropies, and its half width.
        difference: of the two, image by image, and its half width.
    """

    nats: tuple[float, float]
    entropy: tuple[float, float]
    difference: tuple[float, float]


@torch.no_grad()
def agreement(model: RasterModel, images: torch.Tensor) -> Agreement:
    """Of samples (N, C, H, W) of a model whose colours are drawn one by one."""
    nats, entropy = [], []
    for part in images.split(BATCH):
        logits = model.logits(part).double()
        logs = logits.log_softmax(1)
        nats.append(-logs.gather(1, part.long()[:, None]).flatten(1).sum(1))
        entropy.append(-(logs.exp() * logs).sum(1).flatten(1).sum(1))
    both = torch.cat(nats), torch.cat(entropy)
    return Agreement(*(interval(values) for values in (*both, both[0] - both[1])))


def interval(values: torch.Tensor) -> tuple[float, float]:
    return values.mean().item(), NORMAL * values.std().item() / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="of the examples: a softmax over levels, without labels")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--num", type=int, default=10_000)
    given = parser.parse_args()
    try:
        registry.exact_entry(given.model)
        run = paths.run_to_read("--run", str(given.run))
        model = checkpoint.load_model(given.model, run / CHECKPOINT)
    except UsageError as error:
        parser.error(str(error))
    started = time.perf_counter()
    images = torch.cat([
        model.sample(BATCH, torch.Generator().manual_seed(seed))
        for seed in range(-(-given.num // BATCH))
    ])[: given.num]  # fmt: skip
    seconds = time.perf_counter() - started
    found, report = agreement(model, images), sampling.last_report()
    print(
        f"{given.num:,} samples in {seconds:.1f} s ({report.method if report else 'own steps'}); "
        f"-log p(x) {found.nats[0]:.3f} +- {found.nats[1]:.3f} nats, conditional entropies "
        f"{found.entropy[0]:.3f} +- {found.entropy[1]:.3f}, difference "
        f"{found.difference[0]:+.4f} +- {found.difference[1]:.4f} (95 %)"
    )


if __name__ == "__main__":
    main()
