"""Launchers of the sampler: steps of a plan, with their draws, on the device of its caches.

The ops are those of csrc/sampler, of the same plan and in the same memory.
"""

from collections.abc import Iterator

import torch
from torch.utils.weak import WeakIdKeyDictionary

from genkern import spec
from genkern.triton_kernels.core import launch
from genkern.triton_kernels.sampler import calls
from genkern.triton_kernels.sampler.draw import (
    sampler_bernoulli_kernel,
    sampler_categorical_kernel,
)
from genkern.triton_kernels.sampler.kernels import sampler_stage_kernel
from genkern.triton_kernels.sampler.mixture import sampler_mixture_kernel
from genkern.triton_kernels.sampler.plan import BERNOULLI, MIXTURE
from genkern.triton_kernels.sampler.runner import OP, Drawing, Runner

KERNELS = (
    sampler_stage_kernel, sampler_bernoulli_kernel, sampler_categorical_kernel,
    sampler_mixture_kernel,
)  # fmt: skip
_DTYPES = (torch.float32, torch.float64)
# Of the plans whose numbers are alive: what has been read of them, and their graphs.
_runners: WeakIdKeyDictionary = WeakIdKeyDictionary()


def unsupported(cache: torch.Tensor, levels: int = 2, kind: int = BERNOULLI) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    if kind > MIXTURE:
        return f"{OP}: kind must be at most {MIXTURE}: no kernel draws from a normal; got {kind}"
    if cache.dtype not in _DTYPES:
        got = spec.dtype_name(cache.dtype)
        return f"{OP}: the model must be in float32 or float64; got {got}"
    if levels > spec.MOST_DRAWN_LEVELS:
        return f"{OP}: levels must be at most {spec.MOST_DRAWN_LEVELS}; got {levels}"
    return None


def _runner(numbers, tables, packed, constants, cache, images: int) -> Runner:
    found = _runners.get(numbers)
    if found is None or found.cache.data_ptr() != cache.data_ptr() or found.images != images:
        found = _runners[numbers] = Runner(numbers, tables, packed, constants, cache, images)
    return found


def pack(numbers: torch.Tensor, weights: list[torch.Tensor], columns: list[int]) -> torch.Tensor:
    """The kernels read the weights as they are: (channels, factors) of each product."""
    own = iter(weights)
    whole = [torch.cat([next(own) for _ in range(count)], dim=-1) for count in columns]
    return torch.cat([tensor.reshape(-1) for tensor in whole])


def steps(
    numbers: torch.Tensor,
    tables: torch.Tensor,
    packed: torch.Tensor,
    constants: torch.Tensor,
    cache: torch.Tensor,
    images: int,
    first: int,
    last: int,
) -> None:
    launch.require(unsupported(cache))
    if images:
        _runner(numbers, tables, packed, constants, cache, images).steps(first, last)


def draw(
    numbers: torch.Tensor,
    tables: torch.Tensor,
    packed: torch.Tensor,
    constants: torch.Tensor,
    cache: torch.Tensor,
    noise: torch.Tensor,
    table: torch.Tensor,
    given: torch.Tensor | None,
    integers: torch.Tensor,
    log_prob: torch.Tensor,
    ends: int,
    places: int,
    colours: int,
    kind: int,
    levels: int,
    top_k: int,
    temperature: float,
    scale: float,
    offset: float,
    wants_log_prob: bool,
    first: int,
    last: int,
) -> None:
    launch.require(unsupported(cache, 2 if kind >= MIXTURE else levels, kind))
    if not len(noise):
        return
    drawing = Drawing(ends, places, colours, kind, levels, top_k, temperature)
    runner = _runner(numbers, tables, packed, constants, cache, len(noise))
    runner.draw(first, last, drawing, noise, table, given, integers, log_prob)


LAUNCHERS = {"sampler_pack": pack, "sampler_steps": steps, "sampler_draw": draw}


def configurations() -> Iterator[tuple[str, tuple]]:
    """Both dtypes with every operation and every output, on meta tensors."""
    for dtype in _DTYPES:
        yield from calls.every(dtype)
    with launch.allowing_tf32():
        yield from calls.every(torch.float32)


def variants(n: int) -> Iterator[tuple[str, tuple]]:
    """Calls of other sizes, which other values of ``n`` compile nothing for."""
    yield from calls.of_size(n)


# Half precision has no kernels here: what the gates compile in its place.
COMPILED = "*fp32"
# A kernel for each stage of a step.
MAX_LAUNCHES = {"sampler_steps": 4}
SPILL_BYTES = {"sampler_bernoulli_kernel": 8, "sampler_mixture_kernel": 16}  # addresses
# What a stage does is known when it is compiled: `variants` has two that differ in that.
VARIANTS = {"sampler_stage_kernel": 2}
