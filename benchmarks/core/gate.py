"""The gate: one case in one phase on fresh inputs, and what float64 says its results are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks.core.case import FLOOR, Case
from benchmarks.core.floor import floor

ROUNDING = 16.0  # roundings of one term, elementary functions included


class RedGate(Exception):
    """A result is wrong, so that its time means nothing."""


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, so that an element which nothing wrote is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def _tuple(outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def _check_normal(eps: torch.Tensor) -> None:
    """Mean and variance of a kernel's own noise, within six standard errors."""
    eps, n = eps.double(), eps.numel()
    mean, variance = eps.mean().item(), eps.square().mean().item()
    if abs(mean) > 6 / n**0.5 or abs(variance - 1) > 6 * (2 / n) ** 0.5:
        raise RedGate(f"noise: mean {mean:.3g}, variance {variance:.3g}")


class Trial:
    """Inputs and upstream gradients of one case in one phase, shared by all implementations."""

    def __init__(
        self, case: Case, phase: str, dtype: torch.dtype, device: torch.device, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.case, self.seed, self.dtype = case, seed, dtype
        with_grad = phase == "forward_backward"
        self.inputs = {
            name: tensor.to(device, dtype).requires_grad_(with_grad and name not in case.constants)
            for name, tensor in case.inputs().items()
        }
        self.leaves = {name: t for name, t in self.inputs.items() if t.requires_grad}
        shapes = [y.shape for y in _tuple(case.eager(*self.inputs.values()))]
        self.upstream = [torch.randn(shape).to(device, dtype) for shape in shapes]
        self._wanted: dict[str, dict[str, torch.Tensor]] = {}

    def bind(self, name: str, function: Callable) -> Callable:
        """The call that is timed: forward, and backward where the inputs need gradients."""
        if name == FLOOR:
            return floor(self.bind("genkern", function))
        tensors = tuple(self.inputs.values())
        if not self.leaves:
            return partial(function, *tensors)
        leaves, upstream = tuple(self.leaves.values()), self.upstream

        def forward_backward():
            for leaf in leaves:
                leaf.grad = None
            outputs = _tuple(function(*tensors))
            torch.autograd.backward(outputs, upstream)
            return outputs

        return forward_backward

    def check(self, name: str, call: Callable) -> None:
        """Runs ``call`` once and compares outputs and gradients with the float64 reference."""
        if name == FLOOR:
            return
        self._leave_poison()
        torch.manual_seed(self.seed)
        got = dict(zip(self.case.outputs, _tuple(call()), strict=True))
        got |= {f"d_{leaf}": tensor.grad for leaf, tensor in self.leaves.items()}
        for key, value in got.items():
            if value is None or not value.isfinite().all():
                raise RedGate(f"{key} is missing or not finite")
        if self.case.noise and name not in self.case.noise:
            return  # torch.compile draws noise of its own; its formula is eager's
        for key, want in self._want(name).items():
            self._compare(name, key, got[key], want)

    def drop_grads(self) -> None:
        for leaf in self.leaves.values():
            leaf.grad = None

    def _leave_poison(self) -> None:
        """Frees blocks of NaN in the sizes of the results: an old right answer is not reused."""
        shapes = [d.shape for d in self.upstream] + [t.shape for t in self.leaves.values()]
        device = self.upstream[0].device
        self.drop_grads()
        blocks = [torch.full(s, torch.nan, dtype=self.dtype, device=device) for s in shapes]
        del blocks

    def _want(self, name: str) -> dict[str, torch.Tensor]:
        noise = self.case.noise.get(name)
        key = name if noise else ""
        if key not in self._wanted:
            extra = []
            if noise is not None:
                torch.manual_seed(self.seed)
                eps = noise(*(t.detach() for t in self.inputs.values()))
                _check_normal(eps)
                extra = [eps.double()]
            inputs = {
                n: t.detach().double().requires_grad_(t.requires_grad)
                for n, t in self.inputs.items()
            }
            outputs = _tuple(self.case.reference(*inputs.values(), *extra))
            want = dict(zip(self.case.outputs, (y.detach() for y in outputs), strict=True))
            if self.leaves:
                leaves = [inputs[n] for n in self.leaves]
                grads = torch.autograd.grad(outputs, leaves, [d.double() for d in self.upstream])
                want |= {f"d_{n}": d for n, d in zip(self.leaves, grads, strict=True)}
            self._wanted[key] = want
        return self._wanted[key]

    def _compare(self, name: str, key: str, got: torch.Tensor, want: torch.Tensor) -> None:
        if got.shape != want.shape:
            raise RedGate(f"{key}: shape {tuple(got.shape)}, want {tuple(want.shape)}")
        info = torch.finfo(self.dtype)
        storage, subnormal = info.eps, info.smallest_normal * info.eps
        # genkern accumulates half precision in float32; eager chains round every step.
        single = torch.finfo(torch.float32).eps
        working = min(storage, single) if name == "genkern" else storage
        root = self.case.terms.get(key, 1) ** 0.5
        scale = want.abs().max().item() if want.numel() else 0.0
        limit = (self.case.roundings * storage + ROUNDING * working * root) * scale + subnormal
        limit *= self.case.slack.get(name, 1.0)
        error = (got.double() - want).abs().max().item() if want.numel() else 0.0
        if not error <= limit:
            raise RedGate(f"{key}: error {error:.3g}, allowed {limit:.3g}")
