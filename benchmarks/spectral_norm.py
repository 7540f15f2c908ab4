"""Spectral normalisation against what torch's parametrisation does at each call.

"step and scale" is a call in training mode for all weights of a discriminator: a step of the power
iteration, and the division, whose gradient runs through sigma.

Equivalent library call: none; eager's operations are those of the parametrisation.
"""

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case
from genkern.reference import spectral_norm as reference

DCGAN = [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (1, 256, 4, 4)]


def vectors(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: F.normalize(torch.randn(n, generator=generator), dim=0)  # noqa: E731
    rows = [draw(s[0]) for s in shapes]
    return rows, [draw(torch.Size(s).numel() // s[0]) for s in shapes]


def sums(weights):
    """One result of all layers: it needs each of them, and costs little."""
    return torch.stack([w.reshape(-1)[:8].sum() for w in weights])


def spectral_case(shapes, name, *, step=False, **rest) -> Case:
    u, v = vectors(shapes)

    def ours(*weights):
        a, b = ([x.to(weights[0]) for x in side] for side in (u, v))
        if step:
            a, b = genkern.spectral_norm_step([w.detach() for w in weights], a, b)
        return sums(genkern.spectral_norm(weights, a, b))

    def theirs(*weights):
        found = []
        for w, a, b in zip(weights, u, v, strict=True):
            a, b, matrix = a.to(w), b.to(w), w.flatten(1)
            if step:
                with torch.no_grad():
                    a = F.normalize(torch.mv(matrix, b), dim=0, eps=1e-12)
                    b = F.normalize(torch.mv(matrix.T, a), dim=0, eps=1e-12)
                a, b = a.clone(), b.clone()
            found.append(w / torch.vdot(a, torch.mv(matrix, b)))
        return sums(found)

    def exact(*weights):
        found = []
        for w, a, b in zip(weights, u, v, strict=True):
            a, b = a.to(w), b.to(w)
            if step:
                a, b = reference.step(w.detach(), a, b)
            found.append(reference.forward(w, a, b))
        return sums(found)

    size = float(sum(torch.Size(s).numel() for s in shapes))
    names = [f"weight_{i}" for i in range(len(shapes))]
    terms = {f"d_{n}": torch.Size(s).numel() for n, s in zip(names, shapes, strict=True)}
    return Case(
        family="spectral_norm",
        op="spectral_norm",
        shape=f"{name}{' step and scale' if step else ''}",
        inputs=lambda: {n: torch.rand(s) + 0.1 for n, s in zip(names, shapes, strict=True)},
        genkern=ours,
        eager=theirs,
        reference=exact,
        outputs=("sums",),
        flops=(3.0 * size + 4.0 * size * step, 4.0 * size),
        elements=(2.0 * size, 3.0 * size),
        terms=terms | {"sums": max(terms.values())},
        roundings=4,
        **rest,
    )


def cases() -> list[Case]:
    return [
        spectral_case(DCGAN, "four layers", step=True),
        spectral_case(DCGAN, "four layers", quick=True),
        spectral_case([(256, 128, 3, 3)], "256x128x3x3", step=True),
        spectral_case([(8, 4)], "8x4"),
        spectral_case([(2, 2)], "2x2", overhead=True, quick=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {"channels": [(c, spectral_case([(c, c, 3, 3)], f"{c}", step=True))
                         for c in (16, 64, 256)]}  # fmt: skip
