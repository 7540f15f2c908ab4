"""Spectral normalisation of all weights of a network, in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from genkern import checks
from genkern.ops.spectral_norm import spectral_norm, spectral_norm_step

_OP = "SpectralNorm"
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_AT_FIRST = 15  # steps, from random vectors


class SpectralNorm(nn.Module):
    r"""A network whose weights are divided by their largest singular values at each call.

        discriminator = genkern.nn.SpectralNorm(Discriminator())
        logits = discriminator(images)

    Every parameter ``weight`` of two or more dimensions is a matrix: the output channels (dimension
    1 of a transposed convolution, 0 elsewhere) against all others. A call in training mode takes
    ``n_power_iterations`` steps from the vectors of the last one; in evaluation mode they stay. The
    network keeps its own weights, which an optimiser sees; the vectors are buffers of this module,
    and with its ``state_dict`` a run goes on as it was.

    Gradients run through sigma = u^T W v with u and v constant, any number of times. In
    DistributedDataParallel wrap this module: it then is what broadcasts the buffers.

    Args:
        module: the network; its layers need no change.
        n_power_iterations: at each call in training mode, at least 0.
        eps: least norm that a vector is divided by.
        layers: names of the layers whose weight is normalised, as in ``named_modules``; None: all.

    Raises:
        TypeError, ValueError: an option has another type or is out of range, a name in ``layers``
            is that of no layer with such a weight, or there is none.

    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks",
    alg. 1, eq. 12; in the order of torch.nn.utils.parametrizations.spectral_norm: u, then v.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"{_OP}: module must be a Module; got {type(module).__name__}")
        checks.check_number(_OP, "n_power_iterations", n_power_iterations, minimum=0, integer=True)
        self.n_power_iterations = n_power_iterations
        self.eps = checks.check_number(_OP, "eps", eps, minimum=0.0)
        self.module = module
        self._names, self._dims = self._find(module, layers)
        with torch.no_grad():
            weights = self._weights()
            found = []
            for size in ("rows", "columns"):
                draws = []
                for weight, dim in zip(weights, self._dims, strict=True):
                    rows = weight.shape[dim]
                    count = rows if size == "rows" else weight.numel() // max(1, rows)
                    draws.append(nn.functional.normalize(weight.new_empty(count).normal_(), dim=0))
                found.append(draws)
            u, v = spectral_norm_step(weights, *found, dim=self._dims, steps=_AT_FIRST, eps=eps)
        for i, name in enumerate(self._names):
            stem = name.removesuffix(".weight").replace(".", "_")
            self.register_buffer(f"u_{i}_{stem}", u[i])
            self.register_buffer(f"v_{i}_{stem}", v[i])

    @staticmethod
    def _find(
        module: nn.Module, layers: Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if layers is not None and (isinstance(layers, str) or not isinstance(layers, Sequence)):
            raise TypeError(
                f"{_OP}: layers must be a list of names, or None for all; got {layers!r}"
            )
        if layers is not None and not layers:
            raise ValueError(f"{_OP}: layers must name a layer, or be None for all; got {layers!r}")
        found: dict[str, int] = {}
        seen, names = set(), dict[int, str]()
        for name, layer in module.named_modules(remove_duplicate=False):
            if names.setdefault(id(layer), name) != name and hasattr(layer, "weight"):
                raise ValueError(
                    f"{_OP}: module must hold a layer under one name; got {names[id(layer)]!r} and "
                    f"{name!r}"
                )
            weight = getattr(layer, "weight", None)
            if not isinstance(weight, nn.Parameter) or weight.ndim < 2 or id(weight) in seen:
                continue
            if layers is None or name in layers:
                seen.add(id(weight))
                found[f"{name}.weight" if name else "weight"] = int(isinstance(layer, _TRANSPOSED))
        for name in layers or ():
            if (f"{name}.weight" if name else "weight") not in found:
                raise ValueError(
                    f"{_OP}: layers must name layers with a weight of two or more dimensions; "
                    f"got {name!r}"
                )
        if not found:
            raise ValueError(
                f"{_OP}: module must have a weight of two or more dimensions; "
                f"got {type(module).__name__}"
            )
        return tuple(found), tuple(found.values())

    def _weights(self) -> list[torch.Tensor]:
        return [self.module.get_parameter(name) for name in self._names]

    def _vectors(self, letter: str) -> list[torch.Tensor]:
        start = f"{letter}_"
        return [b for name, b in self._buffers.items() if name.startswith(start) and b is not None]

    def normalized_weights(self) -> dict[str, torch.Tensor]:
        """The weights that a call uses, by their names in ``module``; in training mode they come
        after the steps of the power iteration."""
        weights, u, v = self._weights(), self._vectors("u"), self._vectors("v")
        if self.training and self.n_power_iterations:
            with torch.no_grad():
                new_u, new_v = spectral_norm_step(
                    weights, u, v, dim=self._dims, steps=self.n_power_iterations, eps=self.eps
                )
                torch._foreach_copy_([*u, *v], [*new_u, *new_v])
            u, v = new_u, new_v
        elif torch.is_grad_enabled():  # a later step must not change what this graph holds
            u, v = [x.clone() for x in u], [x.clone() for x in v]
        scaled = spectral_norm(weights, u, v, dim=self._dims)
        return dict(zip(self._names, scaled, strict=True))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """``module`` with these arguments."""
        return torch.func.functional_call(self.module, self.normalized_weights(), args, kwargs)

    def extra_repr(self) -> str:
        return f"n_power_iterations={self.n_power_iterations}, eps={self.eps}"
