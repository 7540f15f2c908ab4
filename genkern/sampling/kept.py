"""What is kept of a model that stays as it is: its steps, with their plans and packed weights."""

import contextlib
import threading
from collections.abc import Hashable, Iterator
from typing import Any

import torch

_MOST = 4  # of a model: sizes of batches, methods
_lock = threading.Lock()


class _Kept:
    """Of one model, while at least one block says that it is unchanged."""

    def __init__(self, subject: torch.nn.Module) -> None:
        self.subject, self.blocks, self.told = subject, 0, False
        self.state: tuple | None = None
        self.steps: dict[Hashable, Any] = {}

    def take(self, key: Hashable) -> Any:
        """The steps of a key, for one who gives them back; None if there are none, or if the
        weights have changed all the same."""
        with _lock:
            state = _state(self.subject)
            if state != self.state:
                self.steps.clear()
                self.state = state
            return self.steps.pop(key, None)

    def give(self, key: Hashable, steps: Any) -> None:
        with _lock:
            while len(self.steps) >= _MOST:
                self.steps.pop(next(iter(self.steps)))
            self.steps[key] = steps


_models: dict[int, _Kept] = {}


def _subject(model: object) -> object:
    return getattr(model, "__self__", model)


def _state(subject: torch.nn.Module) -> tuple:
    """Where the weights are, and how often they have been written to."""
    tensors = [*subject.parameters(), *subject.buffers()]
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """While the block lasts, the model's weights and whatever else it computes with stay as they
    are: calls of `sample` record it once for each shape and method, and then draw.

        with sampling.unchanged(model):
            for condition in conditions:
                images = sampling.sample(model, len(condition), condition=condition, ...)

    Conditions may differ from call to call. Parameters and buffers that are written to in the block
    through torch all the same (a step of an optimiser, `load_state_dict`) are seen, and the model
    is recorded anew. Not seen are writes through ``.data``, steps of optimisers with
    ``fused=True``, which torch does not count, and tensors that are neither parameters nor buffers
    of the module. What is kept has caches until the end of the block.

    Args:
        model: the module that is given to `sample`, or whose method is.

    Raises:
        TypeError: ``model`` is neither a module nor a method of one: of a function nobody can tell
            which tensors it computes with.
    """
    subject = _subject(model)
    if not isinstance(subject, torch.nn.Module):
        got = type(model).__name__
        raise TypeError(f"unchanged: model must be a Module or a method of one; got {got}")
    with _lock:
        kept = _models.setdefault(id(subject), _Kept(subject))
        kept.blocks += 1
    try:
        yield
    finally:
        with _lock:
            kept.blocks -= 1
            if not kept.blocks:
                _models.pop(id(subject), None)


def kept_of(model: object) -> _Kept | None:
    return _models.get(id(_subject(model))) if _models else None
