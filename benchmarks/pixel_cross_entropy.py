"""The pixel cross-entropy of logits, and of features behind a 1x1 head, against F.cross_entropy.

Equivalent library call: F.cross_entropy is eager's. Work of logits, elementary functions counted
as one FLOP: forward 4, backward 4 for each; of the head: 2 FLOP for each product of a live weight
and a pixel, forward once, backward twice (genkern makes the logits again, which is not counted).
"""

import torch
import torch.nn.functional as F

import genkern
from benchmarks.core.case import Case, Target
from genkern.reference import pixel_cross_entropy as reference


def of_logits(logits, target):
    N, colours, H, W = target.shape
    levels = logits.view(N, colours, -1, H, W).transpose(1, 2)
    return F.cross_entropy(levels, target, reduction="none").sum((1, 2, 3))


def of_features(features, target, weight, bias):
    return of_logits(F.conv2d(features, weight, bias), target)


def of_masked_features(features, target, weight, bias, mask):
    return of_logits(F.conv2d(features, weight * mask, bias), target)


def logits_case(N: int, colours: int, side: int, levels: int, **rest) -> Case:
    logits, pixels = N * colours * levels * side * side, N * colours * side * side

    def inputs():
        return {
            "logits": torch.randn(N, colours * levels, side, side),
            "target": torch.randint(levels, (N, colours, side, side)),
        }

    return Case(
        family="pixel_cross_entropy",
        op="pixel_cross_entropy",
        shape=f"N{N} {colours}x{side}x{side} {levels}-way logits",
        inputs=inputs,
        genkern=lambda x, t: genkern.pixel_cross_entropy(x, t.long(), data_channels=colours),
        eager=lambda x, t: of_logits(x, t.long()),
        reference=lambda x, t: reference.forward(x, t.long()),
        outputs=("nats",),
        flops=(4.0 * logits, 4.0 * logits),
        elements=(logits + pixels, 2.0 * logits + pixels),
        constants=frozenset({"target"}),
        **rest,
    )


def head_case(
    N: int, colours: int, side: int, levels: int, K: int, masked: bool = False, **rest
) -> Case:
    rows, pixels = colours * levels, N * side * side
    mask = torch.zeros(rows, K, 1, 1)
    for c, seen in enumerate(reference.seen_features(K, colours, masked)):
        mask[c * levels : (c + 1) * levels, :seen] = 1
    products = 2.0 * pixels * float(mask.sum())

    def inputs():
        found = {
            "features": torch.randn(N, K, side, side),
            "target": torch.randint(levels, (N, colours, side, side)),
            "weight": torch.randn(rows, K, 1, 1) / K**0.5,
            "bias": torch.randn(rows),
        }
        return found | ({"mask": mask} if masked else {})

    def fused(x, t, w, b, *_):
        options = {"data_channels": colours, "masked": masked}
        return genkern.pixel_cross_entropy(x, t.long(), w, b, **options)

    return Case(
        family="pixel_cross_entropy",
        op="pixel_cross_entropy",
        shape=f"N{N} {colours}x{side}x{side} {levels}-way head C{K}"
        + (" masked" if masked else ""),
        inputs=inputs,
        genkern=fused,
        eager=lambda x, t, w, b, *m: (of_masked_features if m else of_features)(
            x, t.long(), w, b, *m
        ),
        reference=lambda x, t, w, b, *_: reference.forward(x, t.long(), w, b, masked),
        outputs=("nats",),
        flops=(products, 2 * products),
        elements=(pixels * (K + colours) + rows * K, 2.0 * pixels * K + 2 * rows * K),
        terms={"nats": K, "d_features": rows, "d_weight": pixels, "d_bias": pixels},
        constants=frozenset({"target", "mask"} if masked else {"target"}),
        **rest,
    )


def cases() -> list[Case]:
    target = {"forward_backward": Target(1.3)}
    return [
        logits_case(16, 3, 32, 256, targets={"forward_backward": Target(4)}, headline=True),
        logits_case(16, 1, 8, 17, quick=True),
        head_case(16, 3, 32, 256, 64, targets=target, memory=0.25),
        head_case(16, 3, 32, 256, 256, memory=0.25),
        head_case(16, 3, 32, 256, 256, masked=True, targets=target, memory=0.25),
        head_case(16, 1, 28, 2, 64),
        head_case(2, 1, 8, 16, 16, quick=True),
        logits_case(1, 1, 2, 4, overhead=True),
    ]


def scaling() -> dict[str, list[tuple[int, Case]]]:
    return {
        "batch": [(n, head_case(n, 1, 28, 256, 64)) for n in (1, 2, 4, 8, 16)],
        "levels": [(v, logits_case(16, 1, 28, v)) for v in (2, 16, 64, 256)],
    }
