"""What each op means, in plain PyTorch. The kernels are tested against these in float64."""

from collections.abc import Callable, Sequence

import torch


def differentiable_backward(
    forward: Callable[..., torch.Tensor | tuple[torch.Tensor | None, ...]],
    inputs: Sequence[torch.Tensor | None],
    needs_grad: Sequence[bool],
    d_outputs: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of ``forward(*inputs)``; they can be differentiated again in grad mode."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Fresh aliases: inputs may depend on each other (mu and logvar of one encoder), and the
        # gradient of one must not run on through another.
        aliases = [
            x if x is None else x.view_as(x) if x.requires_grad or not need
            else x.detach().requires_grad_()  # a constant, and the gradient in it a function of d
            for x, need in zip(inputs, needs_grad, strict=True)
        ]  # fmt: skip
        outputs = forward(*aliases)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    pairs = [
        (y, d)
        for y, d in zip(outputs, d_outputs, strict=True)
        if y is not None and d is not None and y.requires_grad
    ]
    wanted = [x for x, need in zip(aliases, needs_grad, strict=True) if need and x is not None]
    if not pairs or not wanted:
        return tuple(None for _ in inputs)
    found = iter(
        torch.autograd.grad(
            [y for y, _ in pairs],
            wanted,
            [d.to(y.dtype) for y, d in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return tuple(
        next(found) if need and x is not None else None
        for x, need in zip(aliases, needs_grad, strict=True)
    )
