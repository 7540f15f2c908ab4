"""The engine on a GPU: the plan of `compiled`, by the Triton kernels of `triton_kernels/sampler`.

They are the CUDA side of the ops that `compiled` calls: the same numbers, tables and caches.
"""

import functools
import warnings

from genkern import library, spec


@functools.cache
def is_available() -> bool:
    """Whether the kernels are there; registers them. Says once why they are not."""
    reason = library.triton_reason("sampler")
    if reason is not None:
        warnings.warn(
            f"genkern: sampling on CUDA runs step by step in PyTorch: {reason}",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
    return reason is None


def draws(kind: str, levels: int) -> bool:
    """Whether they draw from such an output; else each step is drawn in PyTorch."""
    return kind != "gaussian" and (kind != "categorical" or levels <= spec.MOST_DRAWN_LEVELS)
