"""Plans that reach everything that the kernels do, for the gates: on meta tensors, whose numbers
and tables alone are there."""

from collections.abc import Iterator

import torch

from genkern.triton_kernels.sampler.kernels import (
    ADD,
    CELL,
    COPY,
    GATED,
    RECIPROCAL,
    STATE,
)
from genkern.triton_kernels.sampler.plan import (
    BERNOULLI,
    CATEGORICAL,
    LOAD,
    LOOKUP,
    MIXTURE,
    STORE,
)  # fmt: skip

# One place in one step: its ends, the place, its wave, the colour that is drawn (all).
_TABLES = [0, 1, 0, 0, -1]
_ENDS, _PLACE, _WAVE, _COLOUR = 0, 2, 3, 4
_ADD, _GATED, _CELL, _STATE = (code.value for code in (ADD, GATED, CELL, STATE))
_FUNCTIONS = range(COPY.value, RECIPROCAL.value + 1)
_FIRST_REGISTER = 4  # those before it are for what is loaded


def _source(constant: bool = False) -> list[int]:
    return [int(constant), 0, 1, 1, 0, _PLACE, 1]


def _product(
    parts: int, length: int, first: int, *, bias: bool, constant: bool, places: int = 1
) -> list[int]:
    """Of two terms, one of which may be of constants."""
    terms = [*_source(), length - 1, 1, *_source(constant), 1, 1]
    return [parts, length, 1, 1 if bias else -1, first, places, 2, *terms]


def _operation(code: int, to: int = 0, *registers: int, constant: bool = False) -> list[int]:
    number = -1 if code in (LOAD, STORE) else 1
    return [code, to, *[*registers, 0, 0, 0, 0][:4], number, *_source(constant)]


def _stage(
    units: int, products: list[list[int]], operations: list[list[int]], *, waves: bool = False
) -> list[int]:
    head = [units, _PLACE, _ENDS, _WAVE if waves else -1, 32]
    numbers = [*head, len(products)]
    for product in products:
        numbers += product
    numbers.append(len(operations))
    for operation in operations:
        numbers += operation
    return numbers


def _gated(units: int, length: int) -> list[int]:
    """A layer: two halves, to which something is added before the gate."""
    own = [_operation(LOAD, 0), _operation(LOAD, 1, constant=True)]
    own += [_operation(_ADD, 6, 4, 0), _operation(_ADD, 7, 5, 1), _operation(_GATED, 8, 6, 7)]
    product = _product(2, length, _FIRST_REGISTER, bias=True, constant=False)
    return _stage(units, [product], [*own, _operation(STORE, 0, 8)])


def _cells(units: int, length: int) -> list[int]:
    """Two products, of which one has a part, wave by wave."""
    products = [
        _product(4, length, _FIRST_REGISTER, bias=False, constant=True),
        _product(1, length, _FIRST_REGISTER + 4, bias=True, constant=True),
    ]
    own = [_operation(_CELL, 9, 5, 6, 7, 8), _operation(_STATE, 10, 4, 9)]
    return _stage(units, products, [*own, _operation(STORE, 0, 10)], waves=True)


def _by_place(units: int, length: int) -> list[int]:
    """A product with weights for each place, and rows of a table that a channel names."""
    product = _product(1, length, _FIRST_REGISTER, bias=True, constant=False, places=2)
    own = [_operation(LOOKUP, _FIRST_REGISTER + 1, units, 0, 5), _operation(_ADD, 6, 4, 5)]
    return _stage(units, [product], [*own, _operation(STORE, 0, 6)])


def _functions(units: int) -> list[int]:
    own = [_operation(LOAD, r) for r in range(4)]
    for i, code in enumerate(_FUNCTIONS):
        own.append(_operation(code, _FIRST_REGISTER + i, 0, 1, 2, 3))
        own.append(_operation(STORE, 0, _FIRST_REGISTER + i))
    return _stage(units, [], own)


def _plan(stages: list[list[int]], parameters: int, colours: int, constant: bool) -> torch.Tensor:
    numbers = [len(stages)]
    for stage in stages:
        numbers += stage
    numbers += [2, *_source(), parameters - 1, *_source(constant), 1]
    numbers += [colours, *_source() * colours]
    return torch.tensor(numbers, dtype=torch.int64, device="cpu")


def _tensors(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Tables, weights, constants and caches."""
    tables = torch.tensor(_TABLES, dtype=torch.int32, device="cpu")
    return (tables, *(torch.empty(64, dtype=dtype, device="meta") for _ in range(3)))


def _draw(
    numbers: torch.Tensor, dtype: torch.dtype, N: int, C: int, kind: int, levels: int, *,
    given: bool, top_k: int = 0, temperature: float = 1.0,
) -> tuple[str, tuple]:  # fmt: skip
    draws = C + (kind == MIXTURE)
    noise = torch.empty(N, draws, 2, 3, dtype=dtype, device="meta")
    integers = torch.empty(N, C, 2, 3, dtype=torch.int64, device="meta")
    log_prob = torch.empty(N, dtype=torch.float64, device="meta")
    table = torch.empty(levels, dtype=dtype, device="meta")
    return "sampler_draw", (
        numbers, *_tensors(dtype), noise, table, integers if given else None, integers, log_prob,
        _ENDS, _PLACE, _COLOUR, kind, levels, top_k, temperature, 1.0, 0.0, True, 0, 1,
    )  # fmt: skip


def every(dtype: torch.dtype) -> Iterator[tuple[str, tuple]]:
    """All stages, with few and with many rows; all outputs."""
    stages = [_gated(40, 200), _cells(24, 100), _by_place(30, 50), _functions(20)]
    for N in (3, 600):
        numbers = _plan(stages, 2, 1, False)
        yield "sampler_steps", (numbers, *_tensors(dtype), N, 0, 1)
    for given in (False, True):
        constant = not given  # neither changes what the other one does
        numbers = _plan([], 3, 3, constant)
        yield _draw(numbers, dtype, 5, 3, BERNOULLI, 2, given=given)
        for levels, top_k in ((4, 0), (256, 0), (4096, 3)):
            numbers = _plan([], 3 * levels, 3, constant)
            yield _draw(numbers, dtype, 5, 3, CATEGORICAL, levels, given=given, top_k=top_k)
        for C, parameters in ((1, 15), (3, 100)):
            numbers = _plan([], parameters, C, constant)
            yield _draw(numbers, dtype, 5, C, MIXTURE, 256, given=given)


def of_size(n: int) -> Iterator[tuple[str, tuple]]:
    """The same ops of other sizes."""
    dtype = torch.float32
    numbers = _plan([_gated(n + 1, n + 2), _by_place(n, n + 3)], n + 1, n, False)
    yield "sampler_steps", (numbers, *_tensors(dtype), n, 0, 1)
    yield _draw(numbers, dtype, n, n + 1, BERNOULLI, 2, given=False, temperature=1 / n)
    numbers = _plan([_gated(n + 1, n + 2)], 100 * n, n, False)
    yield _draw(numbers, dtype, n, n, CATEGORICAL, 65 + n, given=True, temperature=float(n))
