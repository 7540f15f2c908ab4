"""The best discriminator of two distributions over a few values is D* = p / (p + q).

Every value has a logit of its own, and the expectations are exact: the "data" are so many copies of
each value as its probability says. Source: Goodfellow et al. 2014, prop. 1 and thm. 1.
"""

import torch

import genkern
from examples.adversarial.trouble import plots

P = (40, 25, 15, 10, 6, 3, 1, 0)  # per cent
Q = (5, 5, 10, 20, 20, 20, 10, 10)


def optimum(p: torch.Tensor, q: torch.Tensor, steps: int = 100) -> tuple[torch.Tensor, float]:
    """sigmoid of the logits that minimise the loss, float64, and the loss.

    Args:
        p, q: (K,) copies of each value among the real and the generated items.
        steps: of L-BFGS at most.
    """
    logits = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    real, fake = (torch.arange(len(p)).repeat_interleave(copies) for copies in (p, q))
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = genkern.gan_d_loss(logits[real], logits[fake])
        value.backward()
        return value

    optimizer.step(loss)
    return logits.detach().sigmoid(), loss().item()


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """Jensen-Shannon, nats, of counts."""
    p, q = (counts.double() / counts.sum() for counts in (p, q))
    middle = (p + q) / 2
    kl = [torch.xlogy(a, a).sum() - torch.xlogy(a, middle).sum() for a in (p, q)]
    return float(sum(kl) / 2)


def main() -> None:
    given = plots.parser(__doc__).parse_args()
    p, q = torch.tensor(P), torch.tensor(Q)
    found, loss = optimum(p, q)
    expected = p / (p + q)
    error = (found - expected).abs().max().item()
    print(f"D* against p / (p + q): largest difference {error:.1e}")
    bound = 2 * torch.tensor(2.0, dtype=torch.float64).log().item() - 2 * divergence(p, q)
    print(f"loss at the optimum {loss:.6f} nats, 2 log 2 - 2 JS(p, q) = {bound:.6f}")
    picture, (panel,) = plots.figure(1, columns=1)
    places = torch.arange(len(p))
    panel.bar(places - 0.2, p / 100, 0.4, label="p")
    panel.bar(places + 0.2, q / 100, 0.4, label="q")
    panel.plot(places, expected, "_", color="black", markersize=14, label="p / (p + q)")
    panel.plot(places, found, ".", color="red", label="D*")
    panel.legend()
    plots.save(picture, given.out, "optimum.png")


if __name__ == "__main__":
    main()
