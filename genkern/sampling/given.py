"""What a model makes of conditions while it is recorded, so that the same can be made of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from genkern.sampling.graph import Constant, Graph, Lookup, PlaceProduct, Product


@dataclass(frozen=True)
class _Place:
    """Stands for a value."""

    which: int


class _Call(NamedTuple):
    func: Callable[..., Any]
    args: Any  # with places
    results: list[int]  # -1: no tensor


class Tape:
    """The ops on conditions and on what follows from them.

    Attributes:
        is_whole: other conditions of the same shapes and dtypes run through the same ops. False
            where one of them wrote into memory, or gave Python a value to decide by.
    """

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.count, self.is_whole = 0, True

    def begin(self, condition: torch.Tensor) -> "Given":
        """The conditions, one after the other, before any op."""
        return self._known(condition)

    def _known(self, value: torch.Tensor) -> "Given":
        self.count += 1
        return Given(value, self.count - 1, self)

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """An op on tensors some of which are known."""
        own_args, own_kwargs = pytree.tree_map_only(Given, lambda g: g.value, (args, kwargs))
        found = func(*own_args, **own_kwargs)
        decides = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        if func._schema.is_mutable or decides & set(func.tags):
            self.is_whole = False
        if func._schema.is_mutable:
            return args[0]
        places = pytree.tree_map_only(Given, lambda g: _Place(g.which), (args, kwargs))
        results = pytree.tree_map_only(torch.Tensor, self._known, found)
        leaves = pytree.tree_leaves(results)
        indices = [leaf.which if isinstance(leaf, Given) else -1 for leaf in leaves]
        self.calls.append(_Call(func, places, indices))
        return results

    def replay(self, conditions: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """All values by their index, of other conditions."""
        values: list[Any] = [*conditions, *[None] * (self.count - len(conditions))]
        for func, places, results in self.calls:
            args, kwargs = pytree.tree_map_only(_Place, lambda p: values[p.which], places)
            found = pytree.tree_leaves(func(*args, **kwargs))
            for index, value in zip(results, found, strict=True):
                if index >= 0:
                    values[index] = value
        return values


class Given(torch.Tensor):
    """A tensor whose ops are written on a tape; its data are reached by ops alone."""

    value: torch.Tensor
    which: int  # of the values of the tape
    tape: Tape

    @staticmethod
    def __new__(cls, value: torch.Tensor, which: int, tape: Tape):
        made = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=value.device
        )
        made.value, made.which, made.tape = value, which, tape
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Given{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        if any(kind is not cls for kind in types):
            return NotImplemented
        leaves = pytree.tree_leaves((args, kwargs))
        tape = next(leaf.tape for leaf in leaves if isinstance(leaf, cls))
        return tape.run(func, args, kwargs or {})


def settle(graph: Graph, tape: Tape | None) -> None:
    """The tensors of a graph as they are. Where constants alone follow from the conditions, the
    graph keeps the tape, and which value each of them is."""
    if tape is None:
        return
    graph.tape, graph.follows = tape, {}

    def plain(tensor: Any) -> Any:
        if not isinstance(tensor, Given):
            return tensor
        tape.is_whole = False
        return tensor.value

    for node in graph.nodes:
        if isinstance(node, Constant) and isinstance(node.value, Given):
            graph.follows[node] = node.value.which
            node.value = node.value.value
        elif isinstance(node, Product):
            for term in node.terms:
                term.weight = plain(term.weight)
            node.bias = plain(node.bias)
        elif isinstance(node, PlaceProduct):
            node.weight, node.bias = plain(node.weight), plain(node.bias)
        elif isinstance(node, Lookup):
            node.rows = plain(node.rows)
