"""How far a kernel may be from the float64 reference: rounding arithmetic, one rule for all.

    |got - want| <= eps(dtype) |want| + C eps(accumulation type) sqrt(terms) scale

`terms` is the length of the longest sum behind an element, `scale` a bound on the size of what
is summed (the same expression with absolute values), both stated by the test. C covers the few
roundings of one term: elementary functions are within 3 ulp, and a term has a handful of products.
"""

import torch

C = 16.0
ACCUMULATION = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}


def unit(dtype: torch.dtype, terms: int) -> float:
    """The bound of a sum whose scale is 1."""
    return C * torch.finfo(ACCUMULATION[dtype]).eps * max(terms, 1) ** 0.5


def bound(want: torch.Tensor, dtype: torch.dtype, terms: int, scale) -> torch.Tensor:
    info, sums = torch.finfo(dtype), torch.finfo(ACCUMULATION[dtype])
    storage = info.eps * want.abs() + info.smallest_normal * info.eps + sums.smallest_normal
    return storage + unit(dtype, terms) * scale


def assert_close(
    got: torch.Tensor, want: torch.Tensor, *, terms: int = 1, scale=1.0, name: str = "result"
) -> None:
    """``got`` in its own dtype against ``want`` in float64; NaN and infinities must agree."""
    assert want.dtype == torch.float64, want.dtype
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, want {tuple(want.shape)}"
    limit = bound(want, got.dtype, terms, scale)
    want = torch.where(want.abs() > torch.finfo(got.dtype).max, want.to(got.dtype).double(), want)
    same = (got.double() == want) | (got.isnan() & want.isnan())
    bad = ~(same | ((got.double() - want).abs() <= limit))
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise AssertionError(
            f"{name}: {int(bad.sum())} of {bad.numel()} elements off, first at {at}: got "
            f"{got[at].item()!r}, want {want[at].item()!r}, allowed {limit[at].item():.3g}"
        )
