"""What a model does, recorded op by op on images without data."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils import _pytree as pytree

from genkern.sampling.given import Tape, settle
from genkern.sampling.graph import Graph, Image, NoRule, NoSteps, Piece, View, concatenated
from genkern.sampling.outputs import WrongOutput

Rule = Callable[..., Any]
_rules: dict[str, Rule] = {}
_own: dict[str, Rule] = {}  # of genkern
_NAME = re.compile(r"\w+::\w*[^\W_]")


def register_step(op: str, rule: Rule | None = None) -> Any:
    """States how the results of an op are computed place by place.

        @register_step("aten::relu")
        def relu(graph, x):
            return graph.pointwise("relu", x)

    `docs/sampling.md` says what a graph and its views are, with a rule for each kind of op.

    Args:
        op: "namespace::name" of the op as torch's dispatcher knows it, without an overload; what
            works in place ("aten::relu_") takes the rule of its name without the last "_".
        rule: from a `Graph` and the arguments of the op, where a `View` stands for what depends on
            the images, to a `View` or a list of them; it adds nodes to the graph. What it cannot
            do it refuses by raising `NoRule`; another exception of it ends the call of `sample`.
            None: a decorator.

    Raises:
        TypeError, ValueError: an argument has another type; ``op`` is no such name, or not there.
    """
    if not isinstance(op, str):
        raise TypeError(f"register_step: op must be a str; got {type(op).__name__}")
    if not _NAME.fullmatch(op):
        raise ValueError(
            'register_step: op must be "namespace::name", without an overload or a last "_"; got '
            f"{op!r}"
        )
    space, name = op.split("::")
    if _own and not hasattr(getattr(torch.ops, space), name):  # genkern's own ops come later
        raise ValueError(f"register_step: op must be defined in torch before its rule; got {op!r}")
    if rule is None:
        return lambda function: register_step(op, function)
    if not callable(rule):
        raise TypeError(f"register_step: rule must be callable or None; got {type(rule).__name__}")
    _rules[op] = rule
    return rule


def own_rules() -> None:
    """Those that are there so far: what comes later is checked when it is used."""
    _own.update(_rules)


class _Features(torch.Tensor):
    """A tensor without data that stands for a view of the graph."""

    view_: View
    graph: Graph
    has_aliases = False  # it is a view, or has views

    @staticmethod
    def __new__(cls, view: View, graph: Graph, dtype: torch.dtype, device: torch.device):
        shape = view.shape_of(graph.images)
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        made.view_, made.graph = view, graph
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # there is no data to show
        return f"Features{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        try:
            return _recorded(func, args, kwargs or {})
        except NoSteps:
            raise
        except Exception as error:
            _settle(error, func, args, kwargs or {})


def _features_in(*trees: Any) -> list[_Features]:
    """Of the arguments of an op: lists in lists at most, which needs none of torch's trees."""
    found = []
    for tree in trees:
        if isinstance(tree, _Features):
            found.append(tree)
        elif isinstance(tree, (list, tuple, dict)):
            found += _features_in(*(tree.values() if isinstance(tree, dict) else tree))
    return found


