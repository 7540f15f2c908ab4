"""A diagonal Gaussian and an inverse autoregressive flow as the posterior of one decoder.

The decoder is that of a trained VAE and stays as it is. Both posteriors start as q(z|x) of the VAE,
the flow as the identity behind it, and are trained for the same steps on the same batches. Any q
gives a bound of the same log p(x), so that they may be trained on the test images themselves: what
is compared is which distributions they can be, not what an encoder makes of new images. Compared is
the ELBO of every test image, the same images for both.

Sources: Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
sec. 3; Cremer et al. 2018, "Inference suboptimality in variational autoencoders", sec. 3.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.errors import wrong
from examples.harness.batches import Batches
from examples.harness.scores import interval
from examples.latent.base import LatentModel
from examples.latent.iaf_vae import IAFVAE, OPEN
from examples.latent.uses.report import Report
from examples.latent.uses.runs import coded
from examples.latent.vae import VAE
from genkern.metrics import Estimate, log_likelihood

SEEDS, STEPS, LR = 3, 1500, 1e-3
BATCH, DECAY = 64, 0.99
FLOW = {"flows": 4, "width": 64, "context": 32}


@torch.no_grad()
def with_flow(model: VAE, seed: int) -> IAFVAE:
    """The same q(z|x), by steps of a flow that do nothing yet, and the same decoder.

    A step whose m and s are 0 makes z shorter by the gate; the Gaussian is wider to make up for it.
    """
    torch.manual_seed(seed)
    latent, hidden = model.num_latent, model.encoder[0].out_features
    flow = IAFVAE(model.spec, hidden=hidden, latent=latent, **FLOW)
    for number, layer in enumerate(model.encoder[:-1]):
        flow.encoder[number] = copy.deepcopy(layer)
    flow.decoder = copy.deepcopy(model.decoder)
    own, given = flow.encoder[-1], model.encoder[-1]
    log_gate = -len(flow.steps) * math.log1p(math.exp(-OPEN))
    for to, of in ((own.weight, given.weight), (own.bias, given.bias)):
        to[:latent] = of[:latent] * math.exp(-log_gate)
        to[latent : 2 * latent] = of[latent:]
    own.bias[latent : 2 * latent] -= 2 * log_gate
    for step in flow.steps:
        for parameter in step.output.parameters():
            parameter.zero_()
    return flow


def elbo(model: LatentModel, items: torch.Tensor, num_samples: int, seed: int) -> Estimate:
    return log_likelihood(
        model,
        items,
        num_samples=num_samples,
        method="elbo",
        generator=torch.Generator().manual_seed(seed),
    )


def trained(model: LatentModel, items: torch.Tensor, seed: int) -> LatentModel:
    """A copy of ``model`` whose posterior was trained on ``items``: averaged weights."""
    model = copy.deepcopy(model).requires_grad_(True).train()
    model.decoder.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], LR)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    batches = Batches(items, None, BATCH, seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(batches.next(), generator)["loss"].backward()
        optimizer.step()
        averaged.update_parameters(model)
    return averaged.module.eval()


def compare(model: VAE, items: torch.Tensor, seed: int) -> tuple[Estimate, Estimate]:
    """ELBO of the items, of the diagonal posterior and of the flow."""
    starts: list[LatentModel] = [model, with_flow(model, seed)]
    diagonal, flow = (elbo(trained(start, items, seed), items, 64, seed) for start in starts)
    return diagonal, flow


def main(runs: Sequence[Path], report: Report) -> None:
    model, dataset = coded(runs[0], labels=False)
    if not isinstance(model, VAE):
        raise wrong("RUN", "a run of a VAE", str(runs[0]), type(model).__name__)
    items, gains = dataset.splits["test"], []
    report.say(f"q(z|x) of the VAE: ELBO {elbo(model, items, 64, seed=0).value:.2f} nats")
    for seed in range(SEEDS):
        diagonal, flow = compare(model, items, seed)
        gain = flow - diagonal
        gains.append(gain.value)
        report.say(
            f"seed {seed}, {STEPS} steps: diagonal {diagonal.value:.2f}, flow {flow.value:.2f}; "
            f"image by image {gain.value:+.3f} +- {gain.half_width_over_items:.3f}, better for "
            f"{(gain.items > 0).double().mean():.0%}"
        )
    mean, half = interval(gains)
    report.say(f"the flow is better by {mean:.3f} +- {half:.3f} nats, over {SEEDS} seeds")
