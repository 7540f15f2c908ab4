"""What hypothesis draws: sizes, dtypes, layouts, values."""

import math

import hypothesis.strategies as st
import torch
from hypothesis import settings

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = (
    "contiguous", "permuted", "sliced", "step2", "misaligned", "expanded", "channels_last",
    "negative",
)  # fmt: skip

dtypes = st.sampled_from(DTYPES)
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**31 - 1)


def only(dtype: torch.dtype) -> None:
    """Draws one dtype: to be called before the tests that draw are imported."""
    global DTYPES, dtypes
    DTYPES, dtypes = (dtype,), st.just(dtype)


def examples(times: float):
    """``times`` as many examples as the profile says: the tier and the level choose the profile."""
    return settings(max_examples=max(1, round(times * settings.default.max_examples)))


def sizes(largest: int):
    """0, 1 and sizes that are no multiple of a vector, more often than not."""
    return st.one_of(st.sampled_from([0, 1, 2, 3]), st.integers(0, largest))


def lay_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The values of ``tensor`` behind other strides; "expanded" repeats the first row instead."""
    if layout == "permuted":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout in ("sliced", "step2"):
        step = 2 if layout == "step2" else 1
        shape = (*tensor.shape[:-1], tensor.shape[-1] * step + 3)
        base = torch.full(shape, math.nan, dtype=tensor.dtype)
        view = base[..., 1 : 1 + tensor.shape[-1] * step : step]
        return view.copy_(tensor)
    if layout == "misaligned":
        base = torch.full((tensor.numel() + 1,), math.nan, dtype=tensor.dtype)
        return base[1:].view(tensor.shape).copy_(tensor)
    if layout == "negative":  # memory that holds -x and says so
        if tensor.dtype.itemsize < 4:
            return torch._neg_view(-tensor)
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    if layout == "expanded" and tensor.shape[0] > 0:
        return tensor[:1].expand(tensor.shape)
    if layout == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


def backend() -> str:
    """What must run on drawn tensors."""
    return {"cpu": "cpu", "cuda": "triton"}[torch.get_default_device().type]


@st.composite
def tensors(draw, shape, dtype=None, scale=1.0, layout=None):
    """Normal values times ``scale``, of a drawn dtype and behind a drawn layout.

    They are on torch's default device, which `tests/gpu/test_gpu.py` makes the GPU.
    """
    generator = torch.Generator().manual_seed(draw(seeds))
    dtype = draw(dtypes) if dtype is None else dtype
    values = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") * scale
    values = values.to(torch.get_default_device(), dtype)
    return lay_out(values, draw(layouts) if layout is None else layout)
