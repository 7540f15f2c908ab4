r"""Two unbiased gradients of E_q[f(z)] in the mean of q = N(mu, sigma^2), and their variances.

.. math:: \nabla_\mu f(\mu + \sigma \epsilon), \qquad
          (f(z) - b) \nabla_\mu \log q(z) = (f(z) - b) \, \epsilon / \sigma

with b = 0, or the mean of f over the other samples. f is the reconstruction loss of a VAE.

Sources: Kingma and Welling 2014, "Auto-encoding variational Bayes", sec. 2.4; Williams 1992,
"Simple statistical gradient-following algorithms"; b: Kool et al. 2019, "Buy 4 REINFORCE samples,
get a baseline for free!".
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from examples.errors import wrong
from examples.latent.uses.report import Report
from examples.latent.uses.runs import coded
from examples.latent.vae import VAE


def estimates(
    f: Callable[[torch.Tensor], torch.Tensor],
    mu: torch.Tensor,
    logvar: torch.Tensor,
    num_samples: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Each estimator's gradient in mu, of one sample each: (num_samples, N, latent).

    Args:
        f: z (num_samples, N, latent) to values (num_samples, N).
    """
    eps = torch.randn(num_samples, *mu.shape, generator=generator, dtype=mu.dtype)
    std = (0.5 * logvar).exp()
    z = (mu + std * eps).requires_grad_()
    values = f(z)
    (pathwise,) = torch.autograd.grad(values.sum(), z)
    values = values.detach()[..., None]
    others = (values.sum(0) - values) / (num_samples - 1)
    return {
        "reparameterised": pathwise,
        "score function": values * eps / std,
        "score function, baseline": (values - others) * eps / std,
    }


def variances(found: dict[str, torch.Tensor]) -> dict[str, float]:
    """Variance of a single sample's gradient, summed over the code, mean over the items."""
    return {name: g.var(0).sum(-1).mean().item() for name, g in found.items()}


def main(runs: Sequence[Path], report: Report) -> None:
    model, dataset = coded(runs[0], labels=False)
    if not isinstance(model, VAE):
        raise wrong("RUN", "a run of a VAE", str(runs[0]), type(model).__name__)
    items = dataset.splits["test"][:64]
    with torch.no_grad():
        mu, logvar = model.features(items).chunk(2, dim=1)
    generator = torch.Generator().manual_seed(0)
    found = estimates(lambda z: model.reconstruction_nll(items, z), mu, logvar, 512, generator)
    measured = variances(found)
    for name, variance in measured.items():
        ratio = variance / measured["reparameterised"]
        report.say(f"{name:25} variance {variance:12.2f}, {ratio:8.1f} times")
