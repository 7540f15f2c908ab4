"""What a model does, recorded op by op on images without data."""

from collections.abc import Callable
from typing import Any

import torch

from genkern.sampling.graph import (
    Graph,
    Image,
    NoRule,
    NotCausal,
    Piece,
    View,
    concatenated,
)

Rule = Callable[..., Any]
_rules: dict[str, Rule] = {}


def register_step(op: str, rule: Rule | None = None) -> Any:
    """States how the results of an op are computed place by place.

        @register_step("aten::relu")
        def relu(graph, x):
            return graph.pointwise("relu", x)

    Args:
        op: "namespace::name" of the op as torch's dispatcher knows it, without an overload.
        rule: from a `Graph` and the arguments of the op, where a `View` stands for what depends on
            the images, to a `View` or a list of them; it adds nodes to the graph. None: to be used
            as a decorator.
    """
    if rule is None:
        return lambda function: register_step(op, function)
    _rules[op] = rule
    return rule


class _Features(torch.Tensor):
    """A tensor without data that stands for a view of the graph."""

    view_: View
    graph: Graph
    has_aliases = False  # it is a view, or has views

    @staticmethod
    def __new__(
        cls, view: View, graph: Graph, images: int, dtype: torch.dtype, device: torch.device
    ):
        shape = view.shape_of(images)
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        made.view_, made.graph = view, graph
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # there is no data to show
        return f"Features{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        kwargs, name = kwargs or {}, func._schema.name
        if name.startswith("aten::") and name[6:] in _CREATES:
            return _CREATES[name[6:]](*args)
        found: list[_Features] = []
        known = [_views_in(value, found) for value in args]
        options = {word: _views_in(value, found) for word, value in kwargs.items()}
        is_mutable = func._schema.is_mutable
        rule = _rules.get(name.removesuffix("_") if is_mutable else name)
        if rule is None:
            raise NoRule(
                f"sampling: a model must be made of ops with a rule; got {name} (to add one: "
                f"genkern.sampling.register_step({name!r}, rule))"
            )
        graph = found[0].graph
        results = rule(graph, *known, **options)
        if is_mutable:  # a view of the tensor that is changed would not follow
            if not isinstance(args[0], cls):
                raise NoRule(f"sampling: {name} must not write into a constant")
            if args[0].has_aliases:
                raise NoRule(f"sampling: {name} must not write into a view, or what has views")
            args[0].view_ = results
            return args[0]
        like = (graph.images, found[0].dtype, found[0].device)
        views = [results] if isinstance(results, View) else results
        made = [cls(view, graph, *like) for view in views]
        if any(r.alias_info is not None for r in func._schema.returns):
            for tensor in (*found, *made):
                tensor.has_aliases = True
        return made[0] if isinstance(results, View) else made


def _views_in(value: Any, found: list[_Features]) -> Any:
    if isinstance(value, _Features):
        found.append(value)
        return value.view_
    if isinstance(value, (list, tuple)):
        return [_views_in(part, found) for part in value]
    return value


def _filled(like: torch.Tensor, shape: Any, number: float) -> torch.Tensor:
    return torch.full(shape, number, dtype=like.dtype, device=like.device)


def _full(number: float) -> Callable[..., torch.Tensor]:
    return lambda like, *ignored: _filled(like, like.shape, number)


#: What has the shape of features, and not their values.
_CREATES: dict[str, Callable[..., torch.Tensor]] = {
    "zeros_like": _full(0.0),
    "ones_like": _full(1.0),
    "full_like": lambda like, number: _filled(like, like.shape, number),
    "new_zeros": lambda like, shape: _filled(like, shape, 0.0),
    "new_ones": lambda like, shape: _filled(like, shape, 1.0),
    "new_full": _filled,
}


def record(
    model: Callable[..., torch.Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *condition: Any,
    together: bool,
    device: torch.device,
) -> tuple[Graph, View, list[Piece]]:
    """The graph of a model, its output, and the colours of the images, in one node if they are
    ``together``, and otherwise in a node each."""
    N, C, H, W = shape
    graph = Graph(N)
    nodes = [Image(C, (H, W))] if together else [Image(1, (H, W), start=c) for c in range(C)]
    view = concatenated([graph.view(graph.add(node)) for node in nodes])
    colours = [view.narrow(c, 1).pieces[0] for c in range(C)]
    with torch.no_grad():
        try:
            output = model(_Features(view, graph, N, dtype, device), *condition)
        except (NoRule, NotCausal):
            raise
        except Exception as error:
            raise NoRule(
                "sampling: the model must run on tensors without data; it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(output, _Features) or output.ndim != 4 or output.shape[2:] != (H, W):
        raise ValueError(
            f"sampling: the model must return parameters (N, P, {H}, {W}) that depend on the "
            f"images; got {type(output).__name__} of shape {tuple(getattr(output, 'shape', ()))}"
        )
    return graph, output.view_, colours
