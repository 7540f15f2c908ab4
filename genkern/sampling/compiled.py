"""A plan as numbers, for the engine in C++ (csrc/sampler/plan.h reads them)."""

from typing import Any

import numpy as np
import torch

from genkern.sampling.execute import Execution
from genkern.sampling.functions import FUNCTIONS
from genkern.sampling.fuse import Registers, Stage, is_identity, stages_of
from genkern.sampling.graph import (
    Constant,
    Lookup,
    Node,
    Piece,
    PlaceProduct,
    Pointwise,
    Product,
)
from genkern.sampling.plan import Plan
from genkern.sampling.stores import Tables, Values

KINDS = ("bernoulli", "categorical", "logistic_mixture", "gaussian")
_LOAD, _STORE = 0, 1
_CODES = {name: 2 + i for i, name in enumerate(FUNCTIONS)}
_LOOKUP = 2 + len(FUNCTIONS)
_NOWHERE = [0, 0, 0, 0, 0, -1, -1]
_library = torch.library.Library("genkern", "FRAGMENT")
_library.define("sampler_pack(Tensor numbers, Tensor[] weights, int[] columns) -> Tensor")
_library.define(
    "sampler_steps(Tensor numbers, Tensor tables, Tensor packed, Tensor constants, "
    "Tensor(a!) cache, int images, int first, int last) -> ()"
)
_library.define(
    "sampler_draw(Tensor numbers, Tensor tables, Tensor packed, Tensor constants, "
    "Tensor(a!) cache, Tensor noise, Tensor table, Tensor? given, Tensor(b!) integers, "
    "Tensor(c!) log_prob, int ends, int places, int colours, int kind, int levels, int top_k, "
    "float temperature, float scale, float offset, bool wants_log_prob, int first, int last) -> ()"
)


def is_available() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("genkern::sampler_steps", "CPU")


