"""The methods that call the network as it is: place by place, and by fixed point."""

import math
from collections.abc import Iterator

import torch

from genkern.sampling.request import Request, Step


def raster_steps(request: Request) -> Iterator[Step]:
    """One place each: colour after colour, or all colours of a pixel where they come together."""
    C, H, W = request.shape
    colours = [range(c, c + 1) for c in range(C)] if request.output.by_colour else [range(C)]
    device, number = request.values.device, 0
    for row in range(H):
        for col in range(W):
            rows, cols = (torch.tensor([at], device=device) for at in (row, col))
            for which in colours:
                yield Step(number, rows, cols, which)
                number += 1


def naive(request: Request) -> tuple[torch.Tensor, int]:
    """Integers (N, C, H, W), and the calls of the network: one for each place that is not given.

    The definition of what all methods draw.
    """
    images, steps, calls = request.values.clone(), list(raster_steps(request)), 0
    for step in steps:
        if not request.is_given(step):
            found = request.parameters(images)[:, :, step.rows, step.cols]
            params = request.output.at(found, step.colours.start)
            images[request.of(step)] = request.decide(params, step)
            calls += 1
        if request.progress is not None:
            request.progress(step.number + 1, len(steps))
    return images, calls


def jacobi(request: Request) -> tuple[torch.Tensor, int]:
    """Integers (N, C, H, W), and the calls of the network, until no integer changes.

    All places are drawn at once, from what the network says of the last image, again and again.
    Once the places before one are right it is right as well, for good: what comes up to the first
    change is not drawn again, so that an image takes at most one call a place, and one to see that
    nothing changes. Images that are done leave the batch.

    Source: Song et al. 2021, "Accelerating feedforward computation via parallel nonlinear equation
    solving", algorithm 1.
    """
    images, places, calls = request.values.clone(), math.prod(request.shape), 0
    order = torch.arange(places, device=images.device)
    active = torch.arange(len(images), device=images.device)
    right = torch.zeros_like(active)  # how many of the first places of an image are right
    while len(active):
        old = images[active]
        found = _draw_all(request, request.parameters(old, active), active)
        if request.given is not None:
            found = torch.where(request.given[active], old, found)
        before, after = (t.permute(0, 2, 3, 1).flatten(1) for t in (old, found))
        after = torch.where(order < right[:, None], before, after)
        changed = after != before
        C, H, W = request.shape
        images[active] = after.view(-1, H, W, C).permute(0, 3, 1, 2)
        left = changed.any(1)
        active, right = active[left], changed[left].to(torch.uint8).argmax(1) + 1
        calls += 1
        if request.progress is not None:
            done = len(images) - len(active)
            request.progress(done * places + int(right.sum()), len(images) * places)
    return images, calls


def _draw_all(request: Request, params: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Every place of ``images`` of the batch, from parameters (n, K, H, W)."""
    assert request.noise is not None
    output, flat, noise = request.output, params.flatten(2), request.noise[images].flatten(2)
    options = request.temperature, request.top_k
    if not output.by_colour:
        found = output.draw(flat, noise, *options)
    else:
        C = request.shape[0]
        colours = [(output.at(flat, c), noise[:, c : c + 1]) for c in range(C)]
        found = torch.cat([output.draw(*pair, *options) for pair in colours], dim=1)
    return found.view(len(images), *request.shape)
