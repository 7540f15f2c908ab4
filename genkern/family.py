"""One op family, stated once: schemas, shapes, reference, gradients, choice of backend."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction
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
        returned: whether a call returns these buffers too, without gradients; so does the
            reference.
        gradients: from the arguments of the backward op to its empty results, where these are not
            all contiguous.
        flops: multiplications and additions of the forward and of the backward op, for
            `torch.utils.flop_counter`; each a function of the op's arguments.
        second: from the arguments of the op ``<name>_backward_backward`` to its empty results: its
            kernels are then what double backward runs. It takes the gradients of the gradients
            (``second_0`` ..., None where there is none), the arguments of the backward op, and
            whether the gradient of each upstream gradient and of each tensor is needed.
        flat: from the options to whether the results are piecewise linear in the tensors: their
            second derivatives in them are 0, and nothing is computed for them.
        adjoint: of an op that is linear in its first tensor, and whose other tensors have no
            gradient: its backward pass from the arguments of the backward op to a tuple, as a call
            of the family. It is what double backward runs, of any order, and of the first tensor
            nothing is kept but its shape.

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
        returned: bool = False,
        gradients: Callable | None = None,
        flops: tuple[Callable, Callable] | None = None,
        second: Callable | None = None,
        flat: Callable | None = None,
        adjoint: Callable | None = None,
        backward_of: "Family | None" = None,
    ) -> None:
        self.name, self.reference, self.flat, self.adjoint = name, reference, flat, adjoint
        inputs, outputs = schema.split(") -> ")
        arguments = inputs.removeprefix("(").split(", ")
        tensors = [a for a in arguments if a.startswith("Tensor")]
        options = arguments[len(tensors) :]
        self.tensors = len(tensors)
        self.differentiable = len(tensors) - constants
        self.results = outputs.count("Tensor")
        self.saved, self.returned = len(saved), self.results + returned * len(saved)
        if saved:
            found = ", ".join(["Tensor"] * (self.results + len(saved)))
            schema = f"{inputs}, bool save) -> ({found})"
        if backward_of is None:
            op, given, needs = f"{name}_backward", "upstream", "needs"
            self.forward = library.define(name, f"{name}_forward{schema}", results)
        else:
            op, given, needs = f"{name}_backward_backward", "second", "second_needs"
            self.forward = backward_of.backward
        schema = self._backward_schema(tensors, saved, options, given, needs)
        gradients = gradients or self._empty_gradients
        self.backward: torch._ops.OpOverload = library.define(name, f"{op}{schema}", gradients)
        self.function, self.flops = _function(self), flops
        self.second: Family | None = None
        if second is not None:
            self.second = Family(
                name,
                schema,
                results=gradients,
                reference=self.formula,
                constants=constants + len(saved),
                gradients=second,
                backward_of=self,
            )

    def _backward_schema(self, tensors, saved, options, given: str, needs: str) -> str:
        names = [a.rpartition(" ")[2] for a in tensors[: self.differentiable]]
        words = [f"Tensor? {given}_{i}" for i in range(self.results)]
        words += [*tensors, *(f"Tensor {b}" for b in saved), *options]
        words += [f"bool {needs}_{n}" for n in names]
        return f"({', '.join(words)}) -> ({', '.join(['Tensor'] * len(names))})"

    def formula(self, *arguments: Any) -> tuple[torch.Tensor | None, ...]:
        """The backward op by the reference, differentiable again: it takes the same arguments."""
        upstream, arguments = arguments[: self.results], arguments[self.results :]
        tensors, needs = arguments[: self.differentiable], arguments[-self.differentiable :]
        constants = arguments[self.differentiable : self.tensors]
        options = arguments[self.tensors + self.saved : -self.differentiable]

        def forward(*tensors: Any) -> Any:
            found = self.reference(*tensors, *constants, *options)
            return found[: self.results] if self.returned > self.results else found

        return differentiable_backward(forward, tensors, needs, upstream)

    def differentiable_gradients(self, upstream, saved, options, needs) -> tuple:
        """The backward pass where its results are differentiated again, or batched."""
        if self.adjoint is not None:
            return self.adjoint(*upstream, *saved, *options, *needs)
        if self.second is None or library.is_transforming():
            return self.formula(*upstream, *saved, *options, *needs)
        if self.flat is not None and self.flat(*options):
            saved = [t if t is None else t.detach() for t in saved]
        found = self.second._differentiable((*upstream, *saved, *options, *needs))
        return (found,) if isinstance(found, torch.Tensor) else found

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
            save = self.returned > self.results
            return self.forward(*arguments, save)[: self.returned]
        return self.forward(*arguments)

    def formed_again(self, *arguments: Any) -> torch.Tensor:
        """The call, of which the next families keep the arguments instead of the result.

        A family whose first tensor is this result forms it again in its backward pass: the
        arguments are kept anyway, by the node that made it. In a compiled graph, and where a user
        has hooks on what is saved, it is kept.
        """
        found = self(*arguments)
        if not _is_dynamo_compiling() and isinstance(found.grad_fn, BackwardCFunction):
            found.grad_fn.forms_again = self  # type: ignore[attr-defined]
            found.grad_fn.version = found._version  # type: ignore[attr-defined]
        return found

    def _differentiable(self, arguments: tuple) -> Any:
        if not _is_dynamo_compiling():
            # `choose` has ruled transforms out; what torch does for them takes a third of the call.
            plain = super(torch.autograd.Function, self.function)
            found = plain.apply(*arguments)  # type: ignore
            first = arguments[0]
            source: Any = getattr(first, "grad_fn", None)
            # Where it was written into since, by no_grad or an alias, it is kept as it is now.
            is_made = hasattr(source, "forms_again") and first._version == source.version
            if is_made and not self.adjoint:
                _form_again(found, source)
            return found
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


def _form_again(found: torch.Tensor | tuple[torch.Tensor, ...], source: BackwardCFunction) -> None:
    """Replaces the first saved tensor of what made ``found`` by the call behind ``source``.

    Autograd itself puts the tensor in its place in the graph, so that gradients of any order reach
    it; ``source`` says so if what it saved was changed in place, or freed.
    """
    node: Any = (found if isinstance(found, torch.Tensor) else found[0]).grad_fn

    def again(nothing: None) -> torch.Tensor:
        with torch.no_grad():
            family = source.forms_again  # type: ignore[attr-defined]
            return family.forward(*source.saved_tensors, *source.options)  # type: ignore

    with contextlib.suppress(RuntimeError):  # the hooks of a user: checkpoints, save_on_cpu
        node._raw_saved_tensors[0].register_hooks(lambda tensor: None, again)


def _function(family: Family) -> type[torch.autograd.Function]:
    """The autograd function between the two ops of a family."""
    count, differentiable, results = family.tensors, family.differentiable, family.results
    save, returned = (True,) if family.saved else (), family.returned

    def forward(ctx, *arguments):
        found = family.forward(*arguments, *save)
        tensors, kept = arguments[:count], found[results:] if save else ()
        if family.adjoint is not None:
            first, *others = tensors
            tensors = (first.new_empty(()).expand(first.shape), *others)
        ctx.save_for_backward(*tensors, *kept)
        ctx.options = arguments[count:]
        ctx.set_materialize_grads(False)
        if returned > results:
            ctx.mark_non_differentiable(*kept)
        return found[:returned] if save else found

    def backward(ctx, *upstream):
        upstream = upstream[:results]  # buffers that are returned have none
        nothing = (None,) * (count - differentiable + len(ctx.options))
        if all(d is None for d in upstream):
            return (None,) * differentiable + nothing
        saved, options = ctx.saved_tensors, ctx.options
        needs = ctx.needs_input_grad[:differentiable]
        if torch.is_grad_enabled() or library.is_transforming():  # create_graph, batched gradients
            found = family.differentiable_gradients(upstream, saved, options, needs)
        else:
            found = family.backward(*upstream, *saved, *options, *needs)
            found = (found,) if differentiable == 1 else found
        return *(d if need else None for d, need in zip(found, needs, strict=True)), *nothing

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(family.name, (torch.autograd.Function,), members)
