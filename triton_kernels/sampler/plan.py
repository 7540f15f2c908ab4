"""A plan as the kernels take it, read from the numbers that csrc/sampler/plan.h describes.

Of a stage, what is compiled (`Facts`) and what is read: one tensor of int64 for all stages,

    units, places, ends, waves | for each product: weight, factors, bias, columns
                               | for each operation: base, slot, image, table, number

and, elsewhere in it, the columns of a product's factors, or of the parameters that are drawn from:
base, slot, image, table of each, and whether it is a constant.
"""

from typing import NamedTuple

import triton.language as tl

LOAD, STORE = 0, 1
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
        self.output = self._columns([(self._source(), self._next()) for _ in range(self._next())])
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

    def _columns(self, terms: list[tuple[Source, int]]) -> Columns:
        rows = [
            (source.base + source.start + c, source.slot, source.image, source.table,
             source.is_constant)
            for source, length in terms for c in range(length)
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
            x, y, z, w = (values.get(r, 0) for r in registers)
            constant = bool(source.is_constant) and code == LOAD
            operations.append(OperationFacts(code, x, y, z, w, constant))
            own += [*source.place, max(number, 0)]
            if code != STORE:
                values[to] = count
                count += 1
        facts = Facts(tuple(products), tuple(operations), len(products), len(operations),
                      waves >= 0, self.acc, self.precision)  # fmt: skip
        at = len(self.numbers)
        self.numbers += own
        return Stage(facts, at, units, ends, places, waves)

    def _product(self, values: dict[int, int]) -> tuple[ProductFacts, list[int]]:
        parts, length, weight, bias, first, terms = self._take(6)
        columns = self._columns([(self._source(), self._next()) for _ in range(terms)])
        for part in range(parts):
            values[first + part] = len(values)
        # Both offsets are from where the weights of the product begin; it may have none.
        own = [max(weight, 0), length, bias - max(weight, 0), columns.at]
        return ProductFacts(parts, bias >= 0, columns.constants), own
