"""Stage 1: every kernel that the other stages launch is compiled, spread over the cores.

No worker touches the GPU: calls on meta tensors go through the launchers, for a driver that only
names the chip, as in the ahead-of-time tests. What they compile stands in Triton's cache, where the
launches of the later stages find it. Every worker walks through all calls and compiles its share.
"""

import contextlib
import importlib
import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch

from tests.gpu.kit import Item, Setting, material

DTYPES = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
IDLE_SECONDS = 0.2


def items(setting: Setting) -> Iterator[Item]:
    context = multiprocessing.get_context("spawn")  # a fork would share what torch has set up
    workers = max(1, min(os.cpu_count() or 1, 16 if setting.device == "cuda" else 2))
    results = context.Queue()
    jobs = [
        context.Process(target=_work, args=(setting, i, workers, results), daemon=True)
        for i in range(workers)
    ]
    for job in jobs:
        job.start()
    while any(job.is_alive() for job in jobs) or not results.empty():
        with contextlib.suppress(queue.Empty):
            name, details, error = results.get(timeout=IDLE_SECONDS)
            yield Item(name, lambda d=details, e=error: _told(d, e))
    for i, job in enumerate(jobs):
        if job.exitcode != 0:
            text = f"exit status {job.exitcode}"
            yield Item(f"worker {i}", lambda text=text: _told({}, text))


def _told(details: dict, error: str | None) -> dict:
    if error is not None:
        raise AssertionError(error)
    return details


def _work(setting: Setting, number: int, workers: int, results) -> None:
    """Compiles the variants number, number + workers, ... in the order in which they are met."""
    from tests.core import aot

    torch.set_num_threads(1)
    seen: set[tuple[str, str]] = set()

    def compile_share(function, key, signature, compiled):
        if (function.__name__, key) in seen:
            return None
        seen.add((function.__name__, key))
        mine = (len(seen) - 1) % workers == number
        if mine and (setting.device == "cuda" or len(seen) <= workers):
            _compile_one(function, len(seen), signature, compiled, results)
        return None

    with aot.compiling(setting.capability, compile_share):
        for call in calls(setting.families):
            # What a call does with results that nothing has computed is not looked at.
            with contextlib.suppress(Exception):
                call()
            if setting.device != "cuda" and len(seen) >= workers:
                break  # the stand-in shows one variant a worker


def _compile_one(function, place: int, signature: dict, compiled: Callable, results) -> None:
    from tests.core import aot

    start, error, details = time.perf_counter(), None, {}
    try:
        kernel = compiled()
        details = {"seconds_compiling": round(time.perf_counter() - start, 3)}
        details |= {"signature": str(signature), "shared": kernel.metadata.shared}
        with contextlib.suppress(Exception):  # the tools that tell are part of some releases only
            details |= aot.resources(kernel.asm["cubin"])
    except Exception as found:
        error = f"{type(found).__name__}: {found}"
    name = f"{function.__name__} {aot.storage_dtype(signature)[1:]} #{place}"
    results.put((name, details, error))


def calls(families: list[str]) -> Iterator[Callable[[], object]]:
    """The launches of all stages, those of the headlines first."""
    from tests.core.triton_kit import interpreted

    with contextlib.ExitStack() as stack:
        for family in families:
            stack.enter_context(interpreted(family))  # here: compiled, and not launched
        # Results that nothing has computed: no element of them is off.
        stack.enter_context(mock.patch.object(torch.Tensor, "__bool__", lambda _: False))
        found = [material(family) for family in families]
        headlines = [case for of_family in found for case in of_family.headlines()]
        stack.enter_context(torch.device("meta"))
        for dtype in DTYPES[:2]:
            for case in headlines:
                yield lambda case=case, dtype=dtype: _both_ways(case, dtype)
        for dtype in DTYPES:
            for of_family in found:
                for call in of_family.calls.values():
                    yield lambda call=call, dtype=dtype: call(dtype)
        for of_family in found:
            for function, shapes in of_family.steps.values():
                yield lambda f=function, s=shapes: _both_ways_of(f, list(map(torch.randn, s)))
        for family in families:
            launchers = importlib.import_module(f"genkern.triton_kernels.{family}")
            for name, arguments in launchers.configurations():
                yield lambda f=launchers.LAUNCHERS[name], a=arguments: f(*a)


def _both_ways(case, dtype: torch.dtype) -> None:
    inputs = {n: t.to("meta", dtype) for n, t in case.inputs().items()}
    with torch.no_grad():
        case.genkern(*inputs.values())  # the forward kernels that save nothing
    _both_ways_of(case.genkern, list(inputs.values()), case.constants, list(inputs))


def _both_ways_of(function: Callable, inputs: list, constants=(), names=()) -> None:
    leaves = [x.requires_grad_() for i, x in enumerate(inputs) if not names or
              names[i] not in constants]  # fmt: skip
    outputs = function(*inputs)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    torch.autograd.grad(outputs, leaves, [torch.empty_like(y) for y in outputs], allow_unused=True)
