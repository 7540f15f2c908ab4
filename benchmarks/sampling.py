"""Sampling pixel by pixel: full forward passes in eager PyTorch against the engine's steps.

    python -m benchmarks.sampling [--store] [--quick]

The model is the Gated PixelCNN of public code: a 7x7 input layer, ten gated layers of two stacks of
128 channels (n = 3) with 1x1 skips, a head of 32 channels, one Bernoulli logit, 3.36 M parameters;
random weights, 28 x 28. Naive generation, a full forward pass for each pixel, is extrapolated from
five of them. The time of a method includes recording the model and packing its weights.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import genkern
from benchmarks.core import store
from genkern.nn import MaskedConv2d
from genkern.sampling.incremental import Draw, Stepper

SIDE, FORWARDS, REPEATS = 28, 5, 3
SIDES = (8, 12, 16, 24, 32, 48, 64)
METHODS = {"incremental": "raster", "wavefront": "wavefront"}


class EagerLayer(nn.Module):
    """A gated layer as people write it: padding and crops in the place of masks."""

    def __init__(self, into: int, hidden: int, kernel: int, first: bool) -> None:
        super().__init__()
        p = kernel // 2
        self.first = first
        self.v_columns = nn.Conv2d(into, hidden, (1, kernel), padding=(0, p))
        self.v_rows = nn.Conv2d(hidden, 2 * hidden, (p + 1, 1), padding=(p + 1, 0))
        self.v_through = nn.Conv2d(into, 2 * hidden, 1)
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.h = nn.Conv2d(into, 2 * hidden, (1, p + 1), padding=(0, p + first))
        self.out, self.skip = nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, hidden, 1)

    def rows_above(self, v: torch.Tensor) -> torch.Tensor:
        return self.v_rows(self.v_columns(v))[:, :, : v.shape[2]]

    def left(self, h: torch.Tensor) -> torch.Tensor:
        return self.h(h)[..., : h.shape[3]]

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    def forward(
        self, v: torch.Tensor, h: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = self.rows_above(v)
        gated = self.gate(self.link(rows) + self.left(h))
        out = self.out(gated)
        v = self.gate(rows + self.v_through(v))
        return v, out if self.first else out + h, self.skip(gated)


class Layer(EagerLayer):
    """The same layer of genkern's ops."""

    def __init__(self, into: int, hidden: int, kernel: int, first: bool) -> None:
        super().__init__(into, hidden, kernel, first)
        p, side = kernel // 2, "left_before" if first else "left"
        self.v_rows = MaskedConv2d(hidden, 2 * hidden, (p + 1, 1), mask_type="rows_above")
        self.h = MaskedConv2d(into, 2 * hidden, (1, p + 1), mask_type=side)

    def rows_above(self, v: torch.Tensor) -> torch.Tensor:
        return self.v_rows(self.v_columns(v))

    def left(self, h: torch.Tensor) -> torch.Tensor:
        return self.h(h)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        return genkern.gated_activation(x)


class Net(nn.Module):
    """Images (N, 1, H, W) of 0 and 1 to logits (N, 1, H, W)."""

    def __init__(self, layer: type[EagerLayer], hidden: int = 128, layers: int = 10) -> None:
        super().__init__()
        self.first = layer(1, hidden, 7, True)
        self.layers = nn.ModuleList(layer(hidden, hidden, 3, False) for _ in range(layers))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        v, h, _ = self.first(images, images)
        skips = torch.zeros_like(images[:, :1])
        for layer in self.layers:
            v, h, skip = layer(v, h)
            skips = skips + skip
        return self.head(skips)