def _recorded(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The result of an op; what it computes goes into the graph."""
    name, is_mutable = func._schema.name, func._schema.is_mutable
    if name.startswith("aten::") and name[6:] in _CREATES:
        return _CREATES[name[6:]](*args)
    found = _features_in(args, kwargs)
    rule = _rule(name.removesuffix("_") if is_mutable else name)
    known, options = _views((args, kwargs))
    results = rule(found[0].graph, *known, **options)
    if _own.get(name.removesuffix("_")) is not rule:
        _check(results, func, args, kwargs)
    views = [results] if isinstance(results, View) else results
    if is_mutable:  # a view of the tensor that is changed would not follow
        if not isinstance(args[0], _Features):
            raise NoRule(f"sampling: {name} must not write into a constant")
        if args[0].has_aliases:
            raise NoRule(f"sampling: {name} must not write into a view, or what has views")
        args[0].view_ = results
        return args[0]
    like = (found[0].graph, found[0].dtype, found[0].device)
    made = [_Features(view, *like) for view in views]
    if any(r.alias_info is not None for r in func._schema.returns):
        for tensor in (*found, *made):
            tensor.has_aliases = True
    return made[0] if isinstance(results, View) else made


def _rule(name: str) -> Rule:
    if name in ("aten::_local_scalar_dense", "aten::equal"):
        raise NoRule(
            f"sampling: what a model does must not depend on values of features, which it reads "
            f"({name}: .item(), bool() or float() of a tensor)"
        )
    if name not in _rules:
        raise NoRule(
            f"sampling: a model must be made of ops with a rule; got {name} (to add one: "
            f"genkern.sampling.register_step({name!r}, rule))"
        )
    return _rules[name]


def _views(tree: Any) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)([_views(branch) for branch in tree])
    if isinstance(tree, dict):
        return {name: _views(branch) for name, branch in tree.items()}
    return tree.view_ if isinstance(tree, _Features) else tree


def _check(results: Any, func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """What a rule that is not genkern's returns has the form and the shapes of the op's results."""
    name, expected = func._schema.name, _without_data(func, args, kwargs)
    is_one = isinstance(expected, torch.Tensor)
    views = [results] if is_one else results
    if not isinstance(views, (list, tuple)) or not all(isinstance(v, View) for v in views):
        form = "a View" if is_one else "a list of Views"
        raise TypeError(f"register_step: the rule of {name} must return {form}; got "
                        f"{type(results).__name__}")  # fmt: skip
    images = _features_in(args, kwargs)[0].graph.images
    shapes = [tuple(tensor.shape) for tensor in pytree.tree_leaves(expected)]
    got = [view.shape_of(images) for view in views]
    if got != shapes:
        raise ValueError(f"register_step: the rule of {name} must return shapes {shapes}, as the "
                         f"op does; got {got}")  # fmt: skip


def _without_data(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The op on tensors of the same shapes that have no data."""
    meta = torch.device("meta")
    empty = lambda t: torch.empty(t.shape, dtype=t.dtype, device=meta)  # noqa: E731
    own_args, own_kwargs = pytree.tree_map_only(torch.Tensor, empty, (args, kwargs))
    return func(*own_args, **own_kwargs)


def _settle(error: Exception, func: Any, args: tuple, kwargs: dict[str, Any]) -> NoReturn:
    """Whose an exception is: what the op raises as well is the model's own, an argument that a rule
    does not know is one without a rule, and the rest is the rule's fault, which ends the call."""
    graph, name = _features_in(args, kwargs)[0].graph, func._schema.name
    try:
        _without_data(func, args, kwargs)
    except NotImplementedError:
        pass  # torch has no form of this op without data: it says nothing of whose the error is
    except Exception as own:
        raise own from error
    known, options = _views((args, kwargs))
    rule = _rules.get(name.removesuffix("_") if func._schema.is_mutable else name)
    if rule is not None and isinstance(error, TypeError):
        try:
            inspect.signature(rule).bind(graph, *known, **options)
        except TypeError as unknown:
            text = f"sampling: no rule covers {func} with such arguments: its rule has {unknown}"
            raise NoRule(text) from error
    graph.fault = error
    raise error


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
    keep: bool = False,
) -> tuple[Graph, View, list[Piece]]:
    """The graph of a model, its output, and the colours of the images, in one node if they are
    ``together``, and otherwise in a node each. ``keep``: with how constants follow from conditions.
    """
    N, C, H, W = shape
    graph = Graph(N, device)
    nodes = [Image(C, (H, W))] if together else [Image(1, (H, W), start=c) for c in range(C)]
    view = concatenated([graph.view(graph.add(node)) for node in nodes])
    colours = [view.narrow(c, 1).pieces[0] for c in range(C)]
    tape = Tape() if keep else None
    if tape is not None:
        condition = tuple(tape.begin(c) if isinstance(c, torch.Tensor) else c for c in condition)
    with torch.no_grad():
        output = _called(model, graph, _Features(view, graph, dtype, device), *condition)
    found = _output(graph, output, (N, H, W))
    settle(graph, tape)
    return graph, found, colours


def _called(model: Callable[..., Any], graph: Graph, images: _Features, *condition: Any) -> Any:
    """What the model returns.

    Raises:
        NoSteps: it cannot be recorded.
        Exception: a rule has a fault, whether or not the model went on after it.
    """
    try:
        output = model(images, *condition)
    except Exception as error:
        if graph.fault is not None:
            raise graph.fault from None
        if isinstance(error, WrongOutput):
            raise
        if isinstance(error, NoSteps):
            raise type(error)(f"{error}{_where(error)}") from error
        raise NoRule(
            "sampling: the model must run on tensors without data; it raised "
            f"{type(error).__name__}: {error}{_where(error)}"
        ) from error
    if graph.fault is not None:
        raise graph.fault
    return output


def _where(error: Exception) -> str:
    """The innermost module of the model that was running, in words."""
    running: list[nn.Module] = []
    at = error.__traceback__
    while at is not None:
        module = at.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            running.append(module)
        at = at.tb_next
    if not running:
        return ""
    names = {module: name for name, module in running[0].named_modules()}
    kind, name = type(running[-1]).__name__, names.get(running[-1], "")
    return f"; in {name} ({kind})" if name else f"; in {kind}"


def _output(graph: Graph, output: Any, sizes: tuple[int, int, int]) -> View:
    """Parameters (N, P, H, W), which may be constants."""
    N, H, W = sizes
    if not isinstance(output, torch.Tensor) or output.ndim != 4 or (
        (len(output), *output.shape[2:]) != sizes
    ):  # fmt: skip
        raise NoRule(
            f"sampling: the model must return parameters ({N}, P, {H}, {W}); got "
            f"{type(output).__name__} of shape {tuple(getattr(output, 'shape', ()))}"
        )
    if isinstance(output, _Features):
        return View(output.view_.pieces, output.view_.grid)
    return graph.constant(output.detach(), output.shape[1], (H, W))
