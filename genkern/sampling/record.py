"""What a model does, recorded op by op on images without data."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from genkern.sampling.graph import Graph, Image, View, concatenated

Rule = Callable[..., Any]
_rules: dict[str, Rule] = {}
_CREATES = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")


def register_step(op: str, rule: Rule | None = None) -> Any:
    """States how the results of an op are computed place by place.

        @register_step("aten::relu")
        def relu(graph, x):
            return graph.pointwise("relu", x)

    Args:
        op: "namespace::name" of the op as torch's dispatcher knows it, without an overload.
        rule: from a `Graph` and the arguments of the op, where a `View` stands for what depends on
            the images, to a `View` or a tuple of them; it adds nodes to the graph. None: to be used
            as a decorator.
    """
    if rule is None:
        return lambda function: register_step(op, function)
    _rules[op] = rule
    return rule


class _Recorder(TorchDispatchMode):
    """Runs what does not depend on the images; hands the rest to the rules."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.views: dict[int, Any] = {}
        self.kept: list[torch.Tensor] = []  # so that no address is used twice

    def know(self, tensor: torch.Tensor, view: Any) -> None:
        self.kept.append(tensor)
        self.views[id(tensor)] = view

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves, _ = tree_flatten((args, kwargs))
        if not any(isinstance(leaf, FakeTensor) for leaf in leaves):
            return func(*args, **kwargs)
        results = func(*args, **kwargs)
        if not any(isinstance(leaf, FakeTensor) for leaf in tree_flatten(results)[0]):
            return results  # of shapes, dtypes and devices
        name = func._schema.name
        if name.removeprefix("aten::") in _CREATES:
            return _created(name.removeprefix("aten::"), results, args, kwargs)
        rule = _rules.get(name.removesuffix("_") if func._schema.is_mutable else name)
        if rule is None:
            raise NotImplementedError(
                f"sampling: a model must be made of ops with a rule; got {name} (to add one: "
                f"genkern.sampling.register_step({name!r}, rule))"
            )
        known = tree_map(lambda leaf: self.views.get(id(leaf), leaf), (args, kwargs))
        found = rule(self.graph, *known[0], **known[1])
        outputs = results if isinstance(results, (tuple, list)) else (results,)
        for output, view in zip(outputs, found if isinstance(found, (tuple, list)) else (found,),
                                strict=True):  # fmt: skip
            self.know(output, view)
        return results


def _created(name: str, like: torch.Tensor, args: tuple, kwargs: dict) -> torch.Tensor:
    """A tensor of the shape of ``like`` that holds one number."""
    if "zeros" in name:
        number = 0.0
    elif "ones" in name:
        number = 1.0
    else:
        number = args[1] if name == "full_like" else args[2]
    return torch.full(like.shape, number, dtype=like.dtype)


def record(
    model: Callable[..., torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype, *condition: Any
) -> tuple[Graph, View, list[Image]]:
    """The graph of a model, its output, and the images: a node for each colour."""
    _, C, H, W = shape
    graph = Graph()
    colours = [Image(1, (H, W), start=c) for c in range(C)]
    for colour in colours:
        graph.add(colour)
    recorder = _Recorder(graph)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
        images = torch.empty(shape, dtype=dtype)
    del fake
    recorder.know(images, concatenated([graph.view(colour) for colour in colours]))
    with torch.no_grad(), recorder:
        output = model(images, *condition)
    view = recorder.views.get(id(output))
    if not isinstance(view, View) or view.grid != (H, W):
        raise ValueError(
            f"sampling: the model must return parameters (N, P, {H}, {W}) that depend on the "
            f"images; got {type(output).__name__} of shape {tuple(getattr(output, 'shape', ()))}"
        )
    return graph, view, colours


