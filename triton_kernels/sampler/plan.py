"""A plan as the kernels take it, read from the numbers that csrc/sampler/plan.h describes.

Of a stage, what is compiled (`Facts`) and what is read: one tensor of int64 for all stages,

    units, places, ends, waves | for each product: weight, factors, bias, columns
                               | for each operation: base, slot, image, table, number, and of a
                                 lookup how long a row is, and how many there are

and, elsewhere in it, the columns of a product's factors, or of the parameters that are drawn from:
base, slot, image, table of each, whether it is a constant, and entries of a place in its table.
"""

from typing import NamedTuple

import triton.language as tl

LOAD, STORE, LOOKUP = 0, 1, 27
BERNOULLI, CATEGORICAL, MIXTURE = range(3)  # as csrc/sampler/draw.h


class Source(NamedTuple):
    """Channels from ``start`` on of a node: base + table[place] * slot + n * image + start."""

    is_constant: int
    base: int
    slot: int
    image: int
    start: int
    table: int
    zeros: int

    @property
    def place(self) -> list[int]:
        return [self.base + self.start, self.slot, self.image, self.table]


class ProductFacts(NamedTuple):
    PARTS: int
    BIAS: bool
    CONSTANTS: bool
    BY_PLACE: bool  # each place has weights of its own, and several entries in a table


class OperationFacts(NamedTuple):
    """X to W: which of the values so far; the parts of all products come first."""

    CODE: int
    X: int
    Y: int
    Z: int
    W: int
    CONSTANT: bool


class Facts(NamedTuple):
    """What a stage is compiled for."""

    PRODUCTS: tuple[ProductFacts, ...]
    OPERATIONS: tuple[OperationFacts, ...]
    COUNT: int  # of the products
    STEPS: int  # of the operations
    WAVES: bool
    BY_PLACE: bool
    ACC: tl.dtype
    PRECISION: str


class Stage(NamedTuple):
    facts: Facts
    at: int
    units: int
    ends: int
    places: int
    waves: int


class Columns(NamedTuple):
    """Of parameters: where they stand in the plan, how many, and whether some are constants."""

    at: int
    count: int
    constants: bool


class Plan:
    """Attributes:
    stages: in the order of a step.
    output: of the parameters of a place.
    images: where the image nodes of the colours stand: 4 numbers each.
    numbers: for the device.
    """

    def __init__(self, numbers: list[int], acc: tl.dtype, precision: str) -> None:
        self.left = iter(numbers)
        self.numbers: list[int] = []
        self.acc, self.precision = acc, precision
        self.stages = [self._stage() for _ in range(self._next())]
        self.output = self._columns(
            [(self._source(), self._next(), 1) for _ in range(self._next())]
        )
        self.images = len(self.numbers)
        self.colours = self._next()
        for _ in range(self.colours):
            self.numbers += self._source().place

    def _next(self) -> int:
        return next(self.left)

    def _take(self, count: int) -> list[int]:
        return [next(self.left) for _ in range(count)]

    def _source(self) -> Source:
        return Source(*self._take(7))

    def _columns(self, terms: list[tuple[Source, int, int]]) -> Columns:
        """Of terms: sources, their channels, and how many entries a place has in the table."""
        rows = [
            (source.base + source.start + c, source.slot, source.image,
             source.table + t if source.table >= 0 else -1, source.is_constant, count)
            for source, length, count in terms for t in range(count) for c in range(length)
        ]  # fmt: skip
        at = len(self.numbers)
        for column in zip(*rows, strict=True):
            self.numbers += column
        return Columns(at, len(rows), any(row[4] for row in rows))

    def _stage(self) -> Stage:
        units, places, ends, waves, _ = self._take(5)
        own = [units, places, ends, waves]
        values: dict[int, int] = {}  # registers: the last value of each
        products = []
        for _ in range(self._next()):
            facts, numbers = self._product(values)
            products.append(facts)
            own += numbers
        operations = []
        count = len(values)
        for _ in range(self._next()):
            code, to, *registers = self._take(6)
            number, source = self._next(), self._source()
            row, number = [0, 0], max(number, 0)
            if code == LOOKUP:
                row, number = [registers[0], registers[2]], number + registers[1]
                registers = [0] * 4
            elif code > LOOKUP:
                raise ValueError(f"sampler: no kernel for a GPU has operation {code} of a plan")
            x, y, z, w = (values.get(r, 0) for r in registers)
            constant = bool(source.is_constant) and code in (LOAD, LOOKUP)
            operations.append(OperationFacts(code, x, y, z, w, constant))
            own += [*source.place, number, *row]
            if code != STORE:
                values[to] = count
                count += 1
        facts = Facts(tuple(products), tuple(operations), len(products), len(operations),
                      waves >= 0, any(p.BY_PLACE for p in products), self.acc,
                      self.precision)  # fmt: skip
        at = len(self.numbers)
        self.numbers += own
        return Stage(facts, at, units, ends, places, waves)

    def _product(self, values: dict[int, int]) -> tuple[ProductFacts, list[int]]:
        parts, length, weight, bias, first, places, terms = self._take(7)
        found = [(self._source(), self._next(), self._next()) for _ in range(terms)]
        columns = self._columns(found)
        for part in range(parts):
            values[first + part] = len(values)
        own = [max(weight, 0), length, max(bias, 0), columns.at]
        return ProductFacts(parts, bias >= 0, columns.constants, places > 1), own