def nets() -> tuple[Net, Net]:
    """The model as people write it, and of genkern's ops."""
    torch.manual_seed(0)
    eager, fused = Net(EagerLayer).eval(), Net(Layer).eval()
    fused.load_state_dict(eager.state_dict())
    return eager, fused


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median of some calls, after one that does not count."""
    call()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def draw(net: Net, noise: torch.Tensor, order: str) -> tuple[torch.Tensor, Stepper]:
    stepper = Stepper(net, torch.zeros_like(noise), order=order)
    table = torch.tensor([0.0, 1.0])
    images, log_prob = stepper.run(Draw("bernoulli", 2, table), noise)
    assert not log_prob.isnan().any()
    return images, stepper


def check(eager: Net, images: torch.Tensor, noise: torch.Tensor) -> None:
    """The images are those that naive generation draws from the noise, but where a chance and a
    number of the noise are as near as rounding."""
    chance = eager(images.float()).sigmoid()
    wrong = (noise < chance).long() != images
    assert not (wrong & ((noise - chance).abs() > 1e-5)).any(), "other images than naive ones"


def record(context: dict, **rest: Any) -> dict:
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in rest.items() if k != "kind"), flush=True)  # fmt: skip
    return {**context, "kind": "sampling", "dtype": "float32", "device": "cpu", **rest}


@torch.no_grad()
def measure(batches: Sequence[int], context: dict) -> list[dict]:
    eager, fused = nets()
    found = []
    for N in batches:
        noise = torch.rand(N, 1, SIDE, SIDE)
        once = seconds(lambda noise=noise: eager(noise), FORWARDS)
        own = seconds(lambda noise=noise: fused(noise), FORWARDS)
        naive = once * SIDE * SIDE
        for name, order in METHODS.items():
            images, stepper = draw(fused, noise, order)
            check(eager, images, noise)
            took = seconds(lambda n=noise, o=order: draw(fused, n, o), REPEATS)
            found.append(record(
                context, op="sampling", axis="batch", method=name, batch=N, side=SIDE,
                seconds=took, steps=len(stepper.steps), naive_seconds=naive,
                over_naive=naive / took, forward_seconds=own, forwards=took / own,
                cache_bytes=stepper.cache_bytes,
            ))  # fmt: skip
    return found


@torch.no_grad()
def scaling(sides: Sequence[int], context: dict) -> list[dict]:
    """Seconds of a batch of 4 against the side; slope: of log time over log pixels."""
    _, fused = nets()
    found = []
    for name, order in METHODS.items():
        times = {}
        for side in sides:
            noise = torch.rand(4, 1, side, side)
            times[side] = seconds(lambda n=noise, o=order: draw(fused, n, o), 1)
        x = torch.tensor([2.0 * torch.tensor(s).log() for s in times])
        y = torch.tensor(list(times.values())).log()
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        found.append(record(
            context, op="sampling", axis="side", method=name, batch=4,
            points=list(times.items()), slope=slope,
        ))  # fmt: skip
    return found


@torch.no_grad()
def kept_by_training(N: int) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters not counted."""
    eager, _ = nets()
    own, kept = {p.data_ptr() for p in eager.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # alive, so that none comes twice
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        eager(torch.rand(1, 1, SIDE, SIDE)).sum()
    return N * sum(size for size, _ in kept.values())


@torch.no_grad()
def memory(N: int, context: dict) -> dict:
    """Bytes of the caches of a batch, and of what a training step keeps."""
    _, fused = nets()
    caches = {
        name: Stepper(fused, torch.zeros(N, 1, SIDE, SIDE), order=order).cache_bytes
        for name, order in METHODS.items()
    }
    kept = kept_by_training(N)
    return record(
        context, op="sampling", axis="memory", method="all", batch=N, cache_bytes=caches,
        training_bytes=kept, share=max(caches.values()) / kept,
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", allow_abbrev=False)
    parser.add_argument("--store", action="store_true", help="into benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="a look, not a result")
    arguments = parser.parse_args(words)
    context = store.context("cpu", "python -m benchmarks.sampling --store")
    records = measure((1, 16) if arguments.quick else (1, 4, 16), context)
    records += scaling((8, 16) if arguments.quick else SIDES, context)
    records.append(memory(64, context))
    if arguments.store:
        store.write(store.RESULTS / "cpu" / "sampling.jsonl", records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
