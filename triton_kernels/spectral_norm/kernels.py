"""The Triton kernel of spectral normalisation: y = W / sigma, and its gradient.

    d_w[o][r][i] = (d_y[o][r][i] - k u[r] v[o][i]) / sigma,  k = <d_y, y>

W is (outer, R, inner) in memory (csrc/spectral_norm/spectral_norm.h). Products of the matrix and a
vector are the library's.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["R", "inner", "count"])
def spectral_norm_scale_kernel(
    p_x, p_u, p_v, p_sigma, p_k, p_y, R: tl.int64, inner: tl.int64, count: tl.int64,
    DTYPE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """y = (x - k u[r] v[o][i]) / sigma; without u y = x / sigma."""
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = o < count
    x = tl.load(p_x + o, mask, 0.0).to(DTYPE)
    sigma = tl.full((1,), tl.load(p_sigma), DTYPE)
    if p_u is not None:
        row = o // inner
        u = tl.load(p_u + row % R, mask, 0.0).to(DTYPE)
        v = tl.load(p_v + row // R * inner + o % inner, mask, 0.0).to(DTYPE)
        x -= tl.full((1,), tl.load(p_k), DTYPE) * u * v
    tl.store(p_y + o, tl.div_rn(x, sigma).to(p_y.dtype.element_ty), mask)
