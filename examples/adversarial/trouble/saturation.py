"""The saturating loss gives a generator no gradient when it needs one most.

Against a generator that stands still at its start the discriminator learns to tell its samples from
digits; beside its confidence stands the norm of the generator's gradient, of both losses. With
logits l of samples they are -sigmoid(l) and -sigmoid(-l) times the same derivative: where D is
confident (l << 0), the one is e^l and the other 1. Source: Goodfellow et al. 2014, sec. 3; Arjovsky
and Bottou 2017, "Towards principled methods for training GANs", thm. 2.4.
"""

from typing import NamedTuple

import torch

import genkern
from examples import data
from examples.adversarial.trouble import plots
from examples.harness.config import build_model
from examples.model import Batch

BATCH = 256


class Norms(NamedTuple):
    """After ``step`` steps of the discriminator.

    Args:
        probability: mean of D(G(z)).
        saturating, non_saturating: norm of the generator's gradient.
    """

    step: int
    probability: float
    saturating: float
    non_saturating: float


def measure(steps: list[int], seed: int = 0) -> list[Norms]:
    """At each of ``steps``, in order."""
    digits = data.load("digits")
    items, generator = digits.splits["train"], torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = build_model("gan", digits.spec, {}).eval()
    optimizer = torch.optim.Adam(model.discriminator.parameters(), 1e-3, betas=(0.5, 0.999))
    found = []
    for step in range(steps[-1] + 1):
        if step in steps:
            found.append(norms(model, step, generator))
        optimizer.zero_grad()
        chosen = torch.randint(len(items), (BATCH,), generator=generator)
        model.loss(Batch(items[chosen]), generator, "discriminator")["loss"].backward()
        optimizer.step()
    return found


def norms(model, step: int, generator: torch.Generator) -> Norms:
    logits = model.discriminator(model.generate(BATCH, generator))
    parameters, values = list(model.generator.parameters()), []
    for saturating in (True, False):
        loss = genkern.gan_g_loss(logits, saturating=saturating)
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        values.append(torch.stack([g.norm() for g in gradients]).norm().item())
    return Norms(step, logits.sigmoid().mean().item(), *values)


def main() -> None:
    given = plots.parser(__doc__).parse_args()
    found = measure([0, 5, 10, 20, 40, 80, 160, 320])
    print("D steps | mean D(G(z)) | gradient norm: saturating | non-saturating | ratio")
    for row in found:
        ratio = row.non_saturating / row.saturating
        print(
            f"{row.step:7} | {row.probability:12.2e} | {row.saturating:25.2e} | "
            f"{row.non_saturating:14.2e} | {ratio:.1e}"
        )
    picture, (losses, measured) = plots.figure(2, columns=2)
    logits = torch.linspace(-8, 8, 200)
    losses.plot(logits, logits.sigmoid(), label="saturating")
    losses.plot(logits, (-logits).sigmoid(), label="non-saturating")
    losses.set_xlabel("logit of a sample")
    losses.set_ylabel("|d loss / d logit|")
    losses.legend()
    for name in ("saturating", "non_saturating"):
        values = [getattr(row, name) for row in found]
        measured.semilogy([row.step for row in found], values, ".-", label=name.replace("_", "-"))
    measured.set_xlabel("discriminator steps")
    measured.set_ylabel("norm of the generator's gradient")
    measured.legend()
    plots.save(picture, given.out, "saturation.png")


if __name__ == "__main__":
    main()
