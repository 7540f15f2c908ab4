"""What a model with a latent variable must have for its likelihood to be estimated."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from genkern import checks


@runtime_checkable
class LatentModel(Protocol):
    """p(x, z) with an encoder q(z | x): all that `log_likelihood` asks of a model.

    A nn.Module with these two methods is one. Annealing from the prior asks for a third,
    ``prior()``: a distribution of z of one item, with ``sample`` and ``log_prob``.
    """

    def encode(self, x: torch.Tensor) -> Any:
        """Items (N, ...) to q(z | x), a distribution of N vectors as torch.distributions has them.

        It has ``rsample(torch.Size([S]))``, z (S, N, ...), and ``log_prob(z)``, (S, N): summed
        over the dimensions of z, as `torch.distributions.Independent` does. Where density and
        sample come from one pass, as in a flow, it has instead
        ``rsample_and_log_prob(torch.Size([S]))``, a pair of them.
        """

    def log_joint(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(x | z) + log p(z), nats: items (N, ...) and z (S, N, ...) to (S, N)."""


def check_model(op: str, model: object, x: object) -> None:
    lacking = [m for m in ("encode", "log_joint") if not callable(getattr(model, m, None))]
    if lacking:
        raise TypeError(
            f"{op}: model must have encode(x) and log_joint(x, z); "
            f"got {type(model).__name__}, which lacks {' and '.join(lacking)}"
        )
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{op}: x must be a Tensor; got {type(x).__name__}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{op}: x must have at least one item; got shape {tuple(x.shape)}")


def draw(op: str, posterior: Any, count: int, items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` samples z (count, N, ...) and their log q (count, N)."""
    shape = torch.Size([count])
    both = getattr(posterior, "rsample_and_log_prob", None)
    if both is not None:
        z, log_prob = both(shape)
    elif hasattr(posterior, "rsample") and hasattr(posterior, "log_prob"):
        z = posterior.rsample(shape)
        log_prob = posterior.log_prob(z)
    else:
        raise TypeError(
            f"{op}: model.encode(x) must return a distribution with rsample and log_prob, or with "
            f"rsample_and_log_prob; got {type(posterior).__name__}"
        )
    if z.shape[:2] != (count, items):
        raise ValueError(
            f"{op}: samples of model.encode(x) must have shape (S, N, ...) = "
            f"({count}, {items}, ...); got {tuple(z.shape)}"
        )
    hint = ": wrap it in torch.distributions.Independent(q, 1)" if log_prob.ndim > 2 else ""
    return z, check_shape(op, "log_prob of model.encode(x)", log_prob, (count, items), hint)


def log_joint(op: str, model: LatentModel, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return check_shape(op, "model.log_joint(x, z)", model.log_joint(x, z), tuple(z.shape[:2]))


def check_shape(
    op: str, name: str, values: torch.Tensor, shape: tuple[int, ...], hint: str = ""
) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor; got {type(values).__name__}")
    if tuple(values.shape) != shape:
        got = f"{tuple(values.shape)}{hint}"
        raise ValueError(f"{op}: {name} must have shape (S, N) = {shape}; got {got}")
    return values


def check_generator(op: str, generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        got = type(generator).__name__
        raise TypeError(f"{op}: generator must be a torch.Generator; got {got}")


@contextlib.contextmanager
def seeded(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Torch's own generators, seeded by ``generator`` for a while, and as they were afterwards.

    A model of somebody else draws from them, and takes no other.
    """
    if generator is None:
        yield
        return
    seed = torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield


def check_count(op: str, name: str, value: object, minimum: int = 1) -> int:
    return checks.check_number(op, name, value, minimum=minimum, integer=True)
