"""Steps of a plan as launches, and on a GPU as one CUDA graph for each pattern of a step.

A pattern is how many programs each stage has: rows of an image that are computed at once come with
the first pixel of a row, and so on. The launches of a pattern differ in nothing from step to step,
because the step stands on the device, where the last kernel of a step advances it.

The first step of a pattern is launched as it is, which compiles and loads the kernels; the second
one is captured, and from then on the graph is replayed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton

from genkern.triton_kernels.core import launch
from genkern.triton_kernels.core.elementary import accumulator
from genkern.triton_kernels.sampler import draw, kernels, mixture
from genkern.triton_kernels.sampler.plan import BERNOULLI, MIXTURE, Plan, Stage

OP = "sampler"
WARPS = 4
DRAWS = (
    draw.sampler_bernoulli_kernel, draw.sampler_categorical_kernel, mixture.sampler_mixture_kernel,
)  # fmt: skip
Pattern = tuple[tuple[int, int], ...]


class Tile(NamedTuple):
    """Extent of a tile of a product: rows, units, steps of the sum."""

    rows: int
    units: int
    step: int


MANY = 512  # rows that are computed at once


def tile_of(rows: int, dtype: torch.dtype) -> Tile:
    """Few rows are as many programs as there are: each reads its weights in a few large steps."""
    if dtype == torch.float64:
        return Tile(16, 16, 32)
    return Tile(64, 32, 32) if rows >= MANY else Tile(16, 16, 64)


class Drawing(NamedTuple):
    """Options of `sampler_draw`, beyond the tensors."""

    ends: int
    places: int
    colours: int
    kind: int
    levels: int
    top_k: int
    temperature: float


class Memory(NamedTuple):
    """Tensors of a drawing that stay where they are: the graphs read and write them."""

    noise: torch.Tensor
    table: torch.Tensor
    given: torch.Tensor | None
    integers: torch.Tensor
    log_prob: torch.Tensor


class Runner:
    """The launches of one plan on one batch."""

    def __init__(
        self, numbers: torch.Tensor, tables: torch.Tensor, weights: torch.Tensor,
        constants: torch.Tensor, cache: torch.Tensor, images: int,
    ) -> None:  # fmt: skip
        precision = launch.float32_precision() if cache.dtype == torch.float32 else "ieee"
        self.plan = Plan(numbers.tolist(), accumulator(cache.dtype), precision)
        self.tables: list[int] = tables.tolist()
        self.cache, self.images = cache, images
        on_device = torch.tensor(self.plan.numbers, dtype=torch.int64, device="cpu")
        self.step = torch.zeros(1, dtype=torch.int64, device=cache.device)
        self.counter = torch.zeros(1, dtype=torch.int32, device=cache.device)
        self.pointers = (self.step, on_device.to(cache.device), tables, weights, constants, cache)
        self.replays: dict[tuple, Replays] = {}

    def pattern(self, step: int) -> Pattern:
        """Of each stage, how many places a launch is for, and how many launches there are."""
        return tuple(self._places(stage, step) for stage in self.plan.stages)

    def _places(self, stage: Stage, step: int) -> tuple[int, int]:
        begin, end = self.tables[stage.ends + step : stage.ends + step + 2]
        if begin == end:
            return 0, 0
        # To the next power of two: programs too many end at once, and patterns stay few.
        places = triton.next_power_of_2(end - begin)
        return places, 1 + (self.tables[stage.waves + end - 1] if stage.facts.WAVES else 0)

    def _grid(self, stage: Stage, places: int) -> tuple[Tile, int]:
        """The tile of a launch, and how many programs it has."""
        if stage.facts.BY_PLACE:
            tile = tile_of(self.images, self.cache.dtype)
            blocks = places * triton.cdiv(self.images, tile.rows)
        else:
            tile = tile_of(places * self.images, self.cache.dtype)
            blocks = triton.cdiv(places * self.images, tile.rows)
        return tile, blocks * triton.cdiv(stage.units, tile.units)

    def launch_stages(self, pattern: Pattern) -> None:
        for stage, (places, waves) in zip(self.plan.stages, pattern, strict=True):
            tile, programs = self._grid(stage, places)
            for wave in range(waves):
                kernels.sampler_stage_kernel[launch.programs(OP, programs)](
                    *self.pointers, stage.at, self.images, wave,
                    F=stage.facts, T=tile, num_warps=WARPS,
                )  # fmt: skip

    def launch_draw(self, drawing: Drawing, memory: Memory) -> None:
        output, plan = self.plan.output, self.plan
        step, numbers, tables, _, constants, cache = self.pointers
        mixture = drawing.kind == MIXTURE
        each = 1 if drawing.kind == BERNOULLI else drawing.levels
        if mixture:
            each = output.count // (10 if plan.colours == 3 else 3)
        extent = triton.next_power_of_2(each)
        rows = max(1, min(16, 1024 // extent))
        programs = triton.cdiv(self.images, rows)
        pixels = memory.integers.shape[2] * memory.integers.shape[3]
        DRAWS[drawing.kind][launch.programs(OP, programs)](
            step, self.counter, numbers, tables, constants, cache, *memory,
            drawing.ends, drawing.places, drawing.colours, output.at, output.count, plan.images,
            self.images, plan.colours, pixels, drawing.levels, drawing.top_k, drawing.temperature,
            programs, R=rows, L=extent, COLOURS=plan.colours if mixture else 0,
            TOP_K=0 < drawing.top_k < drawing.levels, CONSTANTS=output.constants, num_warps=WARPS,
        )  # fmt: skip

    def run(
        self, first: int, last: int, replays: "Replays", call: Callable[[Pattern], None]
    ) -> None:
        self.step.fill_(first)
        with launch.on(self.cache):
            for step in range(first, last):
                replays.run(self.pattern(step), call, has_graphs(self.cache))

    def steps(self, first: int, last: int) -> None:
        """Without drawing."""

        def call(pattern: Pattern) -> None:
            self.launch_stages(pattern)
            self.step.add_(1)

        self.run(first, last, self.replays.setdefault((), Replays()), call)

    def draw(
        self, first: int, last: int, drawing: Drawing, noise: torch.Tensor, table: torch.Tensor,
        given: torch.Tensor | None, integers: torch.Tensor, log_prob: torch.Tensor,
    ) -> None:  # fmt: skip
        """Into ``integers`` and ``log_prob``, through memory that stays between calls."""
        tensors = (noise, table, given, integers, log_prob)
        key = (*drawing, given is None)
        if key not in self.replays:
            own = (None if t is None else torch.empty_like(t) for t in tensors)
            self.replays[key] = Replays(Memory(*own))
        memory = self.replays[key].memory
        assert memory is not None
        for to, tensor in zip(memory, tensors, strict=True):
            if to is not None:
                to.copy_(tensor)

        def call(pattern: Pattern) -> None:
            self.launch_stages(pattern)
            self.launch_draw(drawing, memory)

        self.run(first, last, self.replays[key], call)
        integers.copy_(memory.integers)
        log_prob.copy_(memory.log_prob)


class Replays:
    """The graphs of the patterns of a step, and the memory that they read and write."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory
        self.graphs: dict[Pattern, torch.cuda.CUDAGraph | None] = {}

    def run(
        self, pattern: Pattern, call: Callable[[Pattern], None], has_graphs: bool = True
    ) -> None:
        if not has_graphs or pattern not in self.graphs:
            self.graphs[pattern] = None
            call(pattern)
            return
        graph = self.graphs[pattern]
        if graph is None:
            graph = self.graphs[pattern] = capture(lambda: call(pattern))
        graph.replay()


def has_graphs(tensor: torch.Tensor) -> bool:
    """What is interpreted, or compiled ahead of time, is launched each time."""
    return tensor.is_cuda


def capture(call: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph
