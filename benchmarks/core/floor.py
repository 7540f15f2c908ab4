"""The floor of a small call: ops of the same schemas that do nothing.

Beside each op of the compiled part stands one named ``<op>_floor`` that takes the same arguments
and returns new tensors of one element. Forward alone it is that op; with backward it is an
`autograd.Function` that calls the two, saves its tensors and passes its gradients on. What genkern
takes above it are argument checks, autocast, the choice of backend, and the work itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FLOOR = "floor"
_LIBRARY = torch.library.Library("genkern", "FRAGMENT")


class _Recorder(TorchDispatchMode):
    """The ops of genkern that run inside of the block, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch._ops.OpOverload, tuple]] = []

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        if function.namespace == "genkern":
            self.calls.append((function, arguments))
        return function(*arguments, **(kwargs or {}))


def _declared(op: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """The op that does nothing beside ``op``."""
    schema = str(op._schema).removeprefix("genkern::")
    name = schema.partition("(")[0]
    if not hasattr(torch.ops.genkern, f"{name}_floor"):
        _LIBRARY.define(schema.replace(name, f"{name}_floor", 1))
    return getattr(torch.ops.genkern, f"{name}_floor").default


def _small(arguments: Sequence[Any]) -> list[Any]:
    """The arguments with a tensor of one element in the place of each tensor."""
    return [a.new_zeros(1) if isinstance(a, torch.Tensor) else a for a in arguments]


def floor(call: Callable) -> Callable:
    """What ``call`` costs without its work, its backward pass included if it has one.

    Raises:
        RuntimeError: ``call`` runs no compiled op of genkern.
    """
    with _Recorder() as recorder:
        call()
    if not recorder.calls:
        raise RuntimeError("the call runs no op of genkern")
    ops = [(_declared(op), _small(arguments)) for op, arguments in recorder.calls]
    forward, arguments = ops[0]
    if len(ops) == 1:
        return lambda: forward(*arguments)
    return _with_backward(forward, arguments, *ops[1])


def _with_backward(forward: Callable, arguments: list, backward: Callable, rest: list) -> Callable:
    names = [argument.name for argument in backward._schema.arguments]
    needs = [rest[i] for i, name in enumerate(names) if name.startswith("needs_")]
    results = [rest[i] is not None for i, name in enumerate(names) if name.startswith("upstream_")]
    leaves = [a.requires_grad_() for a, need in zip(arguments, needs, strict=False) if need]
    others = (None,) * (len(arguments) - len(needs))

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            ctx.save_for_backward(*(a for a in arguments if isinstance(a, torch.Tensor)))
            return forward(*arguments)

        @staticmethod
        def backward(ctx, *upstream):
            assert ctx.saved_tensors
            found = backward(*rest)
            found = (found,) if isinstance(found, torch.Tensor) else found
            return *(d if need else None for d, need in zip(found, needs, strict=True)), *others

    used = [i for i, wanted in enumerate(results) if wanted]
    ones = [torch.ones(1)] * len(used)

    def call():
        for leaf in leaves:
            leaf.grad = None
        outputs = Nothing.apply(*arguments)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        torch.autograd.backward([outputs[i] for i in used], ones)

    return call
