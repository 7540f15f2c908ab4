"""One op family, stated once: schemas, shapes, reference, gradients, choice of backend."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from genkern import library, spec
from genkern.reference import differentiable_backward

_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack


class Family:
    """``family(*tensors, *options)`` runs the op on the backend of its first tensor.

    Args:
        name: stem of its files.
        schema: "(Tensor a, Tensor? b, int option) -> (Tensor, Tensor)": the tensors first.
        results: from the arguments to the empty results, for tracing.
        reference: from the arguments to the results, in plain PyTorch.
        constants: how many of the tensors, the last ones, have no gradient: seeds and the like.
        saved: names of buffers that the kernel keeps for its backward pass. The forward op, and
            ``results``, then take a further argument ``save``, and they are its last results.
        gradients: from the arguments of the backward op to its empty results, where these are not
            all contiguous.
        flops: multiplications and additions of the forward and of the backward op, for
            `torch.utils.flop_counter`; each a function of the op's arguments.

    It declares two ops. ``<name>_forward`` has ``schema``. ``<name>_backward`` takes the gradients
    of the results (None where there is none), the tensors, the saved buffers, the options, and for
    each tensor with a gradient whether it is needed; it returns these gradients, without elements
    where they are not. Any strides are allowed everywhere.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        *,
        results: Callable,
        reference: Callable,
        constants: int = 0,
        saved: Sequence[str] = (),
        gradients: Callable | None = None,
        flops: tuple[Callable, Callable] | None = None,
    ) -> None:
        self.name, self.reference = name, reference
        inputs, outputs = schema.split(") -> ")
        arguments = inputs.removeprefix("(").split(", ")
        tensors = [a for a in arguments if a.startswith("Tensor")]
        options = arguments[len(tensors) :]
        self.tensors = len(tensors)
        self.differentiable = len(tensors) - constants
        self.results = outputs.count("Tensor")
        self.saved = len(saved)
        if saved:
            schema = (
                f"{inputs}, bool save) -> ({', '.join(['Tensor'] * (self.results + len(saved)))})"
            )
        self.forward = library.define(name, f"{name}_forward{schema}", results)
        names = [a.rpartition(" ")[2] for a in tensors[: self.differentiable]]
        words = [f"Tensor? upstream_{i}" for i in range(self.results)]
        words += [*tensors, *(f"Tensor {b}" for b in saved), *options]
        words += [f"bool needs_{n}" for n in names]
        found = ", ".join(["Tensor"] * len(names))
        self.backward = library.define(
            name,
            f"{name}_backward({', '.join(words)}) -> ({found})",
            gradients or self._empty_gradients,
        )
        self.function = _function(self)
        self.flops = flops

    def _empty_gradients(self, *arguments: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        tensors = arguments[self.results :][: self.differentiable]
        found = spec.empty_gradients(tensors, arguments[-self.differentiable :])
        return found if self.differentiable > 1 else found[0]

    def __call__(self, *arguments: Any) -> Any:
        for first in arguments:  # `next` of a generator takes ten times as long
            if first is not None:
                break
        if library.choose(self.name, first) == "reference":
            return self.reference(*arguments)
        if self.flops is not None and not _is_dynamo_compiling() and _dispatch_modes():
            self._register_flops(*self.flops)
        if torch.is_grad_enabled():
            for tensor in arguments[: self.differentiable]:
                if tensor is not None and tensor.requires_grad:
                    return self._differentiable(arguments)
        if self.saved:
            return self.forward(*arguments, False)[: self.results]
        return self.forward(*arguments)

    def _differentiable(self, arguments: tuple) -> Any:
        if not _is_dynamo_compiling():
            # `choose` has ruled transforms out; what torch does for them takes a third of the call.
            plain = super(torch.autograd.Function, self.function)
            return plain.apply(*arguments)  # type: ignore
        # Dynamo cannot tell two arguments of a Function apart that are one tensor.
        apart: list[Any] = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor) and any(argument is a for a in apart):
                argument = argument.view_as(argument)
            apart.append(argument)
        return self.function.apply(*apart)

    def _register_flops(self, *formulas: Callable) -> None:
        # Not at import: the counter's module imports Triton. A mode has a copy of the registry.
        module = sys.modules.get("torch.utils.flop_counter")
        if module is None:
            return
        for op, formula in zip((self.forward, self.backward), formulas, strict=True):
            counted = lambda *a, formula=formula, out_val=None: formula(*a)  # noqa: E731
            registries = [module.flop_registry]
            for mode in _get_current_dispatch_mode_stack():
                counter = getattr(mode, "counter", None)
                if isinstance(counter, module.FlopCounterMode):
                    registries.append(counter.flop_registry)
            for registry in registries:
                registry[op.overloadpacket] = counted


def _function(family: Family) -> type[torch.autograd.Function]:
    """The autograd function between the two ops of a family."""
    count, differentiable, results = family.tensors, family.differentiable, family.results
    save = (True,) if family.saved else ()

    def forward(ctx, *arguments):
        found = family.forward(*arguments, *save)
        kept = found[results:] if save else ()
        ctx.save_for_backward(*arguments[:count], *kept)
        ctx.options = arguments[count:]
        ctx.set_materialize_grads(False)
        return found[:results] if save else found

    def backward(ctx, *upstream):
        nothing = (None,) * (count - differentiable + len(ctx.options))
        if all(d is None for d in upstream):
            return (None,) * differentiable + nothing
        saved, options = ctx.saved_tensors, ctx.options
        needs = ctx.needs_input_grad[:differentiable]
        if torch.is_grad_enabled() or library.is_transforming():
            # create_graph, or batched gradients: the formula, differentiable again
            constants = saved[differentiable:count]
            return *differentiable_backward(
                lambda *tensors: family.reference(*tensors, *constants, *options),
                saved[:differentiable],
                needs,
                upstream,
            ), *nothing
        found = family.backward(*upstream, *saved, *options, *needs)
        found = (found,) if differentiable == 1 else found
        return *(d if need else None for d, need in zip(found, needs, strict=True)), *nothing

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(family.name, (torch.autograd.Function,), members)
