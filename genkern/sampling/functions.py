"""The functions that a `Pointwise` node may have, as `Execution` computes them."""

from collections.abc import Callable

import torch

from genkern import checks

#: Of values x, y, z, w and a number a.
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "copy": lambda a, x: x,
    "relu": lambda a, x: x.relu(),
    "leaky_relu": lambda a, x: torch.where(x > 0, x, a * x),
    "elu": lambda a, x: torch.where(x > 0, x, a * torch.expm1(x)),
    "elu_of_minus": lambda a, x: torch.where(x < 0, -x, a * torch.expm1(-x)),
    "tanh": lambda a, x: x.tanh(),
    "sigmoid": lambda a, x: x.sigmoid(),
    "silu": lambda a, x: x * x.sigmoid(),
    "exp": lambda a, x: x.exp(),
    "add": lambda a, x, y: x + a * y,
    "mul": lambda a, x, y: x * y,
    "add_number": lambda a, x: x + a,
    "mul_number": lambda a, x: x * a,
    "gated": lambda a, x, y: x.tanh() * y.sigmoid(),
    "cell": lambda a, f, i, g, c: f.sigmoid() * c + i.sigmoid() * g.tanh(),
    "state": lambda a, o, c: o.sigmoid() * c.tanh(),
    "gelu": lambda a, x: torch.nn.functional.gelu(x),
    "softplus": lambda a, x: torch.where(x > a, x, -torch.nn.functional.logsigmoid(-x)),
    "at_least": lambda a, x: x.clamp(min=a),
    "at_most": lambda a, x: x.clamp(max=a),
    "select": lambda a, x, y, z: torch.where(x > 0, y, z),
    "trunc": lambda a, x: x.trunc(),
    "round": lambda a, x: x.round(),
    "sqrt": lambda a, x: x.sqrt(),
    "reciprocal": lambda a, x: x.reciprocal(),
}  # fmt: skip

#: Those whose number has no value that would go without saying.
NUMBERED = frozenset(
    {"leaky_relu", "elu", "elu_of_minus", "add", "add_number", "mul_number", "softplus"}
    | {"at_least", "at_most"}
)


def check_function(function: str, views: int, number: float | None) -> None:
    """What a rule asks of `Graph.pointwise`."""
    name = "graph.pointwise"
    checks.check_option(name, "function", function, tuple(FUNCTIONS))
    takes = FUNCTIONS[function].__code__.co_argcount - 1
    if views != takes:
        raise ValueError(f"{name}: {function} must be of {takes} views; got {views}")
    if number is None and function in NUMBERED:
        raise ValueError(f"{name}: {function} must have a number; got None")
    if number is not None and function not in NUMBERED:
        raise ValueError(f"{name}: {function} takes no number; got {number}")