class Engine(Execution):
    """`Execution` in C++: the same caches, of what others read alone."""

    def __init__(self, plan: Plan, images: torch.Tensor) -> None:
        self.plan, self.N, self.next = plan, images.shape[0], 0
        self.images = images
        self.stages, self.stored = stages_of(plan)
        self.tables, self.weights_ = Tables(), Values(images)
        self.constants = Values(images)
        self.places: dict[tuple[Constant, bool], int] = {}
        self._allocate()
        self._read(images)
        self.numbers = torch.tensor(self._numbers(), dtype=torch.int64, device="cpu")
        weights = self.weights_
        self.packed = torch.ops.genkern.sampler_pack(self.numbers, weights.tensors, weights.columns)
        self.draw_at = self._steps_drawn()
        tables = self.tables.tensor().to(images.device)
        self.arguments = (
            self.numbers, tables, self.packed, self.constants.tensor(), self.cache
        )  # fmt: skip
        self.weights_ = self.constants = Values(images)

    def _read(self, images: torch.Tensor) -> None:
        for c, colour in enumerate(self.plan.colours):
            self.caches[colour.node][:-1, :, colour.start] = images[:, c].flatten(1).T

    def restart(self, images: torch.Tensor, constants: dict[Constant, torch.Tensor]) -> None:
        """From the first step, of other images and with other values of constants."""
        self.next, memory = 0, self.arguments[3]
        self._read(images)
        for (node, everywhere), at in self.places.items():
            if node in constants:
                found = _laid_out(node, constants[node], everywhere).reshape(-1)
                memory[at : at + len(found)] = found

    def _allocate(self) -> None:
        """The caches: views of one tensor."""
        H, W = self.plan.grid
        slots: dict[Node, int] = {colour.node: H * W for colour in self.plan.colours}
        for node in self.plan.batches:
            if node in self.stored:
                slots[node] = self.plan.slots(node).number
        self.bases: dict[Node, int] = {}
        size = 0
        for node, count in slots.items():
            self.bases[node] = size
            size += ((count + 1) * self.N * node.channels + 15) // 16 * 16
        self.cache = self.images.new_zeros(size)
        self.caches = {
            node: self.cache[base : base + (slots[node] + 1) * self.N * node.channels].view(
                slots[node] + 1, self.N, node.channels
            )
            for node, base in self.bases.items()
        }

    # ---- numbers

    def _numbers(self) -> list[int]:
        found = [len(self.stages)]
        for stage in self.stages:
            found += self._stage(stage)
        found.append(len(self.plan.output.pieces))
        for piece in self.plan.output.pieces:
            found += [*self._source(piece), piece.length]
        found.append(len(self.plan.colours))
        for colour in self.plan.colours:
            found += self._source(colour)
        return found

    def _source(self, piece: Piece) -> list[int]:
        node = piece.node
        if isinstance(node, Constant):
            return self._constant_source(node, piece)
        table = self.tables.add(self.plan.slots_read(node, piece.table))
        zeros = self.caches[node].shape[0] - 1
        C = node.channels
        return [0, self.bases[node], self.N * C, C, piece.start, table, zeros]

    def _constant_source(self, node: Constant, piece: Piece) -> list[int]:
        n, C, h, w = node.value.shape
        everywhere = h == w == 1 and is_identity(piece)
        key = node, everywhere
        if key not in self.places:
            self.places[key] = self.constants.add(_laid_out(node, node.value, everywhere))
        base, image = self.places[key], C if n > 1 else 0
        if everywhere:
            return [1, base, 0, image, piece.start, -1, -1]
        flat, zeros = piece.table.ravel(), node.grid[0] * node.grid[1]
        table = self.tables.add(np.where(flat < 0, zeros, flat))
        return [1, base, n * C, image, piece.start, table, zeros]

    def _stage(self, stage: Stage) -> list[int]:
        batches = self.plan.batches[stage.nodes[0]]
        waves = -1 if batches.waves is None else self.tables.add(batches.waves)
        head = [stage.units, self.tables.add(batches.places), self.tables.add(batches.ends), waves]
        writer = Registers(stage)
        products, operations = [], []
        for node in stage.nodes:
            first = writer.take(node)
            if isinstance(node, Product):
                products.append(self._product(node, stage.units, first))
            elif isinstance(node, PlaceProduct):
                products.append(self._place_product(node, stage.units, first))
            elif isinstance(node, Lookup):
                operations += self._lookup(node, stage.units, first)
            elif isinstance(node, Pointwise):
                operations += self._pointwise(node, stage, writer)
            if node in self.stored:
                operations += self._stores(node, stage, first)
        found = [*head, writer.count, len(products)]
        for product in products:
            found += product
        found.append(len(operations))
        for operation in operations:
            found += operation
        return found

    def _product(self, node: Product, units: int, first: int) -> list[int]:
        length = sum(term.piece.length for term in node.terms)
        weight = bias = -1
        if node.terms:
            weight = self.weights_.add(*(term.weight for term in node.terms))
        if node.bias is not None:
            bias = self.weights_.add(node.bias.flatten())
        found = [node.channels // units, length, weight, bias, first, 1, len(node.terms)]
        for term in node.terms:
            found += [*self._source(term.piece), term.piece.length, 1]
        return found

    def _place_product(self, node: PlaceProduct, units: int, first: int) -> list[int]:
        places, length = node.grid[0], node.weight.shape[2]
        weight = self.weights_.add(node.weight.flatten(0, 1)) if length else -1
        bias = -1 if node.bias is None else self.weights_.add(node.bias.flatten())
        head = [node.channels // units, length, weight, bias, first, places]
        found = [*head, len(node.reaches)]
        for reach in node.reaches:
            piece = Piece(reach.node, reach.start, reach.length, reach.table)
            found += [*self._source(piece), reach.length, reach.table.shape[1]]
        return found

    def _pointwise(self, node: Pointwise, stage: Stage, writer: Registers) -> list[list[int]]:
        found = []
        number = (
            self.constants.add(torch.tensor([node.number], dtype=torch.float64))
            if node.number
            else -1
        )
        for part in range(node.channels // stage.units):
            registers = []
            for piece in node.pieces:
                own = piece.part(part * stage.units, (part + 1) * stage.units)
                if piece.node in writer.first and is_identity(piece):
                    registers.append(writer.first[piece.node] + own.start // stage.units)
                else:
                    registers.append(writer.temporary(len(registers)))
                    found.append([_LOAD, registers[-1], 0, 0, 0, 0, -1, *self._source(own)])
            to = writer.first[node] + part
            operands = [*registers, 0, 0, 0, 0][:4]
            found.append([_CODES[node.function], to, *operands, number, *_NOWHERE])
        return found

    def _lookup(self, node: Lookup, units: int, first: int) -> list[list[int]]:
        source, at = self._source(node.pieces[0]), self.constants.add(node.rows)
        count, C = node.rows.shape
        return [
            [_LOOKUP, first + part, C, part * units, count, 0, at, *source]
            for part in range(C // units)
        ]

    def _stores(self, node: Node, stage: Stage, first: int) -> list[list[int]]:
        found = []
        for part in range(node.channels // stage.units):
            whole = np.arange(node.grid[0] * node.grid[1], dtype=np.int32).reshape(node.grid)
            source = self._source(Piece(node, part * stage.units, stage.units, whole))
            found.append([_STORE, 0, first + part, 0, 0, 0, -1, *source])
        return found

    def _steps_drawn(self) -> tuple[int, int, int]:
        """Where the ends, the places and the colours of the steps stand among the tables."""
        given, W = self.plan.order.given, self.plan.grid[1]
        steps = self.plan.steps[self.plan.skipped :]
        ends = np.cumsum([0] * (given + 1) + [len(places) for places, _ in steps])
        places = [r * W + c for places, _ in steps for r, c in places]
        colours = [-1] * given + [-1 if colour is None else colour for _, colour in steps]
        return (
            self.tables.add(ends), self.tables.add(np.array([*places, 0])),
            self.tables.add(np.array([*colours, 0])),
        )  # fmt: skip

    # ---- steps

    def step(self) -> None:
        self.steps(self.next + 1)

    def steps(self, last: int) -> None:
        torch.ops.genkern.sampler_steps(*self.arguments, self.N, self.next, last)
        self.next = last

    def draw(
        self, draw: Any, noise: torch.Tensor, given: torch.Tensor | None, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps up to ``last`` with their draws: integers and log p."""
        dtype, shape = self.images.dtype, self.images.shape
        integers = torch.full(shape, -1, dtype=torch.int64, device=self.images.device)
        log_prob = self.images.new_zeros(shape[0], dtype=torch.float64)
        table = draw.table.detach().to(self.images).contiguous()
        torch.ops.genkern.sampler_draw(
            *self.arguments, noise.to(dtype).contiguous(), table,
            None if given is None else given.long().contiguous(), integers, log_prob,
            *self.draw_at, KINDS.index(draw.kind), draw.levels, draw.top_k, draw.temperature,
            draw.scale, draw.offset, draw.wants_log_prob, self.next, last,
        )  # fmt: skip
        self.next = last
        return integers, log_prob


def _laid_out(node: Constant, value: torch.Tensor, everywhere: bool) -> torch.Tensor:
    """Of a constant (n, C, h, w): (places, n, C), then zeros, which places of padding read;
    ``everywhere``: of the one place that stands for all."""
    n, C = value.shape[:2]
    if not everywhere:
        value = value.expand(-1, -1, *node.grid)
    places = value.detach().permute(2, 3, 0, 1).reshape(-1, n, C)
    return torch.cat([places, torch.zeros_like(places[:1])])
